"""The critical step: the smallest step along the optimizer's own update that raises the loss (2601.16979)."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gradlens.errors import GradlensError
from gradlens.probes.loss import Loss
from gradlens.probes.optimizers import OptimizerKind, Plan, copied
from gradlens.probes.reading import Reading

#: The first step tried. In float32 a smaller one seems to raise the loss by rounding alone.
FIRST = 1e-4
#: Bisections after the step is known to a factor of two: to 4 %.
BISECTIONS = 4
_RANGE = 2.0**40


def critical_step(
    model: nn.Module,
    batch: Any,
    loss_fn: Callable[[Any, Any], Tensor] | None = None,
    *,
    optimizer: OptimizerKind | torch.optim.Optimizer = "adam",
    seed: int = 0,
    double: bool = True,
) -> Reading:
    """Find the learning rate of the smallest step along the next update that raises this batch's loss.

    Args:
        model: never changed.
        batch: gives the update and the loss.
        loss_fn: (output, batch) to a scalar; without it see ``gradlens.outputs.loss_of``.
        optimizer: one whose next update is meant, over parameters of the model; or ``"adam"``, ``"sgd"`` or
            ``"momentum"`` for the first update of a fresh one.
        seed: of dropout.
        double: evaluate the loss on a copy in float64. Without it the search begins at 1e-4.

    Returns:
        The learning rate (of the group with the largest one) in 1/step, infinite where no step raises the loss; its
        interval is the last bisection's.

    Raises:
        GradlensError: the update is not finite, or there is none.
        ModelError: see ``Loss``, or the model cannot be copied.
    """
    native = Loss(model, batch, loss_fn, seed=seed)
    update = native.split(_update(model, optimizer, native))
    loss = Loss(model, batch, loss_fn, seed=seed, double=True) if double else native
    start = loss.value()

    def raises(step: float) -> bool:
        moved = [p + step * u.to(p) for p, u in zip(loss.parameters, update, strict=True)]
        value = loss.value(moved)
        return not value <= start

    high = FIRST
    while not raises(high) and high < _RANGE:
        high *= 2
    low = high / 2 if high > FIRST else 0.0
    if high == FIRST and double:
        while raises(high / 2) and high > FIRST / _RANGE:
            high /= 2
        low = high / 2
    notes = list(loss.notes)
    if high >= _RANGE:
        low = high = math.inf
        notes.append("no step along the update raises the loss")
    elif low == 0.0:
        notes.append(f"a step of {FIRST:g} raises the loss already, which in float32 may be rounding")
    else:
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            low, high = (low, middle) if raises(middle) else (middle, high)
    name = optimizer if isinstance(optimizer, str) else type(optimizer).__name__
    return Reading(
        probe="critical_step",
        name=f"along the update of {name}",
        value=(low + high) / 2,
        low=low,
        high=high,
        unit="1/step",
        forward=loss.forward + (native.forward if double else 0),
        backward=native.backward,
        misleads=(
            "At initialization the update hardly meets the direction of the largest curvature, so this can be ten to a "
            "thousand times the limit; repeat it after a few steps."
        ),
        notes=tuple(notes),
    )


def _update(model: nn.Module, optimizer: OptimizerKind | torch.optim.Optimizer, loss: Loss) -> Tensor:
    """Return the next update [size] at a learning rate of 1, done on copies of the model and of the optimizer."""
    eager = getattr(model, "_orig_mod", model)
    if isinstance(optimizer, torch.optim.Optimizer):
        # Copied together, the optimizer's copy holds the parameters of the model's copy.
        moved, stepped = copied((eager, optimizer), eager)
        rates = [float(group["lr"]) for group in stepped.param_groups]
        for group, rate in zip(stepped.param_groups, rates, strict=True):
            group["lr"] = rate / max(rates) if max(rates) > 0 else 1.0
    else:
        moved = copied(eager, eager)
        stepped = Plan(kind=optimizer).over(moved, 1.0)
    parameters = dict(moved.named_parameters())
    trainable = [parameters[name] for name in loss.names]
    before = [parameter.detach().clone() for parameter in trainable]
    for parameter, gradient in zip(trainable, loss.split(loss.gradient()), strict=True):
        parameter.grad = gradient
    # A scheduler replaces the method of the instance by one that is bound to the original.
    type(stepped).step(stepped)
    update = loss.flat([p.detach() - b for p, b in zip(trainable, before, strict=True)])
    if not update.isfinite().all() or not update.any():
        raise GradlensError(
            "A critical step needs an update that is finite and not zero; that of the optimizer is not. Look at the "
            "gradients, and whether the optimizer holds the model's parameters."
        )
    return update
