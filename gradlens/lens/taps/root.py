"""The hooks of the model itself and of its parts: when a pass begins, and when one comes back."""

import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from gradlens.lens.hook_state import HookState, begin_trace
from gradlens.lens.hooks import Hook, hook_gradient, in_backward, regions
from gradlens.lens.taps.output import OutputTap
from gradlens.lens.taps.views import lasting, lasting_in_graph
from gradlens.outputs import tensors_of


class RootTap:
    """Tells the lens when a forward pass begins, and when a backward pass comes to what it returned.

    One stands on the model, and one on each of its parts: some models are never called themselves, as those of
    Lightning, or a container of the two networks of a GAN. Only the outermost that is called is a forward pass.

    Attributes:
        ends: looks at what goes in and comes out.
    """

    def __init__(self, state: HookState, model: nn.Module) -> None:
        self.state, self.model = state, model
        self.ends = OutputTap(state, model)

    def handles(self) -> list[RemovableHandle]:
        """Register the hooks and return their handles."""
        failed = self.state.guard.end
        return [
            handle
            for module in (self.model, *parts(self.model))
            for handle in (
                module.register_forward_pre_hook(Hook(self._before, failed)),
                module.register_forward_hook(Hook(self._after, failed), always_call=True),
            )
        ]

    def _before(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        state = self.state
        if torch.compiler.is_compiling():
            if module is self.model:
                begin_trace(state.key)
            return
        if in_backward() or not state.enter(module):
            return
        if not torch.is_grad_enabled() and regions() == (None, None):
            # An evaluation: it belongs to no training step.
            state.evaluate(module is self.model)
        elif not state.paused:
            kind = state.device.type
            enabled = torch.is_autocast_enabled(kind)
            state.observed.autocast = str(torch.get_autocast_dtype(kind)).removeprefix("torch.") if enabled else ""
            state.begin_forward()
            state.placing.begin()
            self.ends.before(module, args)

    def _after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if torch.compiler.is_compiling():
            if self.state.recording and module is self.model:
                for tensor in tensors_of(output):
                    if tensor.requires_grad:
                        hooked = lasting_in_graph(tensor, self.state.key)
                        hook_gradient(hooked, self.state.arm_in_graph, self.state.guard.end)
            return
        if in_backward() or not self.state.leave(module):
            return
        if self.state.evaluating:
            self.state.evaluate(False)
            return
        if not self.state.recording:
            self.state.placing.forget()
            return
        if output is None and sys.exc_info()[0] is not None:
            self.state.on_failure()
        forward = self.state.forward
        # A parameter that is handed out would keep the hook.
        tensors = [tensor for tensor in tensors_of(output) if tensor.requires_grad and not tensor.is_leaf]
        if torch.is_grad_enabled():
            forward.free = not tensors
        self.state.placing.end(tensors if torch.is_grad_enabled() else ())
        for tensor in tensors:
            hook_gradient(lasting(tensor), partial(self.state.arm_output, forward), self.state.guard.end)
        self.ends.after(module, args, output)


def parts(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules that are called where a model is not: its children, or those of a list or dict of modules."""
    for child in model.children() if not isinstance(model, nn.Sequential) else ():
        if type(child).forward is nn.Module.forward:
            yield from parts(child)
        else:
            yield child
