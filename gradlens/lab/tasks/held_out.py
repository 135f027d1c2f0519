"""What every task's evaluation shares: a model as it is used, and the loss on held-out data."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from gradlens.batches import run_model, to_device
from gradlens.lab.tasks.task import Task


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Run a model without dropout and without a graph; each module's training flag is put back as it was."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def held_out_loss(
    task: Task, model: nn.Module, *, batches: int, batch_size: int, length: int, device: torch.device | str
) -> float:
    """Return the task's mean loss over its first validation batches, in the loss's own unit.

    The batches are drawn with seed 0 whatever the run's seed, so that all models answer the same questions.
    """
    with evaluating(model):
        total = torch.zeros((), dtype=torch.float64)
        for index in range(batches):
            batch = task.batch(index, seed=0, batch_size=batch_size, length=length, split="valid")
            batch = to_device(batch, device)
            total += task.loss(run_model(model, batch), batch).cpu()
    return float(total) / batches
