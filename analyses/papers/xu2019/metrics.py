"""What each task is scored by."""

from collections.abc import Mapping
from dataclasses import dataclass


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


def metrics(task: str) -> tuple[Metric, ...]:
    """Return the metrics of a task; a task that the paper's grid does not know is scored by its held-out loss."""
    return METRICS.get(task, (_UNKNOWN,))
