"""What hooks are made of: where autograd stands, the tensor in an output, a hook that can be pickled."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


def hook_gradient(tensor: Tensor, hook: Callable[[Tensor], None]) -> None:
    """Call the hook with the tensor's gradient, once it is complete."""
    tensor.register_hook(hook)  # type: ignore[no-untyped-call]


def in_backward() -> bool:
    """Whether autograd is running: a forward pass now is an activation checkpoint's second one."""
    return bool(torch._C._current_graph_task_id() != -1)


def first_tensor(value: Any) -> Tensor | None:
    """Return the first floating tensor in a tensor, tuple, list, mapping or dataclass; None where there is none."""
    if isinstance(value, Tensor):
        return value if value.is_floating_point() else None
    if isinstance(value, Mapping):
        value = tuple(value.values())
    elif hasattr(value, "__dataclass_fields__"):
        value = tuple(getattr(value, name) for name in value.__dataclass_fields__)
    if isinstance(value, tuple | list):
        return next((found for found in map(first_tensor, value) if found is not None), None)
    return None


class Hook:
    """A hook as it is registered on a module: saved or copied with the module, it turns into one that does nothing."""

    def __init__(self, run: Callable[..., Any]) -> None:
        self.run = run

    def __call__(self, *args: Any) -> Any:
        """Run the hook."""
        return self.run(*args)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[()]]:
        return _inert_hook, ()


def _inert_hook() -> Callable[..., None]:
    return _do_nothing


def _do_nothing(*args: Any) -> None:
    """Stand where a lens' hook was when the module was saved or copied."""


def at_end_of_backward(callback: Callable[[], None]) -> None:
    """Run the callback when the backward pass that runs now has ended (private, but what DDP and FSDP use)."""
    torch.autograd.Variable._execution_engine.queue_callback(callback)
