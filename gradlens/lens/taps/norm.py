"""The hooks of a normalization.

A forward pre-hook hands the module an alias of its input (``x.view_as(x)``) and hooks the alias' gradient: that is
the gradient through this module only, never the sum with a skip path. A forward hook hooks the output tensor. Both
see the right tensors before in-place operations, for keyword inputs, for composite norms and inside torch.compile
(``norm_tap_in_graphs``). A hook takes a few numbers a vector: no copy to the host, no branch on a value, no activation
kept.
"""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gradlens.lens import statistics
from gradlens.lens.hook_state import HookState
from gradlens.lens.hooks import hook_gradient, in_backward, is_batched, regions
from gradlens.lens.moment_buffer import Row
from gradlens.lens.sites import Site
from gradlens.lens.statistics import GRAD_INPUT, GRAD_OUTPUT
from gradlens.lens.taps import norm_input
from gradlens.lens.taps.norm_in_graphs import NormTapInGraphs
from gradlens.lens.taps.proving import Call
from gradlens.lens.taps.tap import sizes
from gradlens.lens.taps.views import hook_output
from gradlens.lens.world import placements
from gradlens.outputs import first_tensor
from gradlens.recognition.proof import gradient


class _Between:
    """What the first hook of a call leaves to the second."""

    def __init__(self) -> None:
        #: Its row, where it is recorded, and whether its gradients are.
        self.row: Row | None = None
        self.graph = False
        #: The input, and how it lies across processes.
        self.x: Tensor | None = None
        self.lies: tuple[Any, ...] = ()
        #: Whether the input waits for the output, and whether the output will hold its moments.
        self.waits = self.look_up = False
        #: What the call has to prove.
        self.call: Call | None = None
        #: γ, where it is there before the module runs; and the tensor that is multiplied by besides.
        self.gain: Tensor | None = None
        self.gate: Tensor | None = None


