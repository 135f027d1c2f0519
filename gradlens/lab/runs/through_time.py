"""How the gradient of the last step's loss goes back through the states of a recurrent network, by weights' size."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from gradlens.probes.reading import Reading

#: What all weights between states, and from inputs, are multiplied by.
SCALES = (0.5, 1.0, 2.0)


def readings(model: nn.Module, batch: Any, loss_fn: Callable[[Any, Any], Tensor] | None, seed: int) -> list[Reading]:
    """Return ‖dL/d(state)‖ some steps before the last over that at the last, by the weights' size, in float64.

    Args:
        model: a ``Recurrent``.
        batch: tokens [B, T]; L is the mean cross-entropy of the last one.
        loss_fn: not used.
        seed: not used.
    """
    found = []
    for scale in SCALES:
        net: Any = copy.deepcopy(model).double()
        with torch.no_grad():
            for linear in net.recurrent:
                linear.weight.mul_(scale)
        states = net.states(batch[:, :-1])
        logits = net.head(states[-1][:, : net.width])
        grads = torch.autograd.grad(functional.cross_entropy(logits, batch[:, -1]), states)
        norms = [float(grad.norm()) for grad in reversed(grads)]
        found += [
            Reading(probe="through_time", name=f"{scale:g} x, {back} back", value=norm / norms[0])
            for back, norm in enumerate(norms)
        ]
    return found
