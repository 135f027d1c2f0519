"""Sees every call of some modules of a model by hooks of its own: what went in, what came out, what gradient came."""

import copy
from collections import defaultdict
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tests.norms_table.formula import Call, raised


class Witness:
    """Watches modules; ``calls`` lists, by path, what happened in the order of the calls.

    Args:
        model: what is run; it gets hooks that stay.
        paths: of the modules to watch.
    """

    def __init__(self, model: nn.Module, paths: list[str]) -> None:
        self.calls: dict[str, list[Call]] = defaultdict(list)
        for path in paths:
            module = model.get_submodule(path)
            module.register_forward_pre_hook(partial(self._before, path), with_kwargs=True)
            module.register_forward_hook(partial(self._after, path), with_kwargs=True)

    def _before(self, path: str, module: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        """Copy everything before the module can change it (running statistics, in-place operations)."""
        if not torch.is_grad_enabled():
            return
        given = {**dict(enumerate(args)), **keywords}
        name, x = next(
            ((key, value) for key, value in given.items() if _is(value) and value.is_floating_point()), ("", None)
        )
        if x is None:
            return
        rest = {key: _copied(value) for key, value in given.items() if key != name}
        further = tuple(value for key, value in rest.items() if isinstance(key, int))
        named = {key: value for key, value in rest.items() if isinstance(key, str)}
        call = Call(_snapshot(module), x.detach().clone(), further, named, x.detach(), x.requires_grad)
        self.calls[path].append(call)

    def _after(self, path: str, module: nn.Module, args: Any, keywords: Any, output: Any) -> Any:
        if not torch.is_grad_enabled():
            return output
        if not self.calls[path] or not _is(_first(output)):
            return output
        call = self.calls[path][-1]
        inside = list(output.values()) if isinstance(output, dict) else [output] if _is(output) else list(output)
        index = next(index for index, value in enumerate(inside) if _is(value))
        call.output = inside[index].detach().clone()
        if not inside[index].requires_grad:
            return output
        # What is handed on is a copy, so that nothing done to it in place can hide its gradient.
        handed = inside[index].clone()
        handed.register_hook(partial(_arrived, call))
        inside[index] = handed
        if _is(output):
            return handed
        if isinstance(output, dict):
            return type(output)(zip(output, inside, strict=True))
        return type(output)(*inside) if hasattr(output, "_fields") else type(output)(inside)


def _first(output: Any) -> Any:
    """Return the first tensor of an output that is one or a flat collection; None where it is neither."""
    inside = output.values() if isinstance(output, dict) else output if isinstance(output, tuple | list) else (output,)
    return next((value for value in inside if _is(value)), None)


def _is(value: Any) -> bool:
    return isinstance(value, Tensor)


def _copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value


def _snapshot(module: nn.Module) -> nn.Module:
    """Copy a module without the hooks, which hold this witness."""
    hooks = module._forward_hooks, module._forward_pre_hooks
    module._forward_hooks, module._forward_pre_hooks = type(hooks[0])(), type(hooks[1])()
    try:
        return copy.deepcopy(module)
    finally:
        module._forward_hooks, module._forward_pre_hooks = hooks


def _arrived(call: Call, grad: Tensor) -> None:
    grad = raised(grad)
    call.grad_output = grad if call.grad_output is None else call.grad_output + grad