class NormTap(NormTapInGraphs):
    """Forward and backward sums of one normalization."""

    def __init__(self, site: Site, state: HookState) -> None:
        super().__init__(site, state)
        #: Called when the kind is found that nobody knew.
        self.on_found: Callable[[Site], None] = lambda site: None
        #: Of its last input, and whether it ran in a backward pass: a checkpoint's second pass.
        self.dtype: torch.dtype | None = None
        self.ran_again = False
        #: Between the module's two hooks, by thread.
        self._between: dict[int, _Between] = {}
        #: Calls that ran without a graph, by region: a reentrant checkpoint runs them again in backward.
        self._without_graph: dict[int, deque[Row]] = {}
        self._registered: list[RemovableHandle] = []

    @property
    def likely(self) -> bool:
        """Whether the module may be recorded before it is known to be a norm."""
        return self.site.taken is not None and self.site.taken.likely

    @property
    def is_stranger(self) -> bool:
        """Whether the module is called a norm, and was not seen where it can be told."""
        named = self.site.taken is not None and self.site.taken.named
        return named and not self.is_norm and not self.proving.over

    def settle(self) -> bool:
        """Return whether the rows of the step that ends now are of what they should be."""
        over, sound = self.proving.over, self.proving.settle()
        if self.proving.over and not over:
            self._stop()
        return sound

    def new_call(self) -> None:
        """Let go of what an earlier step or micro-batch left."""
        self._without_graph.clear()

    def forward_failed(self) -> None:
        """Let go of what a forward pass left that raised."""
        self._between.clear()

    @property
    def inside(self) -> bool:
        """Whether this thread is between the hooks of a norm: what its own body calls is seen already."""
        return self.is_norm and threading.get_ident() in self._between

    def handles(self) -> list[RemovableHandle]:
        """Register the hooks and return their handles."""
        module = self.site.module
        self._registered = [
            module.register_forward_pre_hook(self.hook(self.before), with_kwargs=True),
            module.register_forward_hook(self.hook(self.after), with_kwargs=True),
            *self._gain.handles(self.hook),
        ]
        return self._registered

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Measure the input and hand on an alias whose gradient is hooked."""
        if not self.state.recording:
            return None
        if torch.compiler.is_compiling():
            return self._alias(args, kwargs) if torch.is_grad_enabled() and self.is_norm else None
        if self.silent or self.proving.over:
            return None
        between = self._between[threading.get_ident()] = _Between()
        x = self._input_of(args, kwargs)
        if not self.state.records(self.site.path) or not self._is_recordable(module, x):
            return None
        between.x, between.lies = x, placements(x)
        if self._gain.is_parameter(module):
            # A gain that is computed is not there yet, and to ask for it would compute it.
            between.call = self.proving.begin(module, x, args, kwargs)
        if not self.is_norm and (between.call is None or not self.likely):
            return None  # at most a look at it: an alias would change the order in which its gradients are added
        self._begin(module, x, between)
        if not between.graph or not x.requires_grad:
            return None
        handed_on = self._alias(args, kwargs)
        alias = self._input_of(*handed_on)
        if between.call is not None:
            between.call.handed_on = alias
            hook_gradient(alias, between.call.grad_input, self.failed)
        hook_gradient(alias, partial(self._grad_input, between, module), self.failed)
        return handed_on

    def _is_recordable(self, module: nn.Module, x: Any) -> bool:
        """Whether an input is one that can be recorded here; where it should be, the audit is told why not."""
        if not self.is_norm and not (isinstance(x, Tensor) and x.is_floating_point() and x.dim()):
            return False
        why = ""
        if not isinstance(x, Tensor):
            why = f"its input is a {type(x).__name__}, not a tensor"
        elif x.is_nested:
            why = "a nested tensor"
        elif x.numel() == 0 or not self.state.holds(self.site.path, x):
            return False
        elif self.state.world.size > 1 and self.is_norm and norm_input.split(self.kind, module, x):
            why = "its vectors are split over processes"
        if why:
            self.unsupported(why)
        return not why

    def after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Hook the gradient of the output."""
        if torch.compiler.is_compiling():
            if self.state.recording and torch.is_grad_enabled():
                self._trace(module, args, kwargs, output)
            return
        between = self._between.pop(threading.get_ident(), None)
        if between is None or between.x is None or self.silent:
            return
        y = first_tensor(output)
        if between.call is not None and (y is not None or not self.is_norm) and not self._proves(module, between, y):
            return
        if between.waits:
            self._measure(module, between, y)
        if not between.graph or between.row is None:
            return
        if y is None:
            why = f"its output is a {type(output).__name__} without a tensor"
            self.unsupported(why)
        elif y.requires_grad:
            if not self._gain.is_parameter(module):
                between.gain = self._gain.of_this_call(module, between.x.dim())
            hook_output(y, between.x, self._grad_output_hook(module, between), self.failed)
        between.x = None  # which nothing shall keep alive

    # ------------------------------------------------------------------ the proof

    def _proves(self, module: nn.Module, between: _Between, y: Tensor | None) -> bool:
        """Hold the call against what the module is taken for; return whether it can be recorded."""
        call, before = between.call, self.proving.kind
        assert call is not None
        if between.row is None and (before is not None or self.likely):
            return False
        call.on_verdict = partial(self._judged, between.row)
        recorded = self.proving.end(module, call, y)
        between.gate = call.gate
        if recorded and self.proving.kind != before:
            self._knows(self.kind)
            self.site = replace(self.site, norm=self.kind)
            if before is None:
                self.on_found(self.site)
        if recorded and between.graph and between.x is not None:
            between.gain = self._gain.of_this_call(module, between.x.dim())
        call.release()
        if self.proving.over:
            self._stop()
        return recorded and (before is not None or self.likely)

    def _judged(self, row: Row | None, call: Call) -> None:
        """Take the verdict on a call's gradient: how the row is to be summed, or that it is none."""
        self.proving.judge(call)
        if self.proving.over:
            self._stop()
        elif row is not None:
            row.facts = row.facts._replace(recenters=norm_input.recenters(self.kind, self.site.module))

    def _stop(self) -> None:
        """Leave a module alone that is no norm, or did not prove it."""
        for handle in self._registered:
            handle.remove()
        if self.proving.refuted:
            self.give_up(self.proving.refuted)

    # ------------------------------------------------------------------ the call

    def _begin(self, module: nn.Module, x: Tensor, between: _Between) -> None:
        """Begin a call: give it a row, and say whether it has a graph."""
        second_pass, graph = in_backward(), torch.is_grad_enabled()
        again, without_graph = regions() if second_pass or not graph else (None, None)
        if second_pass:
            self.ran_again = True
            # A checkpoint's second pass: its input is known now, and where the first pass had a graph it is hooked.
            waiting = self._without_graph.get(again) if again is not None else None
            if not waiting:
                return
            between.row = waiting.popleft()
        else:
            between.row = self.row(x)
            between.look_up = self.is_norm and norm_input.keeps_moments(self.kind, module)
            # In half precision the output may tell which 1/σ its gradient will be taken with.
            between.waits = between.call is not None or between.look_up or x.dtype in norm_input.HALF
            if not between.waits:
                self._measure(module, between)
        if graph:
            between.graph = True
            # As it is now: torch.func.functional_call takes parameters away again, FSDP frees what it gathered.
            if between.call is None and self._gain.is_parameter(module):
                between.gain = self._gain.of_this_call(module, x.dim())
        elif without_graph is not None:
            self._without_graph.setdefault(without_graph, deque()).append(between.row)

    def _measure(self, module: nn.Module, between: _Between, output: Tensor | None = None) -> None:
        x, row, gate = between.x, between.row, between.gate
        assert x is not None
        assert row is not None
        self.dtype = x.dtype
        view, dims = self.kind.vectors(module, self._gated_input(x, gate))
        vectors, width = sizes(view, dims)
        moments = norm_input.saved(output, vectors, width) if between.look_up else None
        facts = norm_input.facts(self.kind, module, width, x.dtype, from_sigma=moments is not None)
        if moments is None:
            moments = norm_input.computed(self.kind, module, view, dims, width, x.dtype)
            kept = norm_input.rounded(output, vectors)
            moments = moments if kept is None else (*moments[:2], kept.to(moments[2].dtype))
        row.keep_input(moments, (gate is None and self.state.known_extremes(x)) or statistics.extremes(view), facts)

    def _gated_input(self, x: Tensor, gate: Tensor | None) -> Tensor:
        """Return what is normalized: the input, or its product with a gate."""
        wide, own = statistics.raised(x), self.kind.gate
        return wide if gate is None or own is None or not own.first else wide * own.factor(gate)

    # ------------------------------------------------------------------ its gradients

    def _grad_output_hook(self, module: nn.Module, between: _Between) -> Callable[[Tensor], None]:
        """Return what to do with the gradient of the output."""
        row, call, x = between.row, between.call, between.x
        assert row is not None
        assert x is not None
        own: Callable[[Tensor], None] = partial(self._grad_output, row, module, between.gain, between.lies)
        if between.gate is not None:
            own = partial(self._gated, row, module, between.gain, between.lies, x.detach(), between.gate)
        return own if call is None else partial(_both, call.grad_output, own)

    def _grad_output(
        self, row: Row, module: nn.Module, gain: Tensor | None, lies: tuple[Any, ...], grad: Tensor
    ) -> None:
        if not self._is_measurable(grad, lies):
            return
        view, dims = self.kind.vectors(module, statistics.raised(grad))
        row.keep_gradient(GRAD_OUTPUT, statistics.grad_output_moments(view, gain, dims))

    def _gated(
        self, row: Row, module: nn.Module, gain: Tensor | None, lies: tuple[Any, ...], x: Tensor, gate: Tensor,
        grad: Tensor,
    ) -> None:  # fmt: skip
        """Do as ``_grad_output`` where the output, or what is normalized, is a product with a gate."""
        kind = self.kind
        assert kind.gate is not None
        if not kind.gate.first:
            factor, _ = kind.vectors(module, kind.gate.factor(gate))
            self._grad_output(row, module, factor if gain is None else factor * gain, lies, grad)
            return
        self._grad_output(row, module, gain, lies, grad)
        # What comes back went through the gate besides, where it may be lost: by the formula that was proved.
        h, dims = kind.vectors(module, self._gated_input(x, gate))
        g, _ = kind.vectors(module, statistics.raised(grad))
        h = h - h.mean(-1, keepdim=True) if kind.centered else h
        norm, eps = torch.linalg.vector_norm(h, dim=-1, keepdim=True), kind.eps(module, x.dtype)
        inverse = kind.inv_sigma(norm, h.shape[-1], eps)
        back = gradient(kind, g if gain is None else g * gain, h * inverse, norm, inverse, eps)
        row.keep_gradient(GRAD_INPUT, statistics.moments(back, dims))

    def _grad_input(self, between: _Between, module: nn.Module, grad: Tensor) -> None:
        if self.proving.over or not self.is_norm or between.row is None:
            return
        if between.gate is not None and self.kind.gate is not None and self.kind.gate.first:
            return  # that of its product is there already
        if not self._is_measurable(grad, between.lies):
            return
        view, dims = self.kind.vectors(module, statistics.raised(grad))
        between.row.keep_gradient(GRAD_INPUT, statistics.moments(view, dims))

    def _is_measurable(self, grad: Tensor, lies: tuple[Any, ...]) -> bool:
        """Whether a gradient is one, and lies across processes as the input did; to bring it there would wait."""
        if is_batched(grad):
            self.state.observed.transformed.add(self.site.path)
            return False
        if placements(grad) == lies:
            return True
        self.unsupported(f"a gradient lies as {placements(grad)}, its input as {lies}")
        return False


def _both(first: Callable[[Tensor], None], second: Callable[[Tensor], None], grad: Tensor) -> None:
    first(grad)
    second(grad)
