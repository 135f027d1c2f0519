"""What a comparison looks at: a model that can be built, with what it is measured and trained on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor, nn

    from gradlens.lab.tasks.task import Task


class AtInit(NamedTuple):
    """What ``gradlens.at_init`` takes.

    Attributes:
        build: makes a freshly initialized module; torch is seeded just before.
        batches: seed to batch; called before ``build``.
        loss_fn: (output, batch) to loss; None where the model brings none.
    """

    build: "Callable[[], nn.Module]"
    batches: Callable[[int], Any]
    loss_fn: "Callable[[Any, Any], Tensor] | None" = None


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One model of a comparison, prepared for a task.

    Attributes:
        label: the name in tables and legends.
        variant: what runs of the same model share; its label where it is no variant of the zoo.
        task: what it is trained on.
        build: makes a freshly initialized module; torch is seeded just before.
        at_init: what it is measured on at initialization.
        trainable: whether it can be trained on the task.
        note: one sentence on why it cannot; empty where it can.
        facts: what tells it from other operands, as plain values for the manifest.
    """

    label: str
    variant: str
    task: "Task"
    build: "Callable[[], nn.Module]"
    at_init: AtInit
    trainable: bool
    note: str
    facts: Mapping[str, Any]
