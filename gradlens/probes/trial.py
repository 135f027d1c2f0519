"""What learning rate training survives: a few steps on copies of the model, at one rate after another."""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from gradlens.errors import GradlensError
from gradlens.probes.learning_rate import batch_list
from gradlens.probes.loss import Loss
from gradlens.probes.optimizers import OptimizerKind, Plan, trained_copy
from gradlens.probes.reading import Reading
from gradlens.probes.sharpness import cost

#: Learning rates tried in one direction, each twice or half the one before.
TRIALS = 16


def trial(
    model: nn.Module,
    batches: Any,
    loss_fn: Callable[[Any, Any], Tensor] | None = None,
    *,
    start: float,
    optimizer: OptimizerKind = "adam",
    betas: tuple[float, float] = (0.9, 0.98),
    momentum: float = 0.9,
    eps: float = 1e-8,
    steps: int = 20,
    seed: int = 0,
) -> Reading:
    """Find, up to a factor of two, the largest learning rate that a few steps of training survive.

    A rate is survived where every loss is finite and the mean loss of the last pass over the batches is below that at
    the start. Doubled from ``start`` until one is not survived, or halved until one is.

    Args:
        model: never changed; copies of it are trained.
        batches: as in ``learning_rate_limit``, used in turn.
        loss_fn: (output, batch) to a scalar; without it see ``gradlens.outputs.loss_of``.
        start: the first learning rate, such as the limit.
        optimizer: ``"adam"``, ``"sgd"`` or ``"momentum"``.
        betas: of Adam.
        momentum: of SGD with momentum.
        eps: of Adam.
        steps: of each trial.
        seed: of dropout.

    Returns:
        The largest learning rate survived, in 1/step; its interval ends at the least that was not, or at infinity.

    Raises:
        GradlensError: no rate is survived, or ``start`` is not positive and finite.
        ModelError: the model cannot be copied or run.
    """
    if not 0 < start < math.inf:
        raise GradlensError(f"A trial must start at a positive, finite learning rate; got {start}.")
    plan = Plan(kind=optimizer, betas=betas, momentum=momentum, eps=eps)
    several = batch_list(batches)
    losses = [Loss(model, batch, loss_fn, seed=seed) for batch in several]
    before = sum(loss.value() for loss in losses) / len(losses)
    passes = 0

    def survives(lr: float) -> bool:
        nonlocal passes
        _, seen = trained_copy(model, several, loss_fn, plan, lr, steps, seed)
        passes += len(seen)
        last = seen[-len(several) :]
        return math.isfinite(seen[-1]) and sum(last) / len(last) < before

    lr = start
    up = survives(lr)
    for _ in range(TRIALS):
        following = 2 * lr if up else lr / 2
        if survives(following) != up:
            low, high = (lr, following) if up else (following, lr)
            break
        lr = following
    else:
        if not up:
            raise GradlensError(
                f"Training must lower the loss at some learning rate; {steps} steps of {optimizer} did not between "
                f"{lr:.2g} and {start:.2g}. Look at the loss and at the batches."
            )
        low, high = lr, math.inf
    forward, backward = cost(losses)
    return Reading(
        probe="trial",
        name=f"survived by {steps} steps of {optimizer}",
        value=low,
        low=low,
        high=high,
        unit="1/step",
        forward=forward + passes,
        backward=backward + passes,
        misleads="It shows what makes training diverge, not what trains best; a longer run can diverge at less.",
        notes=losses[0].notes,
    )
