"""GL302 of ``training_curves``: what the warm-up is worth."""

import pandas as pd

from analyses.advice import arrange_otherwise
from analyses.limits import held_against, limit
from analyses.tables import percent
from gradlens.analysis import Finding, Status

_FIGURE = "Xiong et al. 2020 (2002.04745), Fig. 2"

CODE = {
    "GL302": (
        "What the warm-up is worth. The loss without it less the loss with it, over the last steps of two "
        "runs that saw the same batches, as a share of the latter. A variant that trains as well without it "
        "is robust to the learning rate at the start; one that does not needs the warm-up. The interval "
        "over the steps of one pair holds for that seed, learning rate and length of training."
    ),
}


def gain(row: pd.Series, runs: pd.DataFrame, analysis: str) -> Finding:
    """Return GL302: what the warm-up is worth to a variant.

    Args:
        row: its warm-up gain.
        runs: the summary of the variant's runs.
        analysis: name of the analysis that judges.
    """
    variant, most = str(row["variant"]), limit("GL302", "most")
    if row["group"] == "diverged":
        status: Status = "inconclusive"
        claim = f"{variant}: a run with or without warm-up did not come to its end, so there is no gain (GL301)."
    else:
        status = held_against(row["low"], row["high"], most=most)
        fine = "trains better without warm-up" if row["high"] < 0 else "trains as well without warm-up"
        worth = {"pass": fine, "warn": "needs the warm-up"}.get(status, "may need warm-up")
        claim = f"{variant}: {worth}: without it the loss ends {_difference(row)}, over {row['group']}."
    return Finding(
        code="GL302",
        status=status,
        claim=claim,
        analysis=analysis,
        subject=variant,
        value=None if pd.isna(row["value"]) else float(row["value"]),
        low=None if pd.isna(row["low"]) else float(row["low"]),
        high=None if pd.isna(row["high"]) else float(row["high"]),
        unit="of the loss with it",
        expected="about 0 for Pre-LN, above 0 for Post-LN",
        expected_from="the paper's Fig. 2 (IWSLT14 De-En)",
        threshold=f"at most {most:g} of the loss with warm-up",
        causes=(
            "Post-LN: gradients near the output are large at initialization, and Adam's first steps are of full size.",
            "A learning rate so low that nobody needs a warm-up, or so high that it does not help.",
            "One seed: the interval is over steps and knows nothing of other seeds.",
        ),
        remedies=(
            "Keep the warm-up.",
            *arrange_otherwise(runs, "Take the norm before the branch (Pre-LN)."),
            "Repeat with other seeds and learning rates.",
        ),
        reference=_FIGURE,
    )


def _difference(row: pd.Series) -> str:
    """Write a relative difference with its interval: higher, lower, or of no certain sign."""
    ends = [float(row[column]) for column in ("value", "low", "high")]
    if pd.isna(row["low"]) or row["low"] > 0 or row["high"] < 0:
        value, low, high = ends if row["value"] >= 0 else (-ends[0], -ends[2], -ends[1])
        side = "higher" if row["value"] >= 0 else "lower"
        span = "" if pd.isna(row["low"]) else f" (95 % CI {percent(low)} to {percent(high)})"
        return f"{percent(value)} {side}{span}"
    mean, least, most = (percent(end).replace("-", "−") for end in ends)
    return f"no different: {mean} (95 % CI {least} to {most})"
