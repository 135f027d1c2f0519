"""GL705: the scale of what goes in."""

from collections.abc import Iterator

import pandas as pd

from analyses.making import SYMPTOMS, Check
from analyses.tables import first, number, pick
from gradlens.analysis import Finding, Status
from gradlens.analysis.finding import place

CHECK = Check(
    code="GL705",
    analysis="objective",
    explanation=(
        "The scale of the input. The root mean square of the entries of the first tensor that the model is given, in "
        "the first recorded steps, those of 0 left out; and the mean of all over their deviation. Xavier's and "
        "Kaiming's initializations take entries of unit size and no mean for granted; a first layer's gradient grows "
        "with the input and its curvature with the square. Outside of {least:g} to {most:g}, or with a mean of more "
        "than {offset:g} deviations, it asks for a look, but where a norm stands before any layer: one behind a layer "
        "takes the scale out of what follows, but neither out of its own eps nor of that layer's bias. So does a "
        "step whose input is {odd:g} times as large as that of the others. Token numbers are no such input."
    ),
    unit="root mean square",
    expected="about 1",
    expected_from="Xavier's and Kaiming's assumption",
    threshold="{least:g} to {most:g}, and a mean of at most {offset:g} deviations",
    causes=(
        "A model that scales its input itself, or by a norm behind its first layer, whose weights have no bias "
        "(innocent).",
        "Images of 0 to 255 as they were read; features in their own units; audio as integers.",
        "A normalization with the wrong mean or deviation, or one that was done twice.",
        "Inputs that are the same in every entry.",
    ),
    remedies=("Subtract the training data's mean and divide by its deviation, feature by feature.",),
    explains=(*SYMPTOMS, "GL204", "GL309", "GL310", "GL401", "GL406", "GL704", "GL809"),
)


def scaled(rows: pd.DataFrame, label: str, site: str) -> Iterator[Finding]:
    """Yield GL705.

    Args:
        rows: of one module of the run's summary.
        label: the recording's.
        site: the module.
    """
    scale, offset, largest, norm = (
        first(pick(rows, quantity=q)) for q in ("input", "input's offset", "largest input", "input is normalized")
    )
    if scale is None or offset is None or largest is None or norm is None:
        return
    least, most, far = (CHECK.limit(name) for name in ("least", "most", "offset"))
    odd = first(pick(rows, quantity="odd input"))
    sized, centered = least <= scale["value"] <= most, offset["value"] <= far
    status: Status = "pass" if norm["group"] or (sized and centered and odd is None) else "warn"
    if not scale["value"]:
        claim = f"{label}: all entries of the input{f' of {place(site)}' if site else ''} are 0."
        yield CHECK.finding("warn", claim, label, scale, born="forward")
        return
    what = f"the entries of the input{f' of {place(site)}' if site else ''} have a root mean square of"
    said = f"{what} {number(scale['value'])}, the largest {number(largest['value'])}"
    if not centered:
        said += ", and a mean of many deviations" if offset["value"] == float("inf") else (
            f", and a mean of {number(offset['value'])} deviations"
        )  # fmt: skip
    since = None
    if odd is not None:
        since = int(odd["x"])
        said += f"; {odd['group']} it is another, from step {since} on: {number(odd['value'])} times that at the start"
    said += f"; {place(norm['group'])} normalizes them at the front" if norm["group"] else ""
    own = {} if status == "warn" else {"causes": (), "remedies": ()}
    yield CHECK.finding(status, f"{label}: {said}.", label, scale, born="forward", onset=since, **own)
