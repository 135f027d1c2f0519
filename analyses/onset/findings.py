"""What ``onset`` says: GL307 the first value that is no number, GL308 overflow, GL310 who dies.

GL309, who amplifies, is in ``amplifies``.
"""

from collections.abc import Iterator
from functools import partial

import pandas as pd

from analyses.limits import limit
from analyses.making import SYMPTOMS, Check, codes
from analyses.onset import amplifies
from analyses.tables import few_places, first, number, percent, pick
from gradlens.analysis import Finding, Pass, Status
from gradlens.analysis.finding import place

_check = partial(Check, analysis="onset")

_BROKEN = _check(
    code="GL307",
    explanation=(
        "The first value that is no number. Where in the model, in which pass and in which step a NaN or an infinity "
        "was seen first: of one step an output before a gradient, outputs in the order in which they were made, "
        "gradients in the order in which they came back. What is named is the first tapped place: it was born there or "
        "in what ran between the tapped place before and this one. It fails where the last recorded step is not finite "
        "either, or where no loss scaler looks for its factor."
    ),
    unit="steps",
    expected=0.0,
    expected_from="a run whose values are numbers",
    threshold="none; single steps that a loss scaler skips pass",
    causes=(
        "A loss scaler that looks for its factor: it skips such steps (innocent).",
        "A batch with NaN or infinite entries.",
        "A division by 0, a root or a logarithm of 0 at the place named; of a root of 0 only the gradient is infinite.",
        "Overflow in float16, or weights that an earlier step made huge.",
    ),
    explains=(*SYMPTOMS, "GL308", "GL310", "GL401"),
)
_OVERFLOW = _check(
    code="GL308",
    explanation=(
        "Overflow of float16. The largest activation over 65,504, the largest number that float16 has, and how often a "
        "loss scaler lowered its factor. A scaler looks for its factor in the first steps and tries a larger one now "
        "and then; one that keeps falling in the second half of a run, or has come below one, is chased by gradients "
        "that grow."
    ),
    unit="of float16's largest number",
    expected="below {most:g}",
    expected_from="room for an odd batch",
    threshold="at most {most:g}; and the loss scale lowered in at most {often:g} of the later steps, above 1",
    causes=(
        "A scaler that tries a larger factor every so many steps (innocent).",
        "A stream that grows without a norm that bounds it, or massive activations of single features.",
        "Gradients that overflow because a loss is summed.",
    ),
    remedies=("Use bfloat16.", "Keep that module in float32.", "Normalize what goes into it."),
    explains=("GL301", "GL306", "GL307"),
)
_DIES = _check(
    code="GL310",
    explanation=(
        "A part that dies. Parameters whose gradient was there, and is exactly 0, or absent, from a step on to the "
        "end, while others still have one. It fails where all of a block's, or most of its matrices, do. Parameters "
        "that never had a gradient are GL401's; as there, a small part explains only what is told of the same places."
    ),
    unit="parameters",
    expected=0.0,
    expected_from="a model that learns as a whole",
    threshold="none for {steps:g} recorded steps up to the last",
    causes=(
        "Frozen on purpose during the run, or experts and embeddings that no late batch chose (innocent).",
        "Units that all fire for no input any more: a dead ReLU layer after a step far too large.",
        "A branch whose scale, gate or mask came to 0, or a saturated one.",
        "A detach() or no_grad() that begins at that step.",
    ),
    remedies=(
        "Look at what changed at the step named: a mask, a scale, a detach(), what is frozen.",
        "Lower the learning rate, or warm up for longer; use an activation that leaks.",
    ),
    explains=(*SYMPTOMS, "GL001", "GL204", "GL309", "GL311", "GL405", "GL406"),
)
CODES = codes(_BROKEN, _OVERFLOW, amplifies.CHECK, _DIES)
#: Tensor to where it is, and the pass.
_PLACES: dict[str, tuple[str, Pass]] = {
    "input": ("the input of {} in the forward pass", "forward"),
    "output": ("the output of {} in the forward pass", "forward"),
    "gradient": ("the gradient at {} in the backward pass, all outputs being finite", "backward"),
    "parameter": ("the gradient of {} in the backward pass", "backward"),
}


def judge(table: pd.DataFrame) -> list[Finding]:
    """Return the findings of every run.

    Args:
        table: of ``compute``.
    """
    if table.empty:
        return [_BROKEN.silent("No recording of training holds a step.")]
    findings = []
    for label, rows in table.groupby("label", sort=False):
        name = str(label)
        findings += [_broken(rows, name), *_overflown(rows, name), amplifies.judged(rows, name), _died(rows, name)]
    return findings


