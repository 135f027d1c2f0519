"""GL309: a block that begins to amplify or to fade, from one step to the next, or more and more."""

import math

import pandas as pd

from analyses.advice import PRE_LN, arrange_otherwise, lacks_warm_up, lower_the_rate
from analyses.making import Check
from analyses.onset.jumps import Jump, large
from analyses.tables import listed, number, pick
from gradlens.analysis import Finding, Pass
from gradlens.analysis.finding import place

CHECK = Check(
    code="GL309",
    analysis="onset",
    explanation=(
        "A block that begins to amplify, or to fade. What each block makes of the size of its input, and the norm of "
        "its gradient, are held against those of all other blocks in the same step: what moves all of them, such as a "
        "schedule, plays no part. A jump within {window:g} recorded steps that stays is named with its step, but not "
        "of the gradient in a run's first steps while the loss falls: there gradients find their sizes. So is a block "
        "that has come to make {drift:g} times as much of its input as at the start, however slowly; where there are "
        "no blocks, norms and modules stand for them. Chances are corrected for the number of blocks."
    ),
    unit="times its level before, beside the others",
    expected=1.0,
    expected_from="the other blocks in the same steps",
    threshold="between 1/{jump:g} and {jump:g} within {window:g} recorded steps, and below {drift:g} in all",
    causes=(
        "A part that is switched on or off on purpose: unfreezing, layer drop, a schedule of one group (innocent).",
        "A gain or a branch scale that grows without bound.",
        "Post-LN without a warm-up: the gradient of its last blocks leaves that of the others (GL305).",
        "Weights that were overwritten: by a wrong checkpoint, an update far too large for this group, a custom step.",
        "Saturation: attention's softmax, or a gate, that turned to all or nothing.",
    ),
    remedies=(
        "Look at what changed at the step named: schedule, groups of parameters, data, checkpoints.",
        "Clip or lower the learning rate of that block alone, and see whether it stays.",
    ),
    explains=("GL203", "GL204", "GL301", "GL303", "GL304", "GL305", "GL306", "GL307", "GL308", "GL402", "GL403",
              "GL404"),
)  # fmt: skip
_NAMED = 3


def judged(rows: pd.DataFrame, label: str) -> Finding:
    """Return GL309; the chances of jumps are of noise, corrected for their number.

    Args:
        rows: of the run's summary.
        label: the recording's.
    """
    if not any(len(pick(rows, quantity=f"jump of {q}")) for q in ("growth", "gradient")):
        claim = f"{label}: fewer than three blocks, norms or modules, or too few steps, to hold one against the others."
        return CHECK.silent(claim, label)
    jump, chance = CHECK.limit("jump"), CHECK.limit("chance")
    growth, gradient = (large(_jumps(rows, f"jump of {q}"), jump, chance) for q in ("growth", "gradient"))
    grown = [one for one in _jumps(rows, "drift of growth") if one.factor >= CHECK.limit("drift")]
    # What grows in the forward pass shows in the gradient too: the forward pass is where it was born.
    born: Pass = "forward" if growth or grown else "backward"
    found = growth or grown or gradient
    if not found:
        claim = f"{label}: no block, norm or module leaves the others."
        return CHECK.finding("pass", claim, label, causes=(), remedies=())
    began = min(one.step for one in found)
    same = [one for one in found if one.step <= began + CHECK.limit("window")] if growth or not grown else found
    same.sort(key=lambda one: (one.factor < 1, -abs(math.log(one.factor))))  # what fades beside one that grows
    one = same[0]
    same = [other for other in same if (other.factor > 1) == (one.factor > 1)]
    others = [place(other.name) for other in same[1 : 1 + _NAMED]]
    what = "what it makes of its input's size" if born == "forward" else "its gradient"
    up, slowly = one.factor > 1, " more and more" if grown and not growth else ""
    does, times = ("amplifies", one.factor) if up else ("fades", 1 / one.factor)
    claim = (
        f"{label}: from step {one.step} on {place(one.name)} {does}{slowly}: beside the others {what} is "
        f"{number(times)} times {'larger' if up else 'smaller'} than before"
        f"{f'; {listed(others)} too' if others else ''}."
    )
    remedies = CHECK.remedies
    if born == "backward" and lacks_warm_up(rows):
        remedies = (lower_the_rate(rows), *arrange_otherwise(rows, PRE_LN), *remedies)
    return CHECK.finding(
        "fail" if max(one.factor, 1 / one.factor) > CHECK.limit("far") else "warn",
        claim,
        label,
        value=one.factor,
        sites=tuple(other.name for other in same),
        steps=(one.step,),
        onset=one.step,
        born=born,
        remedies=remedies,
    )


def _jumps(rows: pd.DataFrame, quantity: str) -> list[Jump]:
    cells = pick(rows, quantity=quantity)[["group", "x", "value", "low", "high"]].itertuples(index=False)
    return [Jump(str(name), int(step), *numbers) for name, step, *numbers in cells]
