"""Batches, and the two halves of a training step: ways to fill the gradients, ways to use them."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import gradlens
import gradlens.lens
from tests.lens.networks import WIDTH, direction, loss_in

Optimizer = torch.optim.Optimizer


def vectors(step: int) -> Tensor:
    """A batch [4, 5, WIDTH], another one each step."""
    return torch.randn(4, 5, WIDTH, generator=torch.Generator().manual_seed(100 + step))


def pictures(step: int) -> Tensor:
    """A batch [4, 2, 5, 5], another one each step."""
    return torch.randn(4, 2, 5, 5, generator=torch.Generator().manual_seed(100 + step))


def loss_of(y: Tensor) -> Tensor:
    """The mean product with a fixed direction."""
    y = y.double() if y.dtype == torch.float64 else y.float()
    return (y * direction(y)).mean()


def backward(model: nn.Module, x: Tensor) -> Tensor:
    """Fill the gradients, the plain way."""
    loss = loss_of(model(x))
    loss.backward()
    return loss


def update(model: nn.Module, optimizer: Optimizer) -> None:
    """Use the gradients, the plain way."""
    optimizer.step()


def sgd(parameters: Any) -> Optimizer:
    """An optimizer with a state, so that two steps with the same gradient are not the same."""
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)


def record(model: nn.Module, steps: int = 1, *, backward=backward, batch=vectors, **options: Any) -> gradlens.lens.Lens:
    """Attach, take plain steps without an optimizer, detach; the lens still tells its recording and its audit."""
    with gradlens.attach(model, **options) as lens:
        for step in range(steps):
            model.zero_grad()
            backward(model, batch(step))
            lens.step()
    return lens


# ---------------------------------------------------------------------- ways to fill the gradients


def needing_gradient(model: nn.Module, x: Tensor) -> Tensor:
    return backward(model, x.clone().requires_grad_())


def own_loss(model: nn.Module, x: Tensor) -> Tensor:
    loss = loss_in(model(x))
    loss.backward()
    return loss


def autocast(dtype: torch.dtype):
    def run(model: nn.Module, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype):
            y = model(x)
        loss = 100 * loss_of(y)  # float16 gradients would fall below its smallest number
        loss.backward()
        return loss

    return run


def in_dtype(dtype: torch.dtype):
    def run(model: nn.Module, x: Tensor) -> Tensor:
        loss = 100 * loss_of(model(x.to(dtype)))
        loss.backward()
        return loss

    return run


def accumulated(model: nn.Module, x: Tensor) -> Tensor:
    """Unequal micro-batches, each with its share of the mean, forward and backward in turn."""
    total = torch.zeros(())
    for part in (x[:1], x[1:3], x[3:]):
        loss = loss_of(model(part)) * len(part) / len(x)
        loss.backward()
        total += loss.detach()
    return total


def retained(model: nn.Module, x: Tensor) -> Tensor:
    """Two losses of one forward pass, each with a backward pass of its own."""
    y = model(x)
    first, second = loss_of(y), y.square().mean()
    first.backward(retain_graph=True)
    second.backward()
    return first + second


def gradients_by_hand(model: nn.Module, x: Tensor) -> Tensor:
    """``torch.autograd.grad`` instead of ``backward``."""
    loss = loss_of(model(x))
    parameters = list(model.parameters())
    for parameter, grad in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.grad = grad
    return loss


def whole_model_checkpointed(model: nn.Module, x: Tensor) -> Tensor:
    loss = loss_of(checkpoint(model, x, use_reentrant=False))
    loss.backward()
    return loss


# ---------------------------------------------------------------------- ways to use them


def clip_norm(model: nn.Module, optimizer: Optimizer) -> None:
    nn.utils.clip_grad_norm_(model.parameters(), 0.01)
    optimizer.step()


def clip_value(model: nn.Module, optimizer: Optimizer) -> None:
    nn.utils.clip_grad_value_(model.parameters(), 0.002)
    optimizer.step()
