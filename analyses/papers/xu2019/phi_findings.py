"""What AdaNorm's factor shows: GL511 its mean and deviation, GL512 whether it stays positive."""

from collections.abc import Iterator

import pandas as pd

from analyses.limits import limit
from analyses.papers.xu2019.panels import named
from analyses.tables import SUMMARY, number, percent, pick
from gradlens.analysis import Finding

NAME, REFERENCE = "xu2019_phi", "Xu et al. 2019 (1911.07013), AdaNorm"
#: The zoo's AdaNorm takes the slope of the paper and the scale of the authors' example.
SCALE, SLOPE = 1.0, 0.1

CODES = {
    "GL511": (
        "Mean and deviation of φ. AdaNorm weighs y by φ(y) = C(1 − k y), where y has mean 0 and variance 1: φ has the "
        "mean C, as the paper asks of it, and the standard deviation kC, whatever the input. Both are exact up to "
        "rounding and eps, with C = 1 and k = 1/10 here."
    ),
    "GL512": (
        "Whether φ is positive. The paper asks for φ > 0 and argues with Chebyshev's inequality: at most k² = 1 % of "
        "the entries are 1/k = 10 or more from the mean. That is no promise for every entry. Where max |y| stays below "
        "10 in all recorded rows, φ was positive throughout; above, an entry may have been weighed by a negative φ. No "
        "entry can be above √(H − 1), so that norms of up to 101 features are safe."
    ),
}


def judge(table: pd.DataFrame) -> list[Finding]:
    """Return whether φ is what the paper says, over all tasks, and whether it stays positive, a task each.

    Args:
        table: of ``compute``.
    """
    summary = pick(table, panel=SUMMARY)
    if summary.empty:
        claim = "No recording holds AdaNorm's factor φ."
        return [Finding(code="GL511", status="not applicable", claim=claim, analysis=NAME)]
    return [*_moments(summary), *_positive(summary)]


def _moments(summary: pd.DataFrame) -> Iterator[Finding]:
    """GL511: a fact about every row, so there is no interval."""
    means, deviations = pick(summary, quantity="φ: mean off"), pick(summary, quantity="φ: deviation off")
    if means.empty or deviations.empty:
        return
    room, wide = limit("GL511", "mean"), limit("GL511", "deviation")
    wrong = pd.concat([means[means["value"] > room], deviations[deviations["value"] > wide]])
    verdict = "does not keep" if len(wrong) else "keeps"
    yield Finding(
        code="GL511",
        status="fail" if len(wrong) else "pass",
        claim=(
            f"AdaNorm's φ {verdict} the mean C = {SCALE:g} and the deviation kC = {SLOPE * SCALE:g} in all "
            f"{means['n'].sum():.0f} rows: at worst off by {means['value'].max():.1g} and "
            f"{deviations['value'].max():.1g} of them."
        ),
        analysis=NAME,
        subject=str(wrong["label"].iloc[0]) if len(wrong) else "",
        value=float(max(means["value"].max(), deviations["value"].max())),
        expected=0.0,
        expected_from="y has mean 0 and variance 1, and φ is linear in it",
        threshold=f"mean within {room:g} of C, deviation within {wide:g} of kC",
        sites=tuple(dict.fromkeys(wrong["group"])),
        steps=tuple(dict.fromkeys(int(step) for step in wrong["x"])),
        causes=("Inputs whose variance is near eps, or 0: there y has less than unit variance.", "Another C or k."),
        remedies=("Look at 1/σ of the norm named: eps caps it.",),
        reference=REFERENCE,
    )


def _positive(summary: pd.DataFrame) -> Iterator[Finding]:
    """GL512: a fact about every row, so there is no interval."""
    for task in summary["schedule"].unique():
        rows = pick(summary, schedule=task)
        found = pick(rows, quantity="largest |y|")
        if found.empty:
            continue
        worst = found.iloc[0]
        most, possible = 1.0 / SLOPE, pick(rows, quantity="largest |y| there can be")["value"]
        cannot = len(possible) and float(possible.iloc[0]) < most
        claim = f"{named(str(task))}: the largest |y| is {number(worst['value'])}"
        if worst["value"] >= most:
            over, sure = (_share(rows, what) for what in ("|y| over 1/k", "negative φ"))
            claim += f"; |y| reaches 1/k in {percent(over)} of the {worst['n']:.0f} rows, with a y above 0 (and so a "
            claim += f"negative φ) for certain in {percent(sure)}"
        elif cannot:
            claim += f", and cannot be above √(H − 1) = {number(float(possible.iloc[0]))}: φ is positive in every entry"
        else:
            claim += ", so that φ is positive in every recorded entry"
        yield Finding(
            code="GL512",
            status="warn" if worst["value"] >= most else "pass",
            claim=f"{claim} (at worst {worst['label']}, {worst['group']}, step {worst['x']:.0f}).",
            analysis=NAME,
            subject=named(str(task)),
            value=float(worst["value"]),
            unit="σ",
            expected=f"below {most:g}",
            expected_from="φ = C(1 − k y) > 0 where y < 1/k; by Chebyshev in more than 99 % of the entries",
            threshold=f"below 1/k = {most:g}",
            sites=(str(worst["group"]),),
            steps=(int(worst["x"]),),
            causes=(
                "Sparse or heavy-tailed inputs: single entries many σ from the mean; Chebyshev allows 1 % of them.",
                "A y below −1/k counts too, where φ is large and not negative; of a row only the largest |y| is known.",
            ),
            remedies=("A smaller k; where φ is negative the entry's gradient changes its sign.",),
            reference=REFERENCE,
        )


def _share(rows: pd.DataFrame, what: str) -> float:
    """Return the share of a task's rows with something."""
    return float(pick(rows, quantity=f"share of rows with {what}")["value"].iloc[0])
