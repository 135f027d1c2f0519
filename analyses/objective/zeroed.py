"""GL706: whether the gradients of a step are those of its own batches."""

from collections.abc import Iterator

import pandas as pd

from analyses.making import OVERSHOT, SYMPTOMS, Check
from analyses.tables import few_places, first, pick
from gradlens.analysis import Finding

CHECK = Check(
    code="GL706",
    analysis="objective",
    explanation=(
        "Gradients are zeroed once a step. In how many recorded steps the parameters' gradients also hold those of "
        "steps before. Where it is so in all but the first, of 10 at least, they are never zeroed: each step "
        "goes along the sum of all gradients so far, like a momentum that forgets nothing. That is a fact and fails. "
        "Where it is so of some parameters alone, they are named, and it explains less. In some steps alone it is "
        "told: gradients may be kept across steps on purpose. Micro-batches of one step are no such case, and "
        "zero_grad(set_to_none=False) is as good."
    ),
    unit="of the steps",
    expected=0.0,
    expected_from="zero_grad() once a step",
    threshold="in less than all steps but the first",
    causes=(
        "No zero_grad(), or that of another optimizer.",
        "lens.step() called once a micro-batch, in a recording that is shorter than one step of the optimizer "
        "(innocent).",
    ),
    remedies=("Call optimizer.zero_grad() before each step's first backward.",),
    explains=(*SYMPTOMS, *OVERSHOT, "GL701"),
)

#: Causes where it is so of some parameters.
_PART = (
    "Parameters that no optimizer holds, or none of those that are zeroed (GL405).",
    "Gradients that are kept across steps on purpose for a part of the model (innocent).",
)


def zeroed(rows: pd.DataFrame, label: str, site: str) -> Iterator[Finding]:
    """Yield GL706.

    Args:
        rows: of the run's summary.
        label: the recording's.
        site: not of any module.
    """
    older = first(pick(rows, quantity="not zeroed"))
    if older is None:
        return
    count, steps = int(older["value"]), int(older["n"])
    if steps < 2:
        claim = f"{label}: whether gradients were zeroed is not known: no backward pass was seen to begin at an output."
        yield CHECK.silent(claim, label)
        return
    value = count / steps
    if count >= steps - 1:
        if steps < CHECK.limit("steps"):
            claim = (
                f"{label}: in {count} of {steps} steps gradients were not zeroed: too few steps to tell whether ever."
            )
            yield CHECK.finding("inconclusive", claim, label, value=value)
            return
        often = rows[rows["value"] >= count / 2]
        names = pick(often, quantity="not zeroed in")["group"].tolist()
        if names and len(pick(often, quantity="zeroed in")):
            claim = (
                f"{label}: the gradients of some parameters are never zeroed, such as of {few_places(names)}: in "
                f"{count} of {steps} steps they hold those of all steps before; those of others do not."
            )
            yield CHECK.finding("fail", claim, label, value=value, sites=tuple(names), born="update", causes=_PART,
                                explains=("GL303", "GL305", "GL311", "GL402", "GL403"))  # fmt: skip
            return
        claim = f"{label}: gradients are never zeroed: in {count} of {steps} steps they hold those of all steps before."
        yield CHECK.finding("fail", claim, label, value=value, born="update")
        return
    said = f"in {count} of {steps} steps gradients were kept from the step before" if count else (
        f"in all {steps} steps the gradients are of their own batches"
    )  # fmt: skip
    yield CHECK.finding("pass", f"{label}: {said}.", label, value=value, causes=(), remedies=())
