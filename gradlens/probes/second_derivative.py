"""Which operation of a model cannot be differentiated twice."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn


def no_second_derivative(model: nn.Module, loss: Tensor, reason: str) -> str:
    """Return the message for a Hessian that failed; it names the operation and what to do.

    Args:
        model: the user's.
        loss: with its graph, in which the model's own operations are found.
        reason: what autograd said; it names its own operations.
    """
    found = re.search(r"derivative for '?(?:aten::)?(\w+)'?", reason)
    names = [found[1]] if found else sorted(set(_own_functions(loss))) or ["one of its operations"]
    return (
        f"A Hessian needs operations that can be differentiated twice; in {type(model).__name__} {', '.join(names)} "
        f"cannot ({reason.splitlines()[0]}). Replace it by plain torch operations for the probe, or use probes "
        "without a Hessian: gradlens.probes.critical_step, trial, amplification."
    )


def cut_off(gradients: Iterable[Tensor]) -> bool:
    """Whether an ``once_differentiable`` function stands in the graph of the gradients.

    Autograd raises only where it comes through its node, which leads to no parameter: it would leave that part of the
    Hessian out without a word.
    """
    return any(node.name() == "torch::autograd::Error" for node in _nodes(gradients))


def _own_functions(loss: Tensor) -> Iterator[str]:
    """Yield the names of the ``autograd.Function`` classes that a graph goes through."""
    for node in _nodes([loss]):
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            yield type(node).__name__.removesuffix("Backward")


def _nodes(tensors: Iterable[Tensor]) -> Iterator[Any]:
    seen: set[Any] = {None}
    waiting: list[Any] = [tensor.grad_fn for tensor in tensors]
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            yield node
            waiting += [following for following, _ in node.next_functions]
