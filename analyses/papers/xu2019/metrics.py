"""What each task is scored by, and the score of every run at the end of training."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analyses.papers.xu2019.runs import NORMS, runs
from gradlens.recording import Recording


@dataclass(frozen=True)
class Metric:
    """A column of the recorded steps, as it is printed.

    Attributes:
        column: its name there.
        name: its printed name.
        short: the same in the head of a column, behind the task.
        unit: of what is printed.
        factor: printed value over recorded value.
        higher: whether higher is better.
        digits: printed behind the point.
    """

    column: str
    name: str
    short: str
    unit: str
    factor: float
    higher: bool
    digits: int

    @property
    def sign(self) -> int:
        """1 where higher is better, else -1."""
        return 1 if self.higher else -1


_HELD_OUT = Metric("valid_loss", "held-out loss", "", "nats per piece", 1.0, False, 3)
_UNKNOWN = Metric("valid_loss", "held-out loss", "", "nats", 1.0, False, 3)
_BLEU = Metric("bleu", "BLEU", "BLEU", "", 1.0, True, 1)
#: Task to its metrics, in the order of the report; the first is the score that the claims are judged by.
METRICS: Mapping[str, tuple[Metric, ...]] = {
    "translation": (_HELD_OUT, _BLEU),
    "translation-de-en": (_HELD_OUT, _BLEU),
    "translation-en-vi": (_HELD_OUT, _BLEU),
    "lm": (Metric("bits_per_byte", "bits per byte", "BPB", "bits per byte", 1.0, False, 3),),
    "sentences": (Metric("accuracy", "accuracy", "%", "%", 100.0, True, 1),),
    "images": (Metric("accuracy", "accuracy", "%", "%", 100.0, True, 2),),
    "parsing": (Metric("las", "LAS", "LAS", "%", 1.0, True, 1),),
}
#: The last tenth of the recorded steps makes the training loss at the end.
_END_OF_TRAINING = 0.1
_ENDED = ("complete", "diverged")


def metrics(task: str) -> tuple[Metric, ...]:
    """Return the metrics of a task; a task that the paper's grid does not know is scored by its held-out loss."""
    return METRICS.get(task, (_UNKNOWN,))


def ordered(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return the names, each once: the known ones first and in their order."""
    there = list(dict.fromkeys(names))
    first = [name for name in known if name in there]
    return first + [name for name in there if name not in first]


def scored(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Return ``runs`` of the recordings with every run's scores at the end; of two of one cell the later counts.

    Args:
        recordings: of training on a task; other ones, and those of norms that the paper does not have, are left out.

    Returns:
        The columns of ``runs``; ``ended``, whether the run came to an end, a divergence among them; ``diverged``;
        ``score``, the task's first metric; every metric by its column's name, all as printed; ``valid_loss``;
        ``loss``, of training, mean over the last tenth of the recorded steps; ``share``, bits per byte over the
        entropy of single bytes; ``unit`` of the loss. A run that diverged has no score, whatever it had before.
    """
    usable = [recording for recording in recordings if _of_the_grid(recording.meta)]
    table = runs(usable)
    extra = pd.DataFrame([_at_the_end(recording) for recording in usable], index=table.index)
    for column in ("score", "bleu", "bits_per_byte", "accuracy", "las", "valid_loss", "loss", "share", "unit"):
        table[column] = extra.get(column, np.nan)
    table["ended"] = table["status"].isin(_ENDED)
    table["diverged"] = table["status"] == "diverged"
    table["diverged_at"] = pd.to_numeric(table["diverged_at"])
    return table.drop_duplicates(["task", "norm", "seed"], keep="last", ignore_index=True)


def _of_the_grid(meta: Mapping[str, Any]) -> bool:
    """Whether a recording says what ``runs`` reads."""
    parts = {key: meta.get(key) or {} for key in ("task", "model", "training")}
    needed = parts["task"].get("name"), parts["training"].get("steps"), meta.get("seeds")
    return all(needed) and parts["model"].get("norm") in NORMS


def _at_the_end(recording: Recording) -> dict[str, Any]:
    steps, task = recording.steps.sort_values("step"), recording.meta["task"]
    found: dict[str, Any] = {"unit": str(task.get("unit") or "nats")}
    if recording.meta.get("status") == "diverged":
        return found
    loss = steps["loss"].dropna()
    found["loss"] = float(loss.tail(max(1, int(np.ceil(_END_OF_TRAINING * len(loss))))).mean())
    found["valid_loss"] = _last(steps, "valid_loss")
    of_task = metrics(str(task["name"]))
    for metric in of_task:
        found[metric.column] = _last(steps, metric.column) * metric.factor
    found["score"] = found[of_task[0].column]
    if task.get("unigram_bits"):
        found["share"] = found.get("bits_per_byte", np.nan) / float(task["unigram_bits"])
    return found


def _last(steps: pd.DataFrame, column: str) -> float:
    """Return the last value that was recorded in a column; NaN where there is none."""
    values = steps[column].dropna() if column in steps else ()
    return float(list(values)[-1]) if len(values) else np.nan
