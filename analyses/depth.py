"""Where in a model's depth a parameter or a norm stands, and the stream and gradient norms block by block.

A stack is the path before the block's number: ``blocks``, ``encoder.blocks``. Its blocks are the recording's
sites of kind ``block``; where blocks were not watched, those its norms stand in; where no site was, the first
number in a parameter's name that stands before a module's: in ``0.weight`` it is a layer's own.
"""

from collections.abc import Iterable, Iterator
from typing import cast

import pandas as pd

from analyses.once import once
from gradlens.recording import Recording

#: Names of groups that are no single parameter.
WHOLE, REST = "whole block", "rest"
#: The FFN's second matrix, as the zoo names it: the one whose gradient the literature follows over depth.
W2 = "ffn.w2"
GRADIENT_UNIT = "loss/weight"
#: Placements of norms that see nothing of the stream, and may come before one that does in a block's order.
_INSIDE_BRANCHES = ("in_branch", "qk")


@once
def blocks(recording: Recording) -> pd.DataFrame:
    """Return the blocks of a recording in forward order: columns ``site``, ``stack``, ``block`` (from 0)."""
    sites = recording.sites
    paths = sites.loc[sites["kind"] == "block", "site"].astype(str).tolist()
    if not paths:
        inside = sites[(sites["kind"] == "norm") & sites["block"].notna()]
        pairs = zip(inside["site"].astype(str), inside["block"], strict=True)
        paths = [path for site, block in pairs if (path := _until(site, str(int(block))))]
    if sites.empty:
        names = recording.params["name"].unique()
        paths = [path for name in names if (path := _until(name, None)) and "." in name[len(path) + 1 :]]
    unique = pd.DataFrame({"site": list(dict.fromkeys(paths))}, dtype=str)
    unique["stack"] = [path.rpartition(".")[0] for path in unique["site"]]
    unique["block"] = unique.groupby("stack").cumcount().astype("int64")
    return unique


def _until(path: str, number: str | None) -> str:
    """Return the path up to its first component that is the number (any number for None); "" without one."""
    parts = path.split(".")
    for index, part in enumerate(parts):
        if part == number or (number is None and part.isdecimal()):
            return ".".join(parts[: index + 1])
    return ""


def parents(path: str) -> list[str]:
    """Return the paths of what a module or parameter lies in, from the outside in."""
    parts = path.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def enclosing(paths: Iterable[str], sites: Iterable[str]) -> dict[str, str]:
    """Return path to the first of the sites that it is, or lies in; without those that lie in none."""
    places = {site: place for place, site in enumerate(sites)}
    found = {}
    for path in paths:
        if inside := [site for site in (*parents(path), path) if site in places]:
            found[path] = min(inside, key=places.__getitem__)
    return found


@once
def parameter_groups(recording: Recording) -> pd.DataFrame:
    """Return the parameters inside blocks: columns ``name``, ``stack``, ``block``, ``group``.

    A group is one weight matrix of the block, such as ``ffn.w2``. Biases and the parameters of norms, whose
    gradients are of another size, are the group ``rest``.
    """
    found, sites = blocks(recording), recording.sites
    norms = set(sites.loc[sites["kind"] == "norm", "site"])
    place = {site: (stack, block) for site, stack, block in found.itertuples(index=False)}
    names = recording.params["name"].drop_duplicates().astype(str)
    rows = []
    for name, site in enclosing(names, found["site"]).items():
        module, _, leaf = name.rpartition(".")
        matrix = leaf.endswith("weight") and module not in norms
        group = name[len(site) + 1 :].removesuffix(".weight").removesuffix("_weight") if matrix else REST
        rows.append((name, *place[site], group))
    return pd.DataFrame(rows, columns=["name", "stack", "block", "group"])


