"""What a comparison looks at: a model that can be built, with what it is measured and trained on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from gradlens.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One model of a comparison, prepared for a task.

    Attributes:
        label: the name in tables and legends.
        variant: what runs of the same model share; its label where it is no variant of the zoo.
        task: what it is trained on.
        build: makes a freshly initialized module; torch is seeded just before.
        batches: seed to the batch it is measured on at initialization.
        loss_fn: (output, batch) to the loss measured there; None where the model brings none.
        trainable: whether it can be trained on the task.
        note: one sentence on why it cannot; empty where it can.
        facts: what tells it from other operands, as plain values for the manifest.
    """

    label: str
    variant: str
    task: "Task"
    build: "Callable[[], nn.Module]"
    batches: Callable[[int], Any]
    loss_fn: "Callable[[Any, Any], Tensor] | None"
    trainable: bool
    note: str
    facts: Mapping[str, Any]
