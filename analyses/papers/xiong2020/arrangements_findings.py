"""What ``xiong2020_arrangements_by_depth`` says: GL617 and GL618, how far theory is off."""

from dataclasses import replace

import pandas as pd

from analyses.limits import held_against, limit
from analyses.papers.findings import BEGINS, Code
from analyses.tables import SUMMARY, first, percent, pick, span
from gradlens.analysis import Finding

TYPICAL = Code(
    code="GL617",
    analysis="xiong2020_arrangements_by_depth",
    explanation=(
        "Theory predicts streams and gradients. The median of the relative error over everything that is predicted of "
        "networks at initialization: the stream's second moment after each block, and the gradient norm of each matrix "
        "in each block, of all arrangements and depths. Measured are means over seeds; interval over networks."
    ),
    expected=0.0,
    expected_from="exact mean-field theory of the whole network",
    causes=(
        "Few seeds: a mean over five of them scatters by some per cent itself.",
        "A narrow stream: the theory is for widths at which a token's second moment is its mean.",
        "Tokens and labels of real text, which are not independent of each other.",
    ),
    remedies=("Measure more seeds or wider networks.",),
    reference="gradlens.theory.transformer, after Xiong et al. 2020 (2002.04745) and Kedia et al. 2024 (2403.09635)",
)
FARTHEST = replace(
    TYPICAL,
    code="GL618",
    explanation=(
        "Theory is nowhere far off. The 95th percentile of the same relative errors: it tells of the matrices, blocks "
        "and arrangements that theory gets least right, and of the noise of few seeds."
    ),
)


def judge(table: pd.DataFrame) -> list[Finding]:
    """Return a finding for the median and one for the 95th percentile, or one that says why there is none."""
    summary = pick(table, panel=SUMMARY)
    outside, everything = pick(summary, quantity="not predicted"), pick(summary, group="everything")
    if everything.empty:
        if outside.empty:
            return []
        claim = f"Theory says nothing of the {outside['n'].iloc[0]:.0f} networks at initialization: {_why(outside)}."
        return [TYPICAL.silent(claim)]
    found = []
    for code, statistic in ((TYPICAL, "median"), (FARTHEST, "95th percentile")):
        row, most = first(pick(everything, quantity=statistic)), limit(code.code, "most")
        assert row is not None
        status = held_against(row["low"], row["high"], most=most)
        but = f"; of {outside['value'].sum():.0f} networks it says nothing ({_why(outside)})" if len(outside) else ""
        interval = " (too few networks for an interval)" if pd.isna(row["low"]) else span(row, percent)
        value = f"{percent(row['value'])}{interval}"
        claim = (
            f"{BEGINS[status].replace('Reproduced', 'As asked for')}: over {row['n']:.0f} predictions for "
            f"{row['x']:.0f} networks, the {statistic} of its relative errors is {value}{but}."
        )
        found.append(code.finding(status, claim, row=row, threshold=f"at most {percent(most, 0)}"))
    return found


def _why(outside: pd.DataFrame) -> str:
    return "; ".join(str(label).rstrip(".") for label in outside["label"])
