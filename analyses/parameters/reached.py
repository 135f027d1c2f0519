"""GL401: the parameters that no gradient reaches, named by block and module."""

import pandas as pd

from analyses.making import SYMPTOMS, Check
from analyses.parameters import whole
from analyses.tables import few_places, first, pick
from gradlens.analysis import Finding, Status

_UNFREEZE = (
    "Let it be trained (requires_grad_(True)) and give it to the optimizer, if it is not meant to stay as it is.",
)
_EXPLAINS = (*SYMPTOMS, "GL001", "GL204", "GL309", "GL311", "GL405", "GL406", "GL704")
CHECK = Check(
    code="GL401",
    analysis="parameters",
    explanation=(
        "Parameters without a gradient. Those whose gradient is absent or 0 in every recorded step but the first, or "
        "so small beside the model's usual one that it is rounding; but for those that were frozen when the lens was "
        "attached. A block of which no parameter has one fails; in older recordings, which do not tell what was "
        "frozen, only if gradients of 0 arrived, and else asks for a look. A block that was frozen as a whole, between "
        "blocks of its stack that are trained, asks for a look too; where no backward pass comes to the model at all "
        "it fails, and where the whole gradient is 0 in {whole:g} recorded steps to the end, or in {nearly:g} of all. "
        "Biases whose gradient is rounding, or comes as 0 where their weight has one, are no fault: in front of a norm "
        "over the batch, of attention's keys, and where a loss is a difference of outputs, it cancels. Less than "
        "{share:g} of the model's entries, and no whole block, explains only what else is told of the same places: "
        "what the rest does it does not do for want of them."
    ),
    unit="parameters",
    expected=0.0,
    expected_from="a model that is trained whole",
    threshold="above {rounding:g} times the model's usual gradient in some step",
    causes=(
        "Frozen on purpose after the lens was attached, or not used by this task (innocent).",
        "Experts or embeddings that no recorded batch chose (innocent).",
        "A detach(), no_grad() or a conversion to numbers on the way from the loss.",
        "Units that never fire (dead ReLUs), or saturated ones, behind which nothing flows back.",
        "A factor that stays at 0, as a branch's scale without a gradient of its own.",
    ),
    explains=_EXPLAINS,
    remedies=(
        "Look for what cuts the graph at the first place named.",
        "Freeze what is not to be trained (requires_grad_(False)) and leave it out of the optimizer.",
    ),
)


def reached(summary: pd.DataFrame, label: str, frozen_known: bool) -> Finding:
    """Return GL401.

    Args:
        summary: of the run.
        label: the recording's.
        frozen_known: whether the recording tells which parameters were frozen, which are not among the rows.
    """
    rows, nothing = pick(summary, quantity="reached"), first(pick(summary, quantity="no pass"))
    if nothing is not None and nothing["n"] > CHECK.limit("steps"):
        claim = (
            f"{label}: no backward pass comes to the model, and no gradient to its {nothing['value']:.0f} parameters."
        )
        return CHECK.finding("fail", claim, label, value=float(nothing["value"]))
    none = whole.judged(CHECK, summary, label)
    if none is not None:
        return none
    if rows.empty:
        return CHECK.silent(f"{label}: no parameter has a gradient in any recorded step.", label)
    inside = pick(summary, quantity="frozen inside")["group"].tolist()
    steps = float(rows["n"].iloc[0])
    if steps < CHECK.limit("steps"):
        claim = f"{label}: {steps + 1:.0f} steps with a gradient are too few to tell which parameters never get one."
        return CHECK.finding("inconclusive", claim, label, remedies=("Record more steps.",))
    rounding = rows["value"].between(0, CHECK.limit("rounding"), inclusive="right") & (rows["value"] > 0)
    with_one = set(rows.loc[rows["value"] > CHECK.limit("rounding"), "group"])
    cancels = (rows["value"] == 0) & rows["group"].str.replace("bias$", "weight", regex=True).isin(with_one)
    innocent = (rounding | cancels) & rows["group"].str.endswith("bias")
    without = rows[(rounding | ~(rows["value"] > 0)) & ~innocent]
    told = (
        f"; of {innocent.sum()} biases it is 0 or rounding, as in front of a norm over the batch"
        if innocent.any()
        else ""
    )
    if without.empty and inside:
        are = "is" if len(inside) == 1 else "are"
        claim = f"{label}: {few_places(inside)} {are} frozen between blocks that are trained."
        return CHECK.finding("warn", claim, label, sites=tuple(inside), remedies=_UNFREEZE)
    if without.empty:
        claim = f"{label}: a gradient reaches all {len(rows) - innocent.sum()} parameters that can have one{told}."
        return CHECK.finding("pass", claim, label, value=0.0, causes=(), remedies=())
    counts = rows.loc[~innocent].groupby("stack", sort=False).size()
    lost = without.groupby("stack", sort=False).size()
    in_block = set(rows.loc[rows["unit"] == "block", "stack"])
    dead = [str(group) for group in lost.index if lost[group] == counts[group] and group in in_block]
    arrived = bool((without.loc[without["stack"].isin(dead), "value"] == 0).any())
    status: Status = "fail" if dead and (arrived or frozen_known) else "warn"
    others = without[~without["stack"].isin(dead)]["group"].tolist()
    what = [f"the whole of {few_places(dead)}"] if dead else []
    what += [few_places(others)] if others else []
    small = not dead and without["high"].sum() < CHECK.limit("share") * rows["high"].sum()
    return CHECK.finding(
        status,
        f"{label}: no gradient reaches {len(without)} of {len(rows)} parameters in {steps:.0f} steps: "
        f"{', and '.join(what)}{told}.",
        label,
        value=float(len(without)),
        sites=(*dead, *others),
        explains=() if small else _EXPLAINS,
        explains_there=_EXPLAINS if small else (),
    )
