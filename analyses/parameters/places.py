"""Which parameters stand together: a block of the model, else a module."""

import re

import pandas as pd

from analyses.depth import blocks, enclosing, gradient_norms
from analyses.once import once
from gradlens.recording import Recording

#: More modules than these outside of blocks are drawn by the first part of their path.
_MOST = 24
_NORM = re.compile(r"(norm|(^|[._])(ln|bn)(_?\d+|_[a-z]+)?$)", re.IGNORECASE)


@once
def places(recording: Recording) -> pd.DataFrame:
    """Return the parameters in the order of registration.

    Returns:
        Columns ``name``; ``group``, the path of its block, else of its module; ``block``, which of them it is;
        ``matrix``, false for biases and for what belongs to a norm.
    """
    names = recording.params["name"].drop_duplicates().astype(str).tolist()
    modules = [name.rpartition(".")[0] for name in names]
    block_of = enclosing(modules, blocks(recording)["site"])
    inside = [block_of.get(module, "") for module in modules]
    outside = {module for module, block in zip(modules, inside, strict=True) if not block}
    short = len(outside) > _MOST
    groups = [
        block or (module.partition(".")[0] if short else module) or "the model itself"
        for module, block in zip(modules, inside, strict=True)
    ]
    norms = set(recording.sites.loc[recording.sites["kind"] == "norm", "site"])
    matrix = [
        name.endswith("weight") and module not in norms and not _NORM.search(module)
        for name, module in zip(names, modules, strict=True)
    ]
    table = pd.DataFrame({"name": names, "group": groups, "block": [bool(b) for b in inside]})
    return table.assign(matrix=pd.Series(matrix, dtype=bool))


@once
def gradient_by_group(recording: Recording) -> pd.DataFrame:
    """Return the L2 norm of the gradient of each group's parameters: a row a step, a column a group, in their order.

    It is missing where none of them has a gradient.
    """
    found = places(recording)
    squares = gradient_norms(recording).pow(2).T
    group = found.set_index("name")["group"].reindex(squares.index)
    return squares.groupby(group, sort=False).sum(min_count=1).T[list(dict.fromkeys(found["group"]))].pow(0.5)
