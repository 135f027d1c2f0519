"""Which hooks a model gets: those of its norms (``norm_tap``), of its blocks, and of the model itself."""

import sys
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
            self.traced.begin(call, cells, view, facts)
            return
        extremes = statistics.extremes(view)
        self.row(x).begin(cells, extremes, facts)
        self.switch.remember(x, extremes)


class RootTap:
    """Tells the lens when a forward pass begins and when the backward pass of its outputs has truly ended."""

    def __init__(self, switch: Switch) -> None:
        self.switch = switch

    def handles(self, model: nn.Module) -> list[RemovableHandle]:
        """Register the hooks and return their handles."""
        failed = self.switch.guard.end
        return [
            model.register_forward_pre_hook(Hook(self._before, failed)),
            model.register_forward_hook(Hook(self._after, failed), always_call=True),
        ]

    def _before(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if torch.compiler.is_compiling():
            begin_trace(self.switch.key)
            return
        if in_backward():
            return
        if not torch.is_grad_enabled() and regions() == (None, None):
            # An evaluation: it belongs to no training step.
            self.switch.evaluate(True)
        else:
            kind = self.switch.device.type
            enabled = torch.is_autocast_enabled(kind)
            self.switch.autocast = str(torch.get_autocast_dtype(kind)).removeprefix("torch.") if enabled else ""
            self.switch.begin_forward()

    def _after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if torch.compiler.is_compiling():
            if self.switch.recording:
                # To ask a graph's input for its base would be an operation, and a graph for nothing.
                whole = in_one_trace(self.switch.key)
                for tensor in tensors_of(output):
                    if tensor.requires_grad:
                        hooked = _lasting(tensor) if whole else tensor
                        hook_gradient(hooked, self.switch.arm_in_graph, self.switch.guard.end)
            return
        if self.switch.evaluating:
            self.switch.evaluate(False)
            return
        if not self.switch.recording or in_backward():
            return
        if output is None and sys.exc_info()[0] is not None:
            self.switch.on_failure(self.switch.forwards)
        for tensor in tensors_of(output):
            # A parameter that is handed out would keep the hook.
            if tensor.requires_grad and not tensor.is_leaf:
                self.switch.root_seen = True
                hook_gradient(_lasting(tensor), self.switch.arm, self.switch.guard.end)


def _lasting(tensor: Tensor) -> Tensor:
    """Return an output, or what it is a view of: a hook there runs also where the output is changed in place."""
    base = base_of(tensor)
    return tensor if base is None else base


def taps_of(site: Site, switch: Switch) -> list[Tap]:
    """Return the taps of one site."""
    if site.norm is not None:
        return [NormTap(site, switch)]
    ends = ["output"] if site.kind == "block" and not site.first_in_stack else ["input", "output"]
    return [ActivationTap(site, switch, tensor) for tensor in ends]
