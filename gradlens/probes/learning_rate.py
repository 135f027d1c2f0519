"""The largest stable learning rate at a point, from the curvature that the optimizer sees there.

Measured on Pre-LN and Post-LN decoders (width 64, 4 blocks, task lm, 8 x 64 bytes, 150 steps; SGD, momentum 0.9, Adam):
at half of the limit none of the six diverges (ends above its first loss), at 8 times the limit three do: both with
momentum and one with SGD. With Adam, divergence begins between 8 and 32 times the limit, but at 8 times no more is
learned than how often each byte occurs. ``trial`` foretells divergence: six of six train at half of what it survived
and diverge at 8 times that. Neither foretells that Post-LN stalls with Adam, here at 0.4 of its limit.
"""

from collections.abc import Callable
from math import inf
from typing import Any

import torch
from torch import Tensor, nn

from gradlens.errors import GradlensError
from gradlens.probes.loss import Loss
from gradlens.probes.optimizers import OptimizerKind, Plan
from gradlens.probes.reading import Reading
from gradlens.probes.sharpness import cost, disagreement, top_eigenpair

#: Batches that a function of the index is asked for. For Adam, two give half of the limit that 32 give, four 0.9 of it
#: (Transformers of 4 blocks, 8 x 64 tokens a batch).
BATCHES = 4
#: Of the curvature; a learning rate within a few per cent is enough.
TOLERANCE = 0.02


def learning_rate_limit(
    model: nn.Module,
    batches: Any,
    loss_fn: Callable[[Any, Any], Tensor] | None = None,
    *,
    optimizer: OptimizerKind = "adam",
    betas: tuple[float, float] = (0.9, 0.98),
    momentum: float = 0.9,
    eps: float = 1e-8,
    seed: int = 0,
) -> Reading:
    """Measure where the edge of stability lies for the model as it is now: edge / λ.

    λ is the largest eigenvalue of the batches' mean Hessian H for SGD, and of P⁻¹H for Adam, where P is diagonal,
    √(mean of the batches' squared gradients) + ε: what v̂ tends to at fixed weights. The edge is 2 without momentum,
    2 + 2β for that of ``torch.optim.SGD``, (2 + 2β₁)/(1 − β₁) for Adam's (``stability_edge``; Cohen et al. 2022,
    2207.14484). At a larger learning rate the loss rises at first, along λ's direction. Whether training survives
    that is another question, which ``trial`` answers.

    Args:
        model: never changed.
        batches: a batch, a list of batches, or a function of an index that returns one (four are taken).
        loss_fn: (output, batch) to a scalar; without it see ``gradlens.outputs.loss_of``.
        optimizer: ``"adam"``, ``"sgd"`` or ``"momentum"``.
        betas: of Adam; at fixed weights β₂ does not matter.
        momentum: of SGD with momentum.
        eps: of Adam.
        seed: of dropout and of the vector Lanczos iteration starts from.

    Returns:
        The limit in 1/step, infinite where no direction curves upwards; its interval is that of λ. It
        is in doubt where two gradients show another curvature than λ.

    Raises:
        UnknownNameError: there is no such optimizer.
        ModelError: see ``Loss``.
        GradlensError: no batch, or no convergence.
    """
    plan = Plan(kind=optimizer, betas=betas, momentum=momentum, eps=eps)
    losses = [Loss(model, batch, loss_fn, seed=seed) for batch in batch_list(batches)]
    notes, scale = list(losses[0].notes), None
    if optimizer == "adam":
        squares = torch.stack([loss.gradient().double().square() for loss in losses]).mean(0)
        scale = ((squares.sqrt() + eps) ** -0.5).cpu().numpy()
        if len(losses) == 1:
            notes.append("v̂ is the squared gradient of one batch: the limit is far too low; pass several batches")
    pair = top_eigenpair(losses, scale, TOLERANCE, seed)
    doubt = disagreement(losses, scale, pair)
    if pair.value <= 0:
        notes.append("no direction curves upwards: there is no limit at this point")
    forward, backward = cost(losses)
    return Reading(
        probe="learning_rate",
        name=f"limit of {optimizer}",
        value=_limit(plan.edge, pair.value),
        low=_limit(plan.edge, pair.value + pair.residual),
        high=_limit(plan.edge, pair.value - pair.residual),
        unit="1/step",
        forward=forward,
        backward=backward,
        misleads=(
            "Networks with norms often survive several times this limit, for where the loss rises the curvature falls; "
            "and training can stall below it."
        ),
        doubt=doubt,
        notes=tuple(notes),
    )


def batch_list(batches: Any) -> list[Any]:
    """Return batches as a list: of one, of those given, or of the first four that a function of an index returns.

    Raises:
        GradlensError: the list is empty.
    """
    if callable(batches):
        return [batches(index) for index in range(BATCHES)]
    if not isinstance(batches, list):
        return [batches]
    if not batches:
        raise GradlensError("A probe needs at least one batch; got an empty list. Pass a batch.")
    return batches


def _limit(edge: float, curvature: float) -> float:
    return edge / curvature if curvature > 0 else inf