def _broken(rows: pd.DataFrame, label: str) -> Finding:
    """GL307: a fact, so there is no interval."""
    row = first(pick(rows, quantity="first broken"))
    if row is None:
        return _BROKEN.silent(f"{label}: the recording does not tell where a value was not finite first.", label)
    if not row["value"]:
        claim = f"{label}: all that was recorded in {row['n']:.0f} steps is finite."
        return _BROKEN.finding("pass", claim, label, value=0.0, causes=())
    where, born = _PLACES[str(row["stack"])]
    where = where.format(place(row["group"]))
    scaled, last = first(pick(rows, quantity="scale fell")) is not None, bool(row["low"])
    skipped = scaled and born == "backward" and not last
    status: Status = "pass" if skipped and row["value"] <= _BROKEN.limit("skipped") * row["n"] else "warn"
    if last:
        status = "fail"
    steps = "in that step alone" if row["value"] == 1 else f"in {row['value']:.0f} of {row['n']:.0f} recorded steps"
    return _BROKEN.finding(
        status,
        f"{label}: the first value that is no number is {where}, at step {row['x']:.0f} ({steps}).",
        label,
        value=float(row["value"]),
        sites=(str(row["group"]),),
        steps=(int(row["x"]),),
        onset=int(row["x"]),
        born=born,
        remedies=(
            f"Look at the batch of step {row['x']:.0f}, and at what runs just before {place(row['group'])}.",
            "Run that step under torch.autograd.set_detect_anomaly(True): it names the operation.",
        ),
    )


def _overflown(rows: pd.DataFrame, label: str) -> Iterator[Finding]:
    """GL308: of a model in float16, or a loss scaler."""
    largest, fell = (first(pick(rows, quantity=q)) for q in ("largest of float16", "scale fell"))
    if largest is None and fell is None:
        return
    claims: list[str] = []
    status: Status = "pass"
    sites: tuple[str, ...] = ()
    onset: int | None = None
    if largest is not None:
        claims.append(f"the largest activation is {percent(largest['value'])} of float16's largest number")
        if largest["value"] > _OVERFLOW.limit("most"):
            status, sites = "warn", (str(largest["group"]),)
            claims[-1] += f", at {place(largest['group'])} in step {largest['x']:.0f}"
            onset = int(largest["x"])
    if fell is not None:
        claims.append(f"the loss scale fell in {fell['value']:.0f} of {fell['n']:.0f} steps, to {number(fell['high'])}")
        if fell["low"] > _OVERFLOW.limit("often") * fell["n"] / 2 or fell["high"] < 1:
            status = "warn"
    value = None if largest is None else float(largest["value"])
    claim = f"{label}: {' and '.join(claims)}."
    yield _OVERFLOW.finding(status, claim, label, value=value, sites=sites, onset=onset)


def _died(rows: pd.DataFrame, label: str) -> Finding:
    """GL310: a fact, so there is no interval."""
    dead = pick(rows, quantity="died")
    dead = dead[(dead["value"] >= _DIES.limit("steps")) & (dead["low"] >= _DIES.limit("steps"))]
    if dead.empty:
        return _DIES.finding("pass", f"{label}: no parameter lost its gradient during the run.", label, value=0.0,
                             causes=(), remedies=())  # fmt: skip
    began = int(dead["x"].min())
    counts = dead.groupby("stack", sort=False).agg(lost=("n", "size"), all=("high", "first"))
    whole = counts.index[counts["lost"] >= _DIES.limit("share") * counts["all"]].tolist()
    names = dead.loc[~dead["stack"].isin(whole), "group"].tolist()
    said = [*whole, *names]
    small = not set(whole) & set(dead.loc[dead["unit"] == "block", "stack"])
    small &= bool(dead["n"].sum() < limit("GL401", "share"))
    return _DIES.finding(
        "fail" if whole else "warn",
        f"{label}: from step {began} on no gradient reaches {len(dead)} parameters that had one before: "
        f"{few_places(said)}.",
        label,
        value=float(len(dead)),
        sites=tuple(map(str, said)),
        steps=(began,),
        onset=began,
        born="backward",
        explains=() if small else _DIES.explains,
        explains_there=_DIES.explains if small else (),
    )
