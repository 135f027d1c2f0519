"""How good trained models are on held-out data: the last value of each metric, and a few answers to be read."""

import pandas as pd

from analyses.held_out.numbers import compute, show
from gradlens.analysis import Analysis, Finding


def judge(_table: pd.DataFrame) -> list[Finding]:
    """Judge nothing: what is good enough, the reader knows."""
    return []


ANALYSIS = Analysis(
    name="held_out",
    title="How good the trained models are",
    question="What do the trained models achieve on held-out data, and what do they answer?",
    reading=(
        "The metrics are those of the task, over the same held-out data for every model. Answers are shown where a "
        "task has any to read: their questions were drawn with a fixed seed, not chosen by their answers; beside each "
        "stands the answer that the data has."
    ),
    needs={"steps": ("step",)},
    compute=compute,
    show=show,
    judge=judge,
    kinds=("training",),
    optional=True,
)
