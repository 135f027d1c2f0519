"""What the first layer of an MLP does not depend on: Table 1 of Ba et al. 2016 (1607.06450), by doing it.

Re-scaling multiplies by a number (W' = δW, Eq. 6; x' = δx, Eq. 7), re-centering adds one vector: to the weights of
every unit (W' = W + 1γᵀ), to every case. What is weight-normed has its direction changed, not its length.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gradlens.probes.reading import Reading

#: The table's columns.
TRANSFORMS = (
    "weight matrix re-scaling", "weight matrix re-centering", "weight vector re-scaling", "data set re-scaling",
    "data set re-centering", "single case re-scaling",
)  # fmt: skip
_FACTOR = 3.0


def readings(model: nn.Module, batch: Any, loss_fn: Callable[[Any, Any], Tensor] | None, seed: int) -> list[Reading]:
    """Return by how much each change moves the layer's output, largest entry over largest entry, in float64.

    Of weight norm also the shares of the energy of dL/dW that it takes out, in the norms' own words: as an uncentered
    norm of each row of weights it removes nothing of the mean, along the row what ``rescaling`` says, and hands on the
    rest.

    Args:
        model: an ``MLP``, in train mode.
        batch: images, and labels for the loss.
        loss_fn: for weight norm's shares.
        seed: of the changes.
    """
    net: Any = copy.deepcopy(model).double()
    images = batch["images"].flatten(1).double()
    generator = torch.Generator().manual_seed(seed)
    before = net.first(images).detach()
    found = []
    for name in TRANSFORMS:
        changed, own = copy.deepcopy(net), images.clone()
        with torch.no_grad():
            own = _changed(name, _weight(changed), own, generator)
            after = changed.first(own)
        cases = slice(0, 1) if name.startswith("single") else slice(None)
        moved = float((after - before)[cases].abs().max() / before.abs().max())
        found.append(Reading(probe="invariances", name=name, value=moved, unit="of the largest output"))
    if net.other == "weight" and loss_fn is not None:
        found += _shares(net, batch, loss_fn)
    return found


def _weight(net: Any) -> Tensor:
    linear = net.linear0
    weight: Tensor = linear.parametrizations.weight.original1 if net.other == "weight" else linear.weight
    return weight


def _changed(name: str, weight: Tensor, images: Tensor, generator: torch.Generator) -> Tensor:
    """Change the weights in place, or return other images."""
    like: dict[str, Any] = {"generator": generator, "dtype": torch.float64}
    if name == "weight matrix re-scaling":
        weight.mul_(_FACTOR)
    elif name == "weight matrix re-centering":
        weight.add_(weight.std() * torch.randn(weight.shape[1], **like))
    elif name == "weight vector re-scaling":
        weight.mul_(1 + _FACTOR * torch.rand(len(weight), 1, **like))
    elif name == "data set re-scaling":
        return images * _FACTOR
    elif name == "data set re-centering":
        return images + torch.rand(images.shape[1], **like)
    else:
        images[0] *= _FACTOR
    return images


def _shares(net: Any, batch: Any, loss_fn: Callable[[Any, Any], Tensor]) -> list[Reading]:
    """Return what of dL/dW weight norm keeps, from the gradients of length and direction alone.

    With W = g v/‖v‖ row by row, dL/dg = ⟨dL/dW, v/‖v‖⟩ and dL/dv = g/‖v‖ · (dL/dW − its part along v).
    """
    own = net.linear0.parametrizations.weight
    length, direction = own.original0, own.original1
    of_length, of_direction = torch.autograd.grad(loss_fn(net(batch["images"]), batch), [length, direction])
    along = of_length.square().sum()
    across = (of_direction.norm(dim=1) * direction.norm(dim=1) / length.abs().flatten()).square().sum()
    share = (along / (along + across)).item()
    numbers = {"recentering": 0.0, "rescaling": share, "kept": 1 - share}
    return [Reading(probe="invariances", name=f"weight gradient: {n}", value=v) for n, v in numbers.items()]
