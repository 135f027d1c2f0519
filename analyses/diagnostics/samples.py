"""What a trained model says: a few of its answers to held-out questions, to be read rather than counted."""

from collections.abc import Sequence

import pandas as pd

from analyses.tables import identity
from gradlens.analysis import Analysis
from gradlens.analysis.finding import Finding
from gradlens.recording import Recording

_WHO = ["label", "variant", "schedule"]


def compute(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Return one row a sample: ``label``, ``variant``, ``schedule``, and the texts of the task by their names."""
    rows = [
        identity(recording) | {str(name): str(text) for name, text in sample.items()}
        for recording in recordings
        for sample in recording.meta.get("samples") or ()
    ]
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=_WHO)


def show(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return a table of texts a recording.

    Args:
        table: of ``compute``.
    """
    return {
        f"{label}: its answers to held-out questions.": rows.drop(columns=_WHO)
        for label, rows in table.groupby("label", sort=False)
    }


def judge(_table: pd.DataFrame) -> list[Finding]:
    """Judge nothing: a reader does."""
    return []


ANALYSIS = Analysis(
    name="samples",
    title="What the trained models say",
    question="What do the trained models answer, in words?",
    reading=(
        "The held-out questions were drawn with a fixed seed, the same for every model, and not chosen by their "
        "answers. Beside each stands the answer that the data has."
    ),
    needs={},
    compute=compute,
    show=show,
    judge=judge,
    kinds=("training",),
    optional=True,
)
