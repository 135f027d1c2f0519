"""What the gradients say: GL509 Theorem 1 in every recorded row, GL510 whether re-scaling grows in training."""

from collections.abc import Iterator

import pandas as pd

from analyses.limits import limit
from analyses.papers.findings import Code, plural
from analyses.papers.xu2019.panels import named
from analyses.papers.xu2019.runs import NORMS
from analyses.tables import SUMMARY, number, pick
from gradlens.analysis import Finding, Status

THEOREM = Code(
    code="GL509",
    analysis="xu2019_gradients_by_depth",
    explanation=(
        "Theorem 1 on real gradients. In every recorded row of every run: where the derivative of μ flows, the mean of "
        "dL/dx is zero, else ḡ/σ; the variance of dL/dx is at most D_g/σ², and equal to it where the derivative of σ "
        "is cut. These are exact, up to rounding: a row that breaks one says that the measurement, or what is known "
        "of the norm, is wrong. A row of one vector is also held against var(dL/dx) = (1 − ρ²)·D_g/σ²; of several "
        "vectors that equality cannot be seen in their means."
    ),
    expected=0.0,
    expected_from="Theorem 1, exact for every vector; ρ² makes its inequality an equality",
    causes=(
        "Gradients in bfloat16 or float16, whose rounding is a thousand times coarser.",
        "A norm whose derivatives flow otherwise than its name says.",
    ),
    remedies=("Measure in float32; look at the rows of the site and step named.",),
    reference="Xu et al. 2019 (1911.07013), Theorem 1",
)
GROWTH = Code(
    code="GL510",
    analysis="xu2019_gradients_over_training",
    explanation=(
        "Re-scaling in training. ρ², the squared correlation of g with the normalized value, is the part of the "
        "gradient's variance that the derivative of σ removes. A g that knows nothing of the normalized value has "
        "E[ρ²] = 1/(H − 1). The finding compares ρ²·(H − 1), mean over norms, at the first recorded step and at the "
        "end, each with its interval over seeds: the paper's re-scaling can only matter where it has grown. It "
        "describes these runs, and says nothing of their scores."
    ),
    expected="about 1 at the start, more at the end",
    expected_from="E[ρ²] = 1/(H − 1) for g independent of the normalized value",
    causes=(
        "Training aligns g with the normalized value where the loss depends on its scale.",
        "Above one at the start: what follows depends on that scale already, as a cubed activation does.",
        "Below one: layers behind the norm do not see the scale (ReLU and another norm; expected).",
    ),
    remedies=("Repeat with more seeds, or train longer.",),
    reference="Xu et al. 2019 (1911.07013), Theorem 1",
)
_NOTHING = "No recording of the paper's grid holds a norm with a gradient (w/o Norm has none)."
_PARTS = {
    "mean": "means of dL/dx that are not as the derivative of μ makes them",
    "variance": "variances above D_g/σ², or not equal to it where σ's derivative is cut",
    "correlation": "variances other than (1 − ρ²)·D_g/σ²",
}


def judge_by_depth(table: pd.DataFrame) -> list[Finding]:
    """Return Theorem 1's finding over all rows of all runs."""
    checks = table[table["quantity"].str.startswith("theorem 1: ")]
    if checks.empty:
        return [THEOREM.silent(_NOTHING)]
    return [_theorem(checks)]


def judge_over_training(table: pd.DataFrame) -> list[Finding]:
    """Return a finding on re-scaling for each task and LayerNorm, with and without gain."""
    found = list(_growth(pick(table, panel=SUMMARY)))
    if found:
        return found
    claim = "No complete run with LayerNorm or LayerNorm-simple holds ρ² at two steps." if len(table) else _NOTHING
    return [GROWTH.silent(claim)]


def _theorem(checks: pd.DataFrame) -> Finding:
    """GL509: a fact about every row, so there is no interval."""
    most = limit("GL509", "most")
    worst = checks.iloc[int(checks["value"].to_numpy().argmax())]
    wrong = checks[checks["value"] > most].sort_values("value", ascending=False)
    parts = {part: pick(checks, quantity=f"theorem 1: {part}") for part in _PARTS}
    runs, rows = checks["label"].nunique(), checks.groupby("label")["n"].max().sum()
    where = f"{worst['label']}, {worst['group']}, step {worst['x']:.0f}"
    counted = f"{rows:.0f} rows of {runs} run{plural(runs)}"
    if len(wrong):
        broken = "; ".join(words for part, words in _PARTS.items() if (parts[part]["value"] > most).any())
        claim = f"Theorem 1 does not hold in {wrong['label'].nunique()} of {runs} runs: {broken} (worst by "
        claim += f"{worst['value']:.1g}: {where})."
    else:
        claim = f"Theorem 1 holds in all {counted}, at worst to {worst['value']:.1g} ({where})."
    return THEOREM.finding(
        "fail" if len(wrong) else "pass",
        claim,
        subject=str(worst["label"]) if len(wrong) else "",
        value=float(worst["value"]),
        threshold=f"at most {most:g} of the gradient's size, or of its variance",
        sites=tuple(dict.fromkeys(wrong["group"])),
        steps=tuple(dict.fromkeys(int(step) for step in wrong["x"])),
        details={part: float(rows["value"].max()) for part, rows in parts.items() if len(rows)},
    )


def _growth(summary: pd.DataFrame) -> Iterator[Finding]:
    """GL510: ρ² against that of a random gradient, at the start and at the end."""
    for _, end in pick(summary, quantity="rho2 over random, end").iterrows():
        task, norm = str(end["schedule"]), str(end["variant"])
        start = pick(summary, quantity="rho2 over random, start", schedule=task, variant=norm).iloc[0]
        status, verdict = _grown(start, end)
        yield GROWTH.finding(
            status,
            f"{named(task)}, {NORMS[norm]}: ρ² is {_times(start)} that of a random gradient at the first recorded "
            f"step and {_times(end)} at the end: {verdict}.",
            subject=NORMS[norm],
            row=end,
            threshold=f"at the start at most {limit('GL510', 'start'):g}; intervals over seeds that do not meet",
            details={"start": float(start["value"])},
        )


def _grown(start: pd.Series, end: pd.Series) -> tuple[Status, str]:
    if pd.isna(start["low"]) or pd.isna(end["low"]):
        return "inconclusive", "of one seed, there is no interval"
    if end["high"] < start["low"]:
        return "warn", "it falls"
    if end["low"] <= start["high"]:
        return "inconclusive", "the intervals over seeds meet"
    if start["low"] > limit("GL510", "start"):
        return "inconclusive", "it grows, but is no small one at the start"
    return "pass", "re-scaling is invisible at the start and grows"


def _times(row: pd.Series) -> str:
    span = "" if pd.isna(row["low"]) else f" (95 % CI {number(row['low'])} to {number(row['high'])})"
    return f"{number(row['value'])} times{span}".replace("-", "−")
