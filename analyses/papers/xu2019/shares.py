"""The three shares of the gradient, ρ² and 1/σ in numbers, at the first recorded step and at the end of training."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analyses.intervals import t_interval
from analyses.limits import limit
from analyses.papers.findings import Code, question
from analyses.papers.xu2019.cells import SIGMA_IS_CUT, cells, last_rows
from analyses.papers.xu2019.runs import Run, grid
from analyses.tables import ABSENT, SUMMARY, pick, tidy
from gradlens.analysis import Finding
from gradlens.recording import Recording

_SHARES = ("recentering", "rescaling", "kept")
#: Quantity to its head in the table, what it is multiplied by there, and its digits.
_HEADS = {
    "recentering": ("re-centering, %", 100.0, 2),
    "rescaling": ("re-scaling, %", 100.0, 2),
    "kept": ("kept, %", 100.0, 1),
    "rho2": ("ρ², %", 100.0, 2),
    "inv_sigma": ("1/σ", 1.0, 2),
}
_WHEN = ("start", "end")
SUM = Code(
    code="GL513",
    analysis="xu2019_shares",
    explanation=(
        "Three shares that add up. In every recorded row of every run: what the derivative of the mean "
        "removes, what that of σ removes, and what is left are parts of one energy, Σ‖g‖²; where they do not sum to "
        "one, the measurement is wrong and the paper's questions cannot be answered with it."
    ),
    expected=0.0,
    expected_from="the orthogonal decomposition of g",
    reference="Xu et al. 2019 (1911.07013), Theorem 1",
)


def compute(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Return the quantities of each task and norm, means over norms, with t-intervals over seeds.

    Args:
        recordings: of the grid; those without a norm are left out.
    """
    rows: list[dict[str, Any]] = []
    for who, members in cells([run for run in grid(recordings) if len(run.recording.norms)]):
        ends = [dict(zip(_WHEN, _ends(run), strict=True)) for run in members]
        for when in _WHEN:
            for quantity in _HEADS:
                interval = t_interval([end[when][quantity] for end in ends])
                if interval.n:
                    rows.append({**who, "panel": when, "quantity": quantity, **interval.row()})
        rows += [{**who, **row} for run in members for row in _off_one(run)]
    return tidy(rows)


def _ends(run: Run) -> tuple[pd.Series, pd.Series]:
    """Return the means over norms at the first recorded step, and over the last fifth of the recorded steps."""
    rows = run.recording.norms
    variance = rows["var_actual"] / rows["var_detached"].where(rows["var_detached"] > 0)
    rows["rho2"] = np.nan if run.norm in SIGMA_IS_CUT else 1.0 - variance
    columns = list(_HEADS)
    first = rows[rows["step"] == rows["step"].min()]
    return first[columns].mean(), last_rows(rows)[columns].mean()


def _off_one(run: Run) -> Iterator[dict[str, Any]]:
    shares = run.recording.norms[list(_SHARES)].dropna()
    if len(shares):
        off = float((shares.sum(axis=1) - 1.0).abs().max())
        yield {"label": run.recording.label, "panel": SUMMARY, "quantity": "off one", "value": off, "n": len(shares)}


def show(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return a table a task: a row a norm, each quantity at the start and at the end."""
    shown = {}
    drawn = table[table["panel"] != SUMMARY]
    for task, own in drawn.groupby("schedule", sort=False):
        rows = [
            {"norm": label}
            | {head: _cell(cell, quantity, factor, digits) for quantity, (head, factor, digits) in _HEADS.items()}
            for label, cell in own.groupby("label", sort=False)
        ]
        caption = f"{task}: at the first recorded step → at the end of training, ± half the 95 % interval over seeds."
        shown[caption] = pd.DataFrame(rows)
    return shown


def _cell(rows: pd.DataFrame, quantity: str, factor: float, digits: int) -> str:
    found = [pick(rows, panel=when, quantity=quantity) for when in _WHEN]
    if any(part.empty for part in found):
        return ABSENT
    start, end = (part.iloc[0] for part in found)
    half = factor * (end["high"] - end["low"]) / 2
    spread = "" if np.isnan(half) else f" ± {half:.{digits}f}"
    # Rounding leaves a share of nothing a little below 0, which must not be printed as −0.
    values = [f"{round(factor * float(part['value']), digits) + 0.0:.{digits}f}" for part in (start, end)]
    return " → ".join(values) + spread


def judge(table: pd.DataFrame) -> list[Finding]:
    """GL513: a fact about every row, so there is no interval."""
    checks = pick(table, quantity="off one")
    if checks.empty:
        return [SUM.silent("No run holds a norm whose gradient was seen.")]
    most, worst = limit("GL200", "sum"), float(checks["value"].max())
    wrong = checks[checks["value"] > most]["label"].unique()
    verdict = f"do not sum to one in {len(wrong)} runs, {wrong[0]} among them" if len(wrong) else "sum to one"
    return [
        SUM.finding(
            "fail" if len(wrong) else "pass",
            f"The three shares {verdict} ({checks['n'].sum():.0f} rows of {len(checks)} runs).",
            value=worst,
            threshold=f"off one by at most {most:g}",
            causes=("Sums in half precision, or numbers that are not finite.",) if len(wrong) else (),
            remedies=("Look at the rows of the run named; measure in float32.",) if len(wrong) else (),
        )
    ]


ANALYSIS = question(
    SUM,
    title="The three shares in numbers",
    question="How much of the gradient do the derivatives of mean and variance take away, before and after training?",
    reading=(
        "The energy of g splits exactly into what the derivative of the mean removes (re-centering), what that of σ "
        "removes (re-scaling) and the rest (kept); a derivative that is cut removes nothing. ρ² is the squared "
        "correlation of g with the normalized value, 1 less the ratio of the variances behind and before. Means over "
        "all norms of the model and all seeds; the end is the last fifth of the recorded steps."
    ),
    needs={
        "norms": ("step", "recentering", "rescaling", "kept", "inv_sigma", "var_detached", "var_actual"),
    },
    kinds=("training",),
    compute=compute,
    show=show,
    judge=judge,
)
