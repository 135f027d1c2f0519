"""GL311: whether the gradient norm is what one should expect of this model, and where it is not."""

import pandas as pd

from analyses.expected.numbers import OTHERS, REFERENCE, SEEDS, START
from analyses.limits import held_against
from analyses.making import Check, codes
from analyses.tables import first, number, percent, pick, span
from gradlens.analysis import Finding, Status

CHECK = Check(
    code="GL311",
    analysis="expected",
    explanation=(
        "The gradient norm against its expectation. A gradient norm has no normal value of its own, so it is held "
        "against the best there is: a reference run (--reference RUN), else the same model at its own initialization, "
        "over seeds or in its own first step. It passes where it is within {reference:g} times of the reference, or at "
        "most {most:g} times that at initialization: training makes gradients smaller by any factor, and larger by "
        "little. Of each block its ratio to the reference's, or to the other blocks', is told with it; which block "
        "leaves the others, and when, is GL309."
    ),
    unit="of what is expected",
    expected="about 1 of a reference; below 1 of the initialization",
    expected_from="a reference run, or the same model at initialization",
    threshold="within {reference:g} times of a reference run; at most {most:g} times that at initialization",
    causes=(
        "A loss that was at its flattest at initialization, or data that became harder (innocent).",
        "Weights that have shrunk behind a norm: its gradient grows as one over their size (innocent).",
        "Training at the edge of stability, with a learning rate that is too high.",
        "Of a reference: another batch size, loss or loss scale.",
    ),
    remedies=(
        "Name a run that went well: gradlens diagnose RUN --reference GOOD.",
        "Look at which block holds the gradient: GL305, GL309 and GL402.",
    ),
)
CODES = codes(CHECK)


def judge(table: pd.DataFrame) -> list[Finding]:
    """Return a finding a run.

    Args:
        table: of ``compute``.
    """
    return [_judged(rows, str(label)) for label, rows in table.groupby("label", sort=False)]


def _judged(rows: pd.DataFrame, label: str) -> Finding:
    other = first(pick(rows, quantity="another model"))
    if other is not None:
        claim = f"{label}: the reference {other['group']} is of another model: it has {percent(other['value'])} of the "
        claim += "parameters. Name a run of the same one."
        return CHECK.silent(claim, label)
    measured, ratios = first(pick(rows, quantity="measured")), pick(rows, quantity="ratio")
    ratio = next((first(pick(ratios, group=s)) for s in (REFERENCE, SEEDS, START) if len(pick(ratios, group=s))), None)
    if measured is None or ratio is None:
        claim = f"{label}: the recording begins late, and no reference is named: nothing says what to expect."
        return CHECK.silent(claim, label, remedies=("Name a run that went well: --reference RUN.",))
    source = str(ratio["group"])
    most = CHECK.limit("reference" if source == REFERENCE else "most")
    least = 1 / most if source == REFERENCE else 0.0
    status: Status = held_against(ratio["low"], ratio["high"], least=least, most=most)
    wanted = pick(pick(rows, quantity="expected"), group=source).iloc[0]
    whose = {
        REFERENCE: f"the reference run {ratio['stack']} has there",
        SEEDS: f"this model has at its own initialization ({ratio['n']:.0f} seeds)",
        START: f"this model had at its own initialization ({ratio['stack']})",
    }[source]
    claim = (
        f"{label}: the gradient norm is {'' if status == 'pass' else 'not '}what one should expect: over "
        f"{measured['stack']} it is {number(measured['value'])}{span(measured, without='')}, {number(ratio['value'])} "
        f"times what {whose} ({number(wanted['value'])}){_of_blocks(rows)}."
    )
    if ratio["value"] < 1 / most and status == "pass":
        claim = f"{claim[:-1]}; gradients shrink as a model learns."
    if status == "inconclusive":
        claim = claim.replace("is not what", "may not be what")
    worst = _furthest(rows)
    sites = (str(worst["stack"]),) if worst is not None and status == "warn" else ()
    return CHECK.finding(status, claim, label, ratio, sites=sites, details={"answer": True})


def _furthest(rows: pd.DataFrame) -> pd.Series | None:
    """Return the block that is furthest from the reference's, else from the other blocks."""
    blocks = pick(rows, quantity="block ratio")
    own = pick(blocks, group=REFERENCE)
    own = own if len(own) else pick(blocks, group=OTHERS)
    if own.empty:
        return None
    far = own["value"].where(own["value"] > 1, 1 / own["value"])
    return first(own.loc[far.sort_values(ascending=False, kind="stable").index])


def _of_blocks(rows: pd.DataFrame) -> str:
    """Tell within which range the blocks are."""
    furthest = _furthest(rows)
    if furthest is None:
        return ""
    own = pick(pick(rows, quantity="block ratio"), group=str(furthest["group"]))["value"]
    beside = "the reference's" if furthest["group"] == REFERENCE else "the median of the others"
    return f"; its blocks have {number(own.min())} to {number(own.max())} times {beside}, furthest {furthest['stack']}"
