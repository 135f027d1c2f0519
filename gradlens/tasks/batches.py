"""Batches of any shape that a model's ``forward`` takes: to a device, through the model, held-out loss."""

from typing import Any

import torch
from torch import nn

from gradlens.tasks.task import Batch, Task


def to_device(batch: Batch, device: torch.device | str) -> Batch:
    """Return the batch with every tensor on ``device``."""
    if isinstance(batch, tuple):
        return tuple(tensor.to(device) for tensor in batch)
    if isinstance(batch, dict):
        return {name: tensor.to(device) for name, tensor in batch.items()}
    return batch.to(device)


def run_model(model: nn.Module, batch: Batch) -> Any:
    """Call the model with the batch: a tuple as positional, a dict as keyword arguments."""
    if isinstance(batch, tuple):
        return model(*batch)
    if isinstance(batch, dict):
        return model(**batch)
    return model(batch)


@torch.no_grad()
def held_out_loss(
    task: Task, model: nn.Module, *, batches: int, batch_size: int, length: int, device: torch.device | str
) -> float:
    """Return the task's mean loss over its first validation batches, in the loss's own unit.

    The batches are drawn with seed 0 whatever the run's seed, so that all models answer the same questions.
    Dropout is off meanwhile; each module's training flag is put back as it was.
    """
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        total = torch.zeros((), dtype=torch.float64)
        for index in range(batches):
            batch = task.batch(index, seed=0, batch_size=batch_size, length=length, split="valid")
            batch = to_device(batch, device)
            total += task.loss(run_model(model, batch), batch).cpu()
    finally:
        for module in training:
            module.training = True
    return float(total) / batches
