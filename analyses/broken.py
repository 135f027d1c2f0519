"""Which of several processes broke first, and where: a lens knows of its own process alone."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from gradlens.recording import Recording

#: How the audit of a lens begins to tell of its own process.
OWN = "Non-finite values, left out of all sums, first at"


def first_broken(recording: Recording) -> str:
    """Say where and in which process something was not finite first; empty for one process, or where all was finite.

    First in time, of one step outputs before gradients, of outputs the first in forward order, of gradients the first
    in backward order; modules are taken to run in the order in which they were registered.

    Args:
        recording: of any kind.
    """
    inputs, norms = recording.activations, recording.norms
    if inputs["rank"].nunique() < 2:
        return ""
    outputs = inputs[inputs["absmax"].isna() & (inputs["numel"] > 0)]
    gradients = norms[norms["nonfinite"] > 0]
    # A gradient behind an output that is none is none either.
    there = pd.MultiIndex.from_frame(outputs[["step", "rank"]])
    gradients = gradients[~pd.MultiIndex.from_frame(gradients[["step", "rank"]]).isin(there)]
    place = _places(recording.sites)
    found = [
        (step, 0, place[site][tensor], f"the {tensor} of {site}, in the forward pass", rank)
        for step, rank, site, tensor in _rows(outputs, "step", "rank", "site", "tensor")
    ] + [
        (step, 1, -place[site]["input"], f"the gradient at {site}, in the backward pass", rank)
        for step, rank, site in _rows(gradients, "step", "rank", "site")
    ]
    if not found:
        return ""
    step, _, _, where, rank = min(found)
    return f"{OWN} {where}, step {step}, process {rank}."


def _rows(table: pd.DataFrame, *columns: str) -> Iterator[tuple[Any, ...]]:
    return zip(*(table[column] for column in columns), strict=True)


def _places(sites: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Return where the input and the output of each site stand in the forward pass: an output is behind all inside."""
    order = dict(zip(sites["site"], sites["order"], strict=True))
    return {
        path: {"input": own, "output": 0.5 + max(n for other, n in order.items() if f"{other}.".startswith(f"{path}."))}
        for path, own in order.items()
    }
