"""A batch is what a model's ``forward`` takes: a tensor, a tuple of positional or a mapping of keyword arguments."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def to_device(batch: Any, device: torch.device | str) -> Any:
    """Return the batch with every tensor in it on ``device``."""
    return torch.utils._pytree.tree_map(lambda x: x.to(device) if isinstance(x, Tensor) else x, batch)


def run_model(model: nn.Module, batch: Any) -> Any:
    """Call the model with the batch: a tuple as positional, a mapping as keyword arguments."""
    if isinstance(batch, Mapping):
        return model(**batch)
    return model(*batch) if isinstance(batch, tuple) else model(batch)
