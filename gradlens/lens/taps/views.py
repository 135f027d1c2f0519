"""Gradients of outputs that are views.

An operation in place on a view gives it another place in the graph, and hooks on the view itself never run then. Those
on its base do: the base's gradient, viewed alike, is the view's gradient before that operation.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from gradlens.lens.hook_state import in_one_trace
from gradlens.lens.hooks import Failed, hook_gradient, is_batched
from gradlens.lens.world import placements

#: Size, stride and offset of a tensor in its storage.
_Place = tuple[tuple[int, ...], tuple[int, ...], int]


def base_of(tensor: Tensor) -> Tensor | None:
    """Return what a tensor is a view of, where hooks on that are as good and leave nothing behind; else None."""
    base: Tensor | None = tensor._base
    # A leaf, a parameter, would keep the hook.
    if base is None or not base.requires_grad or base.is_leaf or base.dtype != tensor.dtype or placements(tensor):
        return None
    return base


def lasting(tensor: Tensor) -> Tensor:
    """Return an output, or what it is a view of: a hook there runs also where the output is changed in place."""
    base = base_of(tensor)
    return tensor if base is None else base


def lasting_in_graph(tensor: Tensor, state: str) -> Tensor:
    """Do so in a graph that is traced, where that is the one in which the tensor was made.

    To ask a graph's input for its base would be an operation of the graph, which fails where there is none.
    """
    return lasting(tensor) if in_one_trace(state) else tensor


def hook_output(output: Tensor, x: Tensor, hook: Callable[[Tensor], None], failed: Failed) -> None:
    """Call the hook with the gradient of a module's output as the module returned it, whatever is done to it later.

    Args:
        output: of the module.
        x: the module's input; where the output is a view of that, its base's gradient is that of all its consumers.
        hook: takes the gradient.
        failed: takes what the hook raises.
    """
    base = base_of(output)
    if base is None or base is x or base is x._base:
        hook_gradient(output, hook, failed)
        return
    one = _OneOf(hook, _place(output), _place(base))
    hook_gradient(output, one.of_view, failed)
    hook_gradient(base, one.of_base, failed)


def hook_traced_output(output: Tensor, x: Tensor, hook: Callable[[Tensor], None], failed: Failed) -> None:
    """Do so in a graph that is traced, where what comes later is not known and one hook must do."""
    base = base_of(output)
    alike = None if base is None or base is x or base is x._base else _alike(base, output)
    if base is None or alike is None:
        hook_gradient(output, hook, failed)
    else:
        hook_gradient(base, partial(_through, alike, hook), failed)


class _OneOf:
    """The gradient of a view: from its own hook, else from its base's, which autograd runs later in the same pass."""

    def __init__(self, hook: Callable[[Tensor], None], view: _Place, base: _Place) -> None:
        self._hook, self._view, self._base = hook, view, base
        #: The backward pass in which the view's own hook ran last.
        self._came = -1

    def of_view(self, grad: Tensor) -> None:
        self._came = torch._C._current_graph_task_id()
        self._hook(grad)

    def of_base(self, grad: Tensor) -> None:
        if self._came == torch._C._current_graph_task_id():
            return
        self._hook(grad if is_batched(grad) else self._viewed(grad.detach()))

    def _viewed(self, grad: Tensor) -> Tensor:
        (size, stride, offset), (base_size, base_stride, base_offset) = self._view, self._base
        if grad.stride() != base_stride:
            grad = grad.new_empty_strided(base_size, base_stride).copy_(grad)
        return grad.as_strided(size, stride, grad.storage_offset() + offset - base_offset)


def _place(tensor: Tensor) -> _Place:
    return tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset())


def _through(alike: Callable[[Tensor], Tensor], hook: Callable[[Tensor], None], grad: Tensor) -> None:
    hook(alike(grad))


def _alike(base: Tensor, view: Tensor) -> Callable[[Tensor], Tensor] | None:
    """Return what makes the view's gradient of the base's, where it is all of it, reshaped or transposed; else None."""
    if not base.is_contiguous() or base.numel() != view.numel():
        return None
    if view.is_contiguous():
        return partial(_reshaped, tuple(view.shape))
    if base.dim() != view.dim():
        return None
    dims = _dims(base, view)
    return None if dims is None else partial(_permuted, dims)


def _reshaped(shape: tuple[int, ...], grad: Tensor) -> Tensor:
    return grad.reshape(shape)


def _permuted(dims: list[int], grad: Tensor) -> Tensor:
    return grad.permute(dims)


def _dims(base: Tensor, view: Tensor) -> list[int] | None:
    """Return the base's dimensions in the order in which the view has them."""
    dims: list[int] = []
    for size, stride in zip(view.shape, view.stride(), strict=True):
        for dim in range(base.dim()):
            if dim not in dims and base.shape[dim] == size and base.stride(dim) == stride:
                dims.append(dim)
                break
        else:
            return None
    return dims