@once
def gradient_norms(recording: Recording) -> pd.DataFrame:
    """Return the L2 norm of the gradient of each parameter: a row a step, a column a name, in order of registration."""
    params = recording.params
    if params.duplicated(["step", "name"]).any():
        params = params.drop_duplicates(["step", "name"], keep="last")
    wide = params.set_index(["step", "name"])["grad_norm"].unstack()
    return wide[list(dict.fromkeys(params["name"]))]


@once
def gradient_by_block(recording: Recording) -> pd.DataFrame:
    """Return the L2 norm of the gradient of every group of parameters in every block at every step.

    Returns:
        Columns ``step``, ``stack``, ``group``, ``block``, ``grad_norm``; the group ``whole block`` is all of
        it.
    """
    norms, groups = gradient_norms(recording), parameter_groups(recording).set_index("name")
    keys = ["stack", "group", "block"]
    parts = [groups.assign(group=WHOLE), groups] if len(groups) else []
    found = []
    for part in parts:
        labels = pd.MultiIndex.from_frame(part[keys])
        squares = norms[list(part.index)].pow(2).T.set_axis(labels).groupby(level=keys, sort=False).sum(min_count=1)
        found.append(cast(pd.Series, squares.T.unstack()).rename("grad_norm").pow(0.5).reset_index())
    long = pd.concat(found) if found else pd.DataFrame(columns=["step", *keys, "grad_norm"])
    return long.dropna(subset="grad_norm").reset_index(drop=True)[["step", *keys, "grad_norm"]]


@once
def stream_by_depth(recording: Recording) -> pd.DataFrame:
    """Return the second moment E[x²] of the stream where it left each block, before a norm resets it.

    In a block that ends with a norm of placement ``post_add`` that is the norm's input; in others the block's
    output or, where blocks were not watched, the input of the next block's first norm or of the final norm.
    Depth 0 is what enters the stack.

    Returns:
        Columns ``step``, ``stack``, ``depth`` (blocks applied), ``second_moment``.
    """
    read = pd.DataFrame(_read(recording), columns=["site", "tensor", "stack", "depth"])
    rms = recording.activations.merge(read, on=["site", "tensor"])
    rms["second_moment"] = rms["rms"] ** 2
    means = rms.groupby(["step", "stack", "depth"])["second_moment"].mean().reset_index()
    return means.dropna(subset="second_moment").astype({"depth": "int64"})


def _read(recording: Recording) -> Iterator[tuple[str, str, str, int]]:
    """Yield site, tensor, stack and depth of what is read for the stream: before each stack and after each block."""
    found, sites = blocks(recording), recording.sites.sort_values("order")
    watched = set(sites.loc[sites["kind"] == "block", "site"])
    norms = sites[(sites["kind"] == "norm") & ~sites["placement"].isin(_INSIDE_BRANCHES)]
    placed = [(str(site), str(placement)) for site, placement in zip(norms["site"], norms["placement"], strict=True)]
    inside: dict[str, list[tuple[str, str]]] = {site: [] for site in found["site"]}
    for norm in placed:
        for site in parents(norm[0]):
            if site in inside:
                inside[site].append(norm)
    at = {(stack, block): site for site, stack, block in found.itertuples(index=False)}
    for site, stack, block in found.itertuples(index=False):
        own = inside[site]
        if block == 0:
            if site in watched:
                yield site, "input", stack, 0
            elif own and own[0][1] == "pre_branch":
                yield own[0][0], "input", stack, 0
        if own and own[-1][1] == "post_add":
            yield own[-1][0], "input", stack, block + 1
        elif site in watched:
            yield site, "output", stack, block + 1
        else:
            after = at.get((stack, block + 1))
            behind = _final(placed, stack) if after is None else inside[after]
            if behind and behind[0][1] in ("pre_branch", "final"):
                yield behind[0][0], "input", stack, block + 1


def _final(norms: list[tuple[str, str]], stack: str) -> list[tuple[str, str]]:
    """Return the final norm beside a stack: of the same parent."""
    parent = stack.rpartition(".")[0]
    return [norm for norm in norms if norm[1] == "final" and norm[0].rpartition(".")[0] == parent]
