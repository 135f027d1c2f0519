"""How far two runs are apart in each recorded step, at each place, in the order in which a step comes to them."""

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from gradlens.recording import Recording
from gradlens.recording.alignment import Alignment

#: In the order of a step: what it begins with, forward pass, loss, backward pass, the optimizer's change.
WEIGHTS, FORWARD, LOSS, BACKWARD, UPDATE = range(5)
#: A loss that has come below this share of its first is held against that: what is left is noise of rounding.
_FLOOR = 1e-3
_ROW = ["step", "site"]
_CALL = [*_ROW, "call", "rank"]


def differences(before: Recording, after: Recording, names: Alignment, sites: Alignment) -> pd.DataFrame:
    """Return the relative difference of every number that both runs recorded of the same place and step.

    Args:
        before: one run.
        after: the other.
        names: parameters of the one to those of the other.
        sites: the same of sites.

    Returns:
        Columns ``step``, ``pass`` (``WEIGHTS`` to ``UPDATE``), ``site`` (the second's name), ``what``, ``difference``
        |a - b| / max(|a|, |b|); in no order.
    """
    found = [*_of_parameters(before, after, names), *_of_sites(before, after, sites), *_of_losses(before, after)]
    if not found:
        return pd.DataFrame(columns=["step", "pass", "site", "what", "difference"])
    return pd.concat(found, ignore_index=True)


def in_order(table: pd.DataFrame, run: Recording) -> pd.DataFrame:
    """Return differences sorted as a run came to them, with the column ``at``: the place in the order of the pass.

    Args:
        table: some rows of ``differences``.
        run: the second one.
    """
    forward, backward = _orders(run)
    keys = list(zip(table["site"], table["what"], strict=True))
    place = {key: (backward if key[1] in _BACKWARD else forward).get(key, 0.0) for key in set(keys)}
    table = table.assign(at=[place[key] for key in keys])
    return table.sort_values(["step", "pass", "at"], kind="stable", ignore_index=True)


_BACKWARD = frozenset({"gradient", "gradient at the output", "gradient at the input"})


def _of_parameters(before: Recording, after: Recording, names: Alignment) -> Iterator[pd.DataFrame]:
    columns = {"weight_norm": (WEIGHTS, "weights"), "grad_norm": (BACKWARD, "gradient"),
               "update_norm": (UPDATE, "update")}  # fmt: skip
    one, other = (run.params.rename(columns={"name": "site"}) for run in (before, after))
    yield from _held(one, other, names.pairs, _ROW, columns)


def _of_sites(before: Recording, after: Recording, sites: Alignment) -> Iterator[pd.DataFrame]:
    keys = [*_CALL, "tensor"]
    yield from _held(before.activations, after.activations, sites.pairs, keys, {"rms": (FORWARD, "")})
    columns = {"inv_sigma": (FORWARD, "1/σ"), "grad_output_norm": (BACKWARD, "gradient at the output"),
               "grad_input_norm": (BACKWARD, "gradient at the input")}  # fmt: skip
    yield from _held(before.norms, after.norms, sites.pairs, _CALL, columns)


def _of_losses(before: Recording, after: Recording) -> Iterator[pd.DataFrame]:
    one, other = (run.steps[["step", "loss"]].assign(site="") for run in (before, after))
    first = one.sort_values("step")["loss"].dropna().abs()
    floor = _FLOOR * float(first.iloc[0]) if len(first) else 0.0
    yield from _held(one, other, {"": ""}, _ROW, {"loss": (LOSS, "loss")}, floor)


def _held(
    first: pd.DataFrame,
    second: pd.DataFrame,
    pairs: Mapping[str, str],
    keys: list[str],
    columns: Mapping[str, tuple[int, str]],
    floor: float = 0.0,
) -> Iterator[pd.DataFrame]:
    """Yield the relative differences of columns, of what is no less than a floor."""
    first = first.assign(site=first["site"].map(pairs)).dropna(subset="site")
    both = first[[*keys, *columns]].merge(second[[*keys, *columns]], on=keys, suffixes=("", " after"))
    for column, (part, what) in columns.items():
        a, b = (both[name].astype("float64") for name in (column, f"{column} after"))
        finite = pd.DataFrame({"a": np.isfinite(a), "b": np.isfinite(b)})
        ever = finite.groupby(both["site"])[["a", "b"]].transform("any").all(axis=1)  # else one of them never had it
        compared = finite.any(axis=1) & ever
        scale = pd.concat([a.abs(), b.abs()], axis=1).max(axis=1).clip(lower=floor)
        apart = ((a - b).abs() / scale.where(scale > 0, 1.0)).where(finite.all(axis=1), 1.0)
        table = both.assign(what=both["tensor"] if "tensor" in keys else what, difference=apart)[compared]
        if len(table):
            yield table[["step", "site", "what", "difference"]].assign(**{"pass": part})


def _orders(run: Recording) -> tuple[dict[tuple[str, str], float], dict[tuple[str, str], float]]:
    """Return the places of (site, what) in the forward and in the backward pass.

    Modules run in the order in which they were registered, as far as anybody knows; what comes out of one comes after
    all in it.
    """
    paths = run.sites.sort_values("order")["site"].astype(str).tolist()
    names = run.params["name"].drop_duplicates().astype(str).tolist()
    own: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        own.setdefault(name.rpartition(".")[0], []).append(index)
    forward: dict[tuple[str, str], float] = {(name, "weights"): index for index, name in enumerate(names)}
    forward |= {(name, "update"): index for index, name in enumerate(names)}
    backward: dict[tuple[str, str], float] = {(name, "gradient"): -index for index, name in enumerate(names)}
    behind = -1
    for index, path in enumerate(paths):
        last = index
        while last + 1 < len(paths) and paths[last + 1].startswith(f"{path}."):
            last += 1
        forward[path, "input"], forward[path, "1/σ"] = index, index + 0.25
        forward[path, "output"] = last + 0.5 + 0.4 / (2 + path.count("."))
        mine = own.get(path, [])
        behind = max(mine, default=behind)
        backward[path, "gradient at the output"] = -behind - 0.6
        backward[path, "gradient at the input"] = -(min(mine) - 0.5 if mine else behind + 0.4)
    return forward, backward
