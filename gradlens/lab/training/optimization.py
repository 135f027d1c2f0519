"""The optimizer and its learning rate, both pure functions of the settings."""

from collections.abc import Callable, Iterable

import torch
from torch import nn

from gradlens.errors import ModelError
from gradlens.lab.training.config import TrainingConfig

_OPTIMIZERS: dict[str, Callable[[Iterable[nn.Parameter], TrainingConfig], torch.optim.Optimizer]] = {
    "adam": lambda parameters, config: torch.optim.Adam(
        parameters, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay
    ),
    "adamw": lambda parameters, config: torch.optim.AdamW(
        parameters, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay
    ),
    "sgd": lambda parameters, config: torch.optim.SGD(
        parameters, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
    ),
}


def build_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """Return the optimizer over the model's parameters that take a gradient.

    Raises:
        ModelError: there are none.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ModelError(
            f"Training needs a model with parameters that require a gradient; "
            f"{type(model).__name__} has none. Set requires_grad on those that are to be trained."
        )
    return _OPTIMIZERS[config.optimizer](parameters, config)


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Return the learning rate of a step, counted from 0.

    With t = step + 1, w = ``warmup`` and d = ``decay_start`` (Xiong et al. 2020, section 3.1, has d = w):
    lr t / w while t <= w; lr up to t = d; then lr sqrt(d / t), or lr (steps + 1 - t) / (steps + 1 - d).
    """
    t = step + 1
    if t <= config.warmup:
        return config.lr * t / config.warmup
    start = config.decay_start
    if config.decay == "constant" or t <= start:
        return config.lr
    if config.decay == "inverse-sqrt":
        return config.lr * float((start / t) ** 0.5)
    return config.lr * (config.steps + 1 - t) / (config.steps + 1 - start)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group of the optimizer the learning rate ``lr``."""
    for group in optimizer.param_groups:
        group["lr"] = lr
