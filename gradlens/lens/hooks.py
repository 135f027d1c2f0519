"""What hooks are made of: where autograd stands, a hook that raises nothing and can be pickled."""

import logging
import sys
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import checkpoint
from torch.utils._python_dispatch import _disable_current_modes, _get_current_dispatch_mode_stack

from gradlens.lens.guard import PASSES

#: What becomes of an error in a hook.
Failed = Callable[[Exception], None]


def hook_gradient(tensor: Tensor, hook: Callable[[Tensor], None], failed: Failed) -> None:
    """Call the hook with the tensor's gradient, once it is complete."""
    run = partial(_run, hook, failed)
    node = None if torch.compiler.is_compiling() or type(tensor) is not Tensor else tensor.grad_fn
    if node is None or tensor._backward_hooks is not None:
        tensor.register_hook(run)  # type: ignore[no-untyped-call]
        return
    # As register_hook does, less a handle that nobody keeps and that takes longer than all else. Handles are numbers:
    # hooks of others have other keys.
    tensor._backward_hooks = OrderedDict(gradlens=run)
    node._register_hook_dict(tensor)


def _run(hook: Callable[[Tensor], None], failed: Failed, grad: Tensor | None) -> None:
    if grad is None:  # DistributedDataParallel calls with it where it looks for unused parameters
        return
    try:
        hook(grad)
    except PASSES:
        raise
    except Exception as error:
        failed(error)


def is_batched(grad: Tensor) -> bool:
    """Whether a gradient stands for several at once (``is_grads_batched``, a vectorized Jacobian)."""
    functorch = torch._C._functorch
    return functorch.is_batchedtensor(grad) or functorch.is_legacy_batchedtensor(grad)


def in_backward() -> bool:
    """Whether autograd is running: a forward pass now is an activation checkpoint's second one."""
    return bool(torch._C._current_graph_task_id() != -1)


def inside_backward() -> bool:
    """Whether the backward pass that runs was started by the backward of an autograd.Function."""
    started, frame = False, sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_name == "_engine_run_backward":
            started = True
        elif started and code.co_name == "backward" and _is_function(frame):
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


def _is_function(frame: FrameType) -> bool:
    """Whether a frame is of a method of an autograd.Function, whose first argument is its context."""
    code = frame.f_code
    return code.co_argcount > 0 and isinstance(frame.f_locals.get(code.co_varnames[0]), torch._C._FunctionBase)


def regions() -> tuple[int | None, int | None]:
    """Find the autograd.Functions on the Python stack: for a reentrant checkpoint they are its regions.

    A region's context is the same object in its first pass and in its second.

    Returns:
        Identity of the innermost one whose backward runs now, and of the outermost one in it (or at all) whose forward
        does, which autograd does not follow; None where there is none.
    """
    without_graph = None
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_name in ("forward", "backward") and code.co_argcount:
            context = frame.f_locals.get(code.co_varnames[0])
            if isinstance(context, torch._C._FunctionBase):
                if code.co_name == "backward":
                    return id(context), without_graph
                without_graph = id(context)
        frame = frame.f_back  # type: ignore[assignment]
    return None, without_graph


def _selective() -> bool:
    """Whether a selective checkpoint counts operations now, which ours would confuse: its second pass has none."""
    modes = (checkpoint._CachingTorchDispatchMode, checkpoint._CachedTorchDispatchMode)
    return any(isinstance(mode, modes) for mode in _get_current_dispatch_mode_stack())


class Hook:
    """A hook as it is registered on a module: saved or copied with the module, it turns into one that does nothing."""

    def __init__(self, run: Callable[..., Any], failed: Failed) -> None:
        self.run, self.failed = run, failed

    def __call__(self, *args: Any) -> Any:
        """Run the hook; what it raises goes to ``failed``, never to the module's caller."""
        try:
            if torch.compiler.is_compiling():
                return None if torch.compiler.is_exporting() else self.run(*args)
            if torch._C._len_torch_dispatch_stack() and _selective():
                with _disable_current_modes():
                    return self.run(*args)
            return self.run(*args)
        except PASSES:
            raise
        except Exception as error:
            self.failed(error)
            return None

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Callable[..., None], int]]:
        # A standard library object that takes any arguments and does nothing (level 0 is never logged), so that the
        # model loads where gradlens is not installed.
        return partial, (logging.getLogger("gradlens").log, 0)


def has_others(module: nn.Module) -> bool:
    """Whether hooks stand on a module that are neither ours nor those with which PyTorch distributes it."""
    kinds = (module._forward_pre_hooks, module._forward_hooks, module._backward_pre_hooks, module._backward_hooks)
    hooks = (getattr(hook, "func", hook) for kind in kinds for hook in kind.values())
    return any(
        not isinstance(hook, Hook) and not str(getattr(hook, "__module__", "")).startswith("torch.distributed")
        for hook in hooks
    )


def at_end_of_backward(callback: Callable[[], None]) -> None:
    """Run the callback when the backward pass that runs now has ended (private, but what DDP and FSDP use)."""
    torch.autograd.Variable._execution_engine.queue_callback(callback)
