"""The optimizers that the learning-rate probes know, and steps of them on a copy of the model."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gradlens.batches import blaming, run_model
from gradlens.errors import ModelError, UnknownNameError
from gradlens.outputs import loss_of
from gradlens.probes.generators import seeded
from gradlens.theory.cohen2022 import stability_edge

OptimizerKind = Literal["adam", "sgd", "momentum"]
OPTIMIZERS: tuple[OptimizerKind, ...] = ("adam", "sgd", "momentum")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """An optimizer without its learning rate.

    Attributes:
        kind: ``"adam"``, ``"sgd"`` or ``"momentum"``.
        betas: of Adam.
        momentum: of SGD with momentum.
        eps: of Adam.

    Raises:
        UnknownNameError: there is no such kind.
    """

    kind: OptimizerKind = "adam"
    betas: tuple[float, float] = (0.9, 0.98)
    momentum: float = 0.9
    eps: float = 1e-8

    def __post_init__(self) -> None:
        if self.kind not in OPTIMIZERS:
            raise UnknownNameError("optimizer with a known edge of stability", self.kind, OPTIMIZERS)

    @property
    def edge(self) -> float:
        """The largest stable product of learning rate and curvature (Cohen et al. 2022)."""
        if self.kind == "adam":
            return stability_edge(self.betas[0])
        return stability_edge(self.momentum if self.kind == "momentum" else 0.0, "heavy-ball")

    def over(self, model: nn.Module, lr: float) -> torch.optim.Optimizer:
        """Return the optimizer over the model's parameters that take a gradient."""
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if self.kind == "adam":
            return torch.optim.Adam(parameters, lr=lr, betas=self.betas, eps=self.eps)
        return torch.optim.SGD(parameters, lr=lr, momentum=self.momentum if self.kind == "momentum" else 0.0)


def copied(value: Any, model: nn.Module) -> Any:
    """Return a deep copy of a model, or of something that holds it.

    Raises:
        ModelError: it cannot be copied.
    """
    try:
        return copy.deepcopy(value)
    except Exception as error:  # whatever somebody's model raises means that it cannot be copied
        raise ModelError(
            f"This probe trains a copy of the model; {type(model).__name__} cannot be copied "
            f"({type(error).__name__}: {error}). Probe it before it is run, or without tensors of a graph in it."
        ) from error


def trained_copy(
    model: nn.Module,
    batches: Sequence[Any],
    loss_fn: Callable[[Any, Any], Tensor] | None,
    plan: Plan,
    lr: float,
    steps: int,
    seed: int = 0,
) -> tuple[nn.Module, list[float]]:
    """Train a copy of the model for a few steps, with the batches in turn.

    Returns:
        The copy, and the loss of each step; the last loss is the first one that is not finite.
    """
    trained = copied(getattr(model, "_orig_mod", model), model)
    optimizer = plan.over(trained, lr)
    losses: list[float] = []
    with seeded(seed, trained.parameters()), torch.enable_grad():
        for step in range(steps):
            batch = batches[step % len(batches)]
            optimizer.zero_grad()
            with blaming(trained, batch):
                loss, _ = loss_of(run_model(trained, batch), batch, loss_fn)
                loss.backward()  # type: ignore[no-untyped-call]
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                break
            optimizer.step()
    return trained, losses
