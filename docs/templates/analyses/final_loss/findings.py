"""GL999: whether the loss falls."""

import pandas as pd

from analyses.limits import held_against
from analyses.making import Check
from analyses.tables import SUMMARY, percent, pick, span
from gradlens.analysis import Finding

CHECK = Check(
    code="GL999",
    analysis="final_loss",
    explanation=(
        "Whether the loss falls in training. Value: its mean over the last fifth of the recorded steps, as a share of "
        "that over the first fifth. What it is not: a verdict on how good the model is."
    ),
    unit="of the loss at the start",
    threshold="at most {most:g}",
    causes=("Few steps (innocent).", "A learning rate that is too small or too large."),
    remedies=("Train longer.",),
)


def judge(table: pd.DataFrame) -> list[Finding]:
    """Return a finding a run; never a verdict where the interval covers the threshold.

    Args:
        table: of ``compute``.
    """
    found = []
    for _, row in pick(table, panel=SUMMARY).iterrows():
        status = held_against(row["low"], row["high"], most=CHECK.limit("most"))
        says = {"pass": "the loss falls", "warn": "the loss does not fall"}.get(status, "the loss may or may not fall")
        end = f"it ends at {percent(row['value'])}{span(row, percent, ' (too few steps for an interval)')}"
        found.append(CHECK.finding(status, f"{row['label']}: {says}: {end} of where it began.", row["label"], row))
    return found or [CHECK.silent("No recording of training holds a loss.")]
