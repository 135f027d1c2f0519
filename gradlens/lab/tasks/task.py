"""What a task is: data whose order depends on nothing but a seed, a loss, and a metric on held-out data."""

from typing import Any, Literal, Protocol, TypeAlias

import torch
from torch import Tensor, nn

#: What a model's ``forward`` takes: one tensor, a tuple of positional or a dict of keyword arguments.
Batch: TypeAlias = Tensor | tuple[Tensor, ...] | dict[str, Tensor]
Split: TypeAlias = Literal["train", "valid"]


class Task(Protocol):
    """One entry of ``TASKS``, called without arguments to load its data.

    A task whose answers are worth reading may also have ``samples(model, device)``, which returns a few of them as
    dicts of texts; a finished run keeps them, and its report prints them.

    Attributes:
        name: its name in ``TASKS``.
        uniform_loss: the loss of a model that gives every answer the same probability.
    """

    name: str
    uniform_loss: float

    def describe(self) -> dict[str, Any]:
        """Return what repeats it: version, sha256, sizes, origin, licence, unit of the loss."""
        ...

    def model(self, variant: str, **size: Any) -> nn.Module:
        """Build the zoo's model for this task, such as ``model("post-ln/adanorm", width=64)``."""
        ...

    def batch(self, index: int, *, seed: int, batch_size: int, length: int, split: Split = "train") -> Batch:
        """Return a batch, a pure function of its arguments: every variant sees the same order."""
        ...

    def loss(self, output: Any, batch: Batch) -> Tensor:
        """Return the differentiable scalar that training lowers."""
        ...

    def evaluate(
        self, model: nn.Module, *, batches: int, batch_size: int, length: int, device: torch.device | str
    ) -> dict[str, float]:
        """Return metrics on held-out data, the same data for every model; ``valid_loss`` is one of them."""
        ...
