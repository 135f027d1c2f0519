"""GL401, where the whole gradient is 0: in which steps, and how far back from the loss it still comes."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from analyses.limits import limit
from analyses.making import Check
from analyses.parameters.lasting import onset, since
from analyses.tables import few_places, first, pick
from gradlens.analysis import Finding
from gradlens.analysis.finding import place
from gradlens.recording import Recording


def numbers(params: pd.DataFrame, run: Recording) -> Iterator[dict[str, Any]]:
    """Yield in how many steps the whole gradient is 0 and from which on, and where it is lost on its way back.

    Args:
        params: rows of a run with ``places``, but for those that were frozen.
        run: whose norms and outputs tell how far a gradient comes.
    """
    of = params.groupby("step")
    came = of["square"].max()
    zero = (came == 0) & (of["nonfinite"].sum() == 0)
    least, start = limit("GL401", "whole"), since(zero)
    lasting = start is not None and (zero.index >= start).sum() >= least
    if not lasting and not (zero.sum() >= least and zero.mean() >= limit("GL401", "nearly")):
        return
    begins = int(start) if start is not None and lasting else int(zero.index[zero][0])
    steps = zero.index[zero & (zero.index >= begins)]
    yield {"quantity": "whole gradient is 0", "value": zero.sum(), "n": len(zero),
           "x": onset(begins, zero.index.min())}  # fmt: skip
    norms = run.norms[run.norms["step"].isin(steps)].merge(run.sites[["site", "order"]], on="site")
    largest = norms.dropna(subset="grad_output_norm").groupby("site")[["order", "grad_output_norm"]].max()
    # Registered in the order in which they run, as far as anybody knows: the way back ends at the first.
    largest = largest.sort_values("order", ascending=False)
    back = dict(zip(largest.index.astype(str), largest["grad_output_norm"] > 0, strict=True))
    alive = [site for site, comes in back.items() if comes]
    outputs = run.outputs[run.outputs["step"].isin(steps)]
    yield {"quantity": "it comes as far as", "group": alive[-1] if alive else "", "n": len(alive),
           "value": float((outputs["grad_row_norm"] > 0).any())}  # fmt: skip
    names = params.loc[params["square"].notna(), ["name", "group"]].drop_duplicates()
    last = str(names["name"].iloc[-1]).rpartition(".")[0] or "the model itself"
    lost = list(back)[list(back).index(alive[-1]) + 1 :][:1] if alive else [last]
    for site in lost or names["group"].drop_duplicates():
        yield {"quantity": "it is lost at" if lost else "it is lost in", "group": str(site), "n": names.shape[0]}


def judged(check: Check, summary: pd.DataFrame, label: str) -> Finding | None:
    """Return GL401 of a run whose whole gradient is 0; None of another.

    Args:
        check: GL401.
        summary: of the run.
        label: the recording's.
    """
    of, far = first(pick(summary, quantity="whole gradient is 0")), first(pick(summary, quantity="it comes as far as"))
    if of is None or far is None:
        return None
    at, inside = (pick(summary, quantity=f"it is lost {where}")["group"].tolist() for where in ("at", "in"))
    since_when = None if pd.isna(of["x"]) else int(of["x"])
    if far["group"] and at:
        where = f"it comes back as far as {place(far['group'])}, and not to {place(at[0])}"
    elif far["group"]:
        where = (
            f"it comes back through all {far['n']:.0f} norms as far as {place(far['group'])}, but what is to be "
            f"trained there ({few_places(inside)}) is multiplied by 0"
        )
    elif far["value"]:
        where = f"it comes to the model's output, and not to {place(at[0])}, the last module that is trained"
    else:
        where = f"it is 0 at {place(at[0])} already, the last module that is trained"
    return check.finding(
        "fail",
        f"{label}: in {of['value']:.0f} of {of['n']:.0f} recorded steps the whole gradient is 0"
        f"{'' if since_when is None else f', from step {since_when} on'}: {where}.",
        label,
        value=float(of["value"]),
        unit="steps",
        sites=tuple(at or inside),
        onset=since_when,
        born="backward",
        causes=(
            "A loss that has come to its least, such as a hinge that every row meets (innocent).",
            "A ReLU, or another function that is flat there, behind the last layer.",
            "Two factors that both begin at 0: neither gets a gradient (LoRA with both matrices 0).",
            "A mask of 0 over the whole loss, or a loss scale that underflows.",
        ),
        remedies=("Look at what lies between the two places named.", "Let one of two factors begin at random."),
    )
