"""The hooks of a block, or of any module that is watched: moments of what goes in and comes out."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gradlens.lens import statistics
from gradlens.lens.hook_state import HookState
from gradlens.lens.hooks import hook_gradient, in_backward
from gradlens.lens.sites import Site
from gradlens.lens.statistics import INPUT, Facts, Moments
from gradlens.lens.taps.tap import Tap, sizes
from gradlens.lens.taps.views import lasting_in_graph
from gradlens.lens.world import local
from gradlens.native import vectors
from gradlens.native.core import takes
from gradlens.outputs import first_tensor


class ActivationTap(Tap):
    """Moments of a block's (or watched module's) output, and of the first block's input."""

    def __init__(self, site: Site, state: HookState, tensor: str) -> None:
        super().__init__(site, state)
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
            if not self.state.recording:
                return
        elif self.silent or in_backward() or not self.state.records(self.site.path):
            return
        x = first_tensor(value)
        if x is not None and x.is_nested:
            self.unsupported("a nested tensor")
            return
        if x is None or x.dim() == 0:
            if self.tensor == "output":
                self.unsupported("its output holds no floating tensor")
            return
        if x.numel() == 0 or not self.state.holds(self.site.path, x):
            return
        call = self.traced_call(x) if compiling else None
        if compiling and call is None:
            return
        # Tokens, or whole samples where an image has rows and columns: fewer numbers that say as much.
        dims = (-1,) if x.dim() <= 3 else tuple(range(1 - x.dim(), 0))
        if call is None and takes(own := local(x.detach())) and (seen := vectors.seen(own, dims)):
            block = seen.block()
            vectors.moments(seen, own, INPUT, block)
            self.row(x).keep_block(seen, block, Facts(seen.width))
            return
        view = statistics.raised(x)
        total, norm = statistics.moments(view, dims)
        moments, facts = (total, norm, torch.zeros_like(norm)), Facts(sizes(view, dims)[1])
        if call is not None:
            peak = view.abs().amax()
            if x.requires_grad:
                hooked = lasting_in_graph(x, self.state.key)
                hook_gradient(hooked, partial(self._traced_grad, call, moments, peak, facts), self.failed)
            else:
                self.traced.add_input(call, moments, peak, facts)
            return
        extremes = statistics.extremes(view)
        self.row(x).keep_input(moments, extremes, facts)
        self.state.remember(x, extremes)

    def _traced_grad(self, call: int, moments: Moments, peak: Tensor, facts: Facts, grad: Tensor) -> None:
        """Add what is known of a graph's forward pass, now that its backward pass has come."""
        self.traced.add_input(call, moments, peak, facts)
