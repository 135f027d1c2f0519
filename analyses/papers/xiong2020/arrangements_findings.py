"""What ``xiong2020_arrangements_by_depth`` says: GL617 and GL618, how far theory is off."""

import pandas as pd

from analyses.limits import held_against, limit
from analyses.papers.claims import BEGINS
from analyses.papers.xiong2020.words import ends
from analyses.tables import SUMMARY, first, percent, pick, span
from gradlens.analysis import Finding

NAME = "xiong2020_arrangements_by_depth"
REFERENCE = "gradlens.theory.transformer, after Xiong et al. 2020 (2002.04745) and Kedia et al. 2024 (2403.09635)"

CODES = {
    "GL617": (
        "Theory predicts streams and gradients. The median of the relative error over everything that is predicted of "
        "networks at initialization: the stream's second moment after each block, and the gradient norm of each matrix "
        "in each block, of all arrangements and depths. Measured are means over seeds; interval over networks."
    ),
    "GL618": (
        "Theory is nowhere far off. The 95th percentile of the same relative errors: it tells of the matrices, blocks "
        "and arrangements that theory gets least right, and of the noise of few seeds."
    ),
}
_CAUSES = (
    "Few seeds: a mean over five of them scatters by some per cent itself.",
    "A narrow stream: the theory is for widths at which a token's second moment is its mean.",
    "Tokens and labels of real text, which are not independent of each other.",
)


def judge(table: pd.DataFrame) -> list[Finding]:
    """Return a finding for the median and one for the 95th percentile, or one that says why there is none.

    Args:
        table: of ``arrangements_by_depth.compute``.
    """
    summary = pick(table, panel=SUMMARY)
    outside = pick(summary, quantity="not predicted")
    everything = pick(summary, group="everything")
    if everything.empty:
        if outside.empty:
            return []
        claim = f"Theory says nothing of the {outside['n'].iloc[0]:.0f} networks at initialization: {_why(outside)}."
        return [Finding(code="GL617", status="not applicable", claim=claim, analysis=NAME)]
    return [
        _judged("GL617", "median", "the median of its relative errors", everything, outside),
        _judged("GL618", "95th percentile", "the 95th percentile of its relative errors", everything, outside),
    ]


def _judged(code: str, statistic: str, words: str, everything: pd.DataFrame, outside: pd.DataFrame) -> Finding:
    row, most = first(pick(everything, quantity=statistic)), limit(code, "most")
    assert row is not None
    status = held_against(row["low"], row["high"], most=most)
    but = f"; of {outside['value'].sum():.0f} networks it says nothing ({_why(outside)})" if len(outside) else ""
    interval = span(row, percent) if pd.notna(row["low"]) else " (too few networks for an interval)"
    return Finding(
        code=code,
        status=status,
        claim=(
            f"{BEGINS[status].replace('Reproduced', 'As asked for')}: over {row['n']:.0f} predictions for "
            f"{row['x']:.0f} networks, {words} is {percent(row['value'])}{interval}{but}."
        ),
        analysis=NAME,
        **ends(row),
        expected=0.0,
        expected_from="exact mean-field theory of the whole network",
        threshold=f"at most {percent(most, 0)}",
        causes=_CAUSES,
        remedies=("Measure more seeds or wider networks.",),
        reference=REFERENCE,
    )


def _why(outside: pd.DataFrame) -> str:
    return "; ".join(str(label).rstrip(".") for label in outside["label"])
