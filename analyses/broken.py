"""Which of several processes broke first, and where: a lens knows of its own process alone."""

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
        (row.step, 0, place[row.site][row.tensor], f"the {row.tensor} of {row.site}, in the forward pass", row.rank)
        for row in outputs.itertuples()
    ] + [
        (row.step, 1, -place[row.site]["input"], f"the gradient at {row.site}, in the backward pass", row.rank)
        for row in gradients.itertuples()
    ]
    if not found:
        return ""
    step, _, _, where, rank = min(found)
    return f"{OWN} {where}, step {step}, process {rank}."


def _places(sites: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Return where the input and the output of each site stand in the forward pass: an output is behind all inside."""
    order = dict(zip(sites["site"], sites["order"], strict=True))
    return {
        path: {"input": own, "output": 0.5 + max(n for other, n in order.items() if f"{other}.".startswith(f"{path}."))}
        for path, own in order.items()
    }
