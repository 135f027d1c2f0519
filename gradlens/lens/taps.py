"""Which hooks a model gets: those of its norms (``norm_tap``), of its blocks, and of the model itself."""

import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gradlens.lens import statistics
from gradlens.lens.hooks import Hook, hook_gradient, in_backward, regions
from gradlens.lens.norm_tap import NormTap
from gradlens.lens.sites import Site
from gradlens.lens.statistics import Facts
from gradlens.lens.switch import Switch, begin_trace, in_one_trace
from gradlens.lens.tap import Tap, sizes
from gradlens.lens.views import base_of
from gradlens.outputs import first_tensor, tensors_of


class ActivationTap(Tap):
    """Moments of a block's (or watched module's) output, and of the first block's input."""

    def __init__(self, site: Site, switch: Switch, tensor: str) -> None:
        super().__init__(site, switch)
        self.tensor = tensor

    def handles(self) -> list[RemovableHandle]:
        """Register the hook and return its handle."""
        module = self.site.module
        if self.tensor == "input":
            return [module.register_forward_pre_hook(self.hook(self._before), with_kwargs=True)]
        return [module.register_forward_hook(self.hook(self._after))]

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._measure(args or tuple(kwargs.values()))

    def _after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self._measure(output)

    def _measure(self, value: Any) -> None:
        compiling = torch.compiler.is_compiling()
        if compiling:
            if not self.switch.recording:
                return
        elif self.silent or in_backward() or not self.switch.records(self.site.path):
            return
        x = first_tensor(value)
        if x is not None and x.is_nested:
            self.switch.unsupported[self.site.path] = "a nested tensor"
            return
        if x is None or x.dim() == 0:
            if self.tensor == "output":
                self.switch.unsupported[self.site.path] = "its output holds no floating tensor"
            return
        if x.numel() == 0 or not self.switch.holds(self.site.path, x):
            return
        call = self.traced_call(x) if compiling else None
        if compiling and call is None:
            return
        view = statistics.raised(x)
        # Tokens, or whole samples where an image has rows and columns: fewer numbers that say as much.
        dims = (-1,) if x.dim() <= 3 else tuple(range(1 - x.dim(), 0))
        total, norm = statistics.moments(view, dims)
        cells, facts = (total, norm, torch.zeros_like(norm)), Facts(sizes(view, dims)[1])
        if call is not None:
            peak = view.abs().amax()
            if x.requires_grad:
                hooked = _lasting_in_graph(x, self.switch.key)
                hook_gradient(hooked, partial(self._traced_grad, call, cells, peak, facts), self.failed)
            else:
                self.traced.begin(call, cells, peak, facts)
            return
        extremes = statistics.extremes(view)
        self.row(x).begin(cells, extremes, facts)
        self.switch.remember(x, extremes)

    def _traced_grad(self, call: int, cells: tuple[Tensor, ...], peak: Tensor, facts: Facts, grad: Tensor) -> None:
        """Add what was measured in a graph's forward pass, now that its backward pass has come."""
        self.traced.begin(call, cells, peak, facts)


class RootTap:
    """Tells the lens when a forward pass begins, and when a backward pass comes to what it returned.

    One stands on the model, and one on each of its parts: some models are never called themselves, as those of
    Lightning, or a container of the two networks of a GAN. Only the outermost that is called is a forward pass.
    """

    def __init__(self, switch: Switch, model: nn.Module) -> None:
        self.switch, self.model = switch, model

    def handles(self) -> list[RemovableHandle]:
        """Register the hooks and return their handles."""
        failed = self.switch.guard.end
        return [
            handle
            for module in (self.model, *parts(self.model))
            for handle in (
                module.register_forward_pre_hook(Hook(self._before, failed)),
                module.register_forward_hook(Hook(self._after, failed), always_call=True),
            )
        ]

    def _before(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if torch.compiler.is_compiling():
            if module is self.model:
                begin_trace(self.switch.key)
            return
        if in_backward() or not self.switch.enter(module):
            return
        if not torch.is_grad_enabled() and regions() == (None, None):
            # An evaluation: it belongs to no training step.
            self.switch.evaluate(module is self.model)
        elif not self.switch.paused:
            kind = self.switch.device.type
            enabled = torch.is_autocast_enabled(kind)
            self.switch.autocast = str(torch.get_autocast_dtype(kind)).removeprefix("torch.") if enabled else ""
            self.switch.begin_forward()

    def _after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if torch.compiler.is_compiling():
            if self.switch.recording and module is self.model:
                for tensor in tensors_of(output):
                    if tensor.requires_grad:
                        hooked = _lasting_in_graph(tensor, self.switch.key)
                        hook_gradient(hooked, self.switch.arm_in_graph, self.switch.guard.end)
            return
        if in_backward() or not self.switch.leave(module):
            return
        if self.switch.evaluating:
            self.switch.evaluate(False)
            return
        if not self.switch.recording:
            return
        if output is None and sys.exc_info()[0] is not None:
            self.switch.on_failure()
        forward = self.switch.forward
        # A parameter that is handed out would keep the hook.
        tensors = [tensor for tensor in tensors_of(output) if tensor.requires_grad and not tensor.is_leaf]
        if torch.is_grad_enabled():
            forward.free = not tensors
        for tensor in tensors:
            hook_gradient(_lasting(tensor), partial(self.switch.arm_output, forward), self.switch.guard.end)


def parts(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules that are called where a model is not: its children, or those of a list or dict of modules."""
    for child in model.children() if not isinstance(model, nn.Sequential) else ():
        if type(child).forward is nn.Module.forward:
            yield from parts(child)
        else:
            yield child


def _lasting(tensor: Tensor) -> Tensor:
    """Return an output, or what it is a view of: a hook there runs also where the output is changed in place."""
    base = base_of(tensor)
    return tensor if base is None else base


def _lasting_in_graph(tensor: Tensor, switch: str) -> Tensor:
    """Do so in a graph that is traced, where that is the one in which the tensor was made.

    To ask a graph's input for its base would be an operation of the graph, which fails where there is none.
    """
    return _lasting(tensor) if in_one_trace(switch) else tensor


def taps_of(site: Site, switch: Switch) -> list[Tap]:
    """Return the taps of one site."""
    if site.kind == "norm":
        return [NormTap(site, switch)]
    ends = ["output"] if site.kind == "block" and not site.first_in_stack else ["input", "output"]
    return [ActivationTap(site, switch, tensor) for tensor in ends]
