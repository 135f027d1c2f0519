"""All numbers of ``final_loss``: what is drawn and what is judged is in this table, and nowhere else."""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from analyses.intervals import block_bootstrap_interval
from analyses.tables import SUMMARY, identity, tidy
from gradlens.recording import Recording


def compute(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Return the loss of each step, and in the summary its end as a share of its start.

    Args:
        recordings: of training; none of them is changed.
    """
    return tidy(identity(recording) | row for recording in recordings for row in _rows(recording))


def _rows(recording: Recording) -> Iterator[dict[str, Any]]:
    loss = recording.steps.set_index("step")["loss"].dropna()
    if loss.empty:
        return
    fifth = max(1, len(loss) // 5)
    share = block_bootstrap_interval(loss.tail(fifth) / loss.head(fifth).mean())
    yield {"panel": SUMMARY, "quantity": "end over start", **share.row()}
    yield from ({"panel": "loss", "x": step, "value": value} for step, value in loss.items())
