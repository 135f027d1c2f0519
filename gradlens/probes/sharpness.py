"""Sharpness: the largest eigenvalue of the loss' Hessian, plain and as an adaptive optimizer sees it."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gradlens.errors import GradlensError
from gradlens.probes.eigenvalue import Array, Eigenpair, largest_eigenvalue
from gradlens.probes.loss import Loss
from gradlens.probes.reading import Reading

#: A curvature from two gradients may differ by this factor from that of the Hessian: in networks with ReLU it does by
#: up to 1.7, for it sees the kinks.
AGREE = 3.0
_LOCAL = "It is the curvature at these weights on this batch; within a few steps of training it can change tenfold."


def sharpness(loss: Loss | Sequence[Loss], *, tolerance: float = 1e-3, seed: int = 0) -> Reading:
    """Measure the largest algebraic eigenvalue of the Hessian; of the mean Hessian for several losses of one model.

    Returns:
        The Rayleigh quotient, in loss/weight²; its interval is the residual's, in which an eigenvalue lies.

    Raises:
        GradlensError: it does not converge, or the model cannot be differentiated twice.
    """
    return _reading("sharpness", "loss/weight²", _losses(loss), None, tolerance, seed)


def readings(model: nn.Module, batch: Any, loss_fn: Callable[[Any, Any], Tensor] | None, seed: int) -> list[Reading]:
    """Return the plain sharpness on one batch; the probe of ``PROBES``."""
    return [sharpness(Loss(model, batch, loss_fn, seed=seed), seed=seed)]


def preconditioned_sharpness(
    loss: Loss | Sequence[Loss], preconditioner: Tensor, *, tolerance: float = 1e-3, seed: int = 0
) -> Reading:
    """Measure the largest eigenvalue of P^-1/2 H P^-1/2, which is that of P⁻¹H (Cohen et al. 2022, 2207.14484).

    Args:
        loss: or several, whose mean Hessian is taken.
        preconditioner: the diagonal of P [size], positive; for Adam √v̂ + ε.
        tolerance: of the eigenvalue, relative.
        seed: of the vector to start from.

    Raises:
        GradlensError: P is not positive, and as ``sharpness``.
    """
    losses = _losses(loss)
    diagonal = preconditioner.detach().double().cpu().numpy()
    if diagonal.shape != (losses[0].size,) or not (np.isfinite(diagonal) & (diagonal > 0)).all():
        raise GradlensError(
            f"A preconditioner must be {losses[0].size} positive numbers; got {list(diagonal.shape)}, the least "
            f"{diagonal.min(initial=np.inf):g}. Add the optimizer's eps."
        )
    return _reading("preconditioned_sharpness", "1/weight", losses, diagonal**-0.5, tolerance, seed)


def top_eigenpair(losses: Sequence[Loss], scale: Array | None, tolerance: float, seed: int) -> Eigenpair:
    """Return the largest eigenvalue of S H S, where H is the losses' mean Hessian and S = diag(scale) or 1."""
    device, size = losses[0].parameters[0].device, losses[0].size

    def product(vector: Array) -> Array:
        given = torch.from_numpy(vector if scale is None else scale * vector).to(device)
        total = sum(loss.hessian_vector(given).double() for loss in losses)
        image: Array = (torch.as_tensor(total) / len(losses)).cpu().numpy()
        return image if scale is None else scale * image

    return largest_eigenvalue(product, size, tolerance=tolerance, seed=seed)


def disagreement(losses: Sequence[Loss], scale: Array | None, pair: Eigenpair) -> str:
    """Return a doubt where two gradients say something else of the curvature than the Hessian does; else nothing."""
    direction = torch.from_numpy(pair.vector if scale is None else scale * pair.vector)
    direct = sum(loss.curvature_by_difference(direction) for loss in losses) / len(losses)
    if direct == pair.value or pair.value / AGREE < direct < pair.value * AGREE:
        return ""
    return (
        f"gradients a small step apart show a curvature of {direct:.3g} where the second derivative is "
        f"{pair.value:.3g}: the model detaches something, an operation's own backward has no second derivative, or the "
        "curvature lies in kinks such as ReLU's"
    )


def _losses(loss: Loss | Sequence[Loss]) -> Sequence[Loss]:
    return [loss] if isinstance(loss, Loss) else loss


def _reading(
    probe: str, unit: str, losses: Sequence[Loss], scale: Array | None, tolerance: float, seed: int
) -> Reading:
    before = cost(losses)
    pair = top_eigenpair(losses, scale, tolerance, seed)
    doubt = disagreement(losses, scale, pair)
    forward, backward = cost(losses)
    return Reading(
        probe=probe,
        name="largest eigenvalue",
        value=pair.value,
        low=pair.value - pair.residual,
        high=pair.value + pair.residual,
        unit=unit,
        forward=forward - before[0],
        backward=backward - before[1],
        misleads=_LOCAL,
        doubt=doubt,
        notes=losses[0].notes,
    )


def cost(losses: Sequence[Loss]) -> tuple[int, int]:
    """Return the forward and backward passes that several losses took so far."""
    return sum(loss.forward for loss in losses), sum(loss.backward for loss in losses)
