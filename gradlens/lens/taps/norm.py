"""The hooks of a normalization.

A forward pre-hook hands the module an alias of its input (``x.view_as(x)``) and hooks the alias' gradient: that is
the gradient through this module only, never the sum with a skip path. A forward hook hooks the output tensor. Both
see the right tensors before in-place operations, for keyword inputs, for composite norms and inside torch.compile
(``norm_in_graphs``). A hook takes a few numbers a vector: no copy to the host, no branch on a value, no activation
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

from gradlens.lens.hook_state import HookState
from gradlens.lens.hooks import hook_gradient, in_backward, regions
from gradlens.lens.moment_buffer import Row
from gradlens.lens.sites import Site
from gradlens.lens.taps import norm_input
from gradlens.lens.taps.evidence import Evidence
from gradlens.lens.taps.norm_call import NormCall
from gradlens.lens.taps.norm_in_graphs import NormTapInGraphs
from gradlens.lens.taps.views import hook_output
from gradlens.lens.world import placements
from gradlens.native import core
from gradlens.outputs import first_tensor


class NormTap(NormTapInGraphs):
    """Forward and backward sums of one normalization."""

    def __init__(self, site: Site, state: HookState) -> None:
        super().__init__(site, state)
        #: Called when the kind is found that nobody knew.
        self.on_found: Callable[[Site], None] = lambda site: None
        #: Of its last input, and whether it ran in a backward pass: a checkpoint's second pass.
        self.dtype: torch.dtype | None = None
        self.ran_again = False
        #: Those between the module's two hooks, by thread.
        self._calls: dict[int, NormCall] = {}
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
        self._calls.clear()

    @property
    def inside(self) -> bool:
        """Whether this thread is between the hooks of a norm: what its own body calls is seen already."""
        return self.is_norm and threading.get_ident() in self._calls

    def handles(self) -> list[RemovableHandle]:
        """Register the hooks and return their handles."""
        module = self.site.module
        self._registered = [
            module.register_forward_pre_hook(self.hook(self.before), with_kwargs=True),
            module.register_forward_hook(self.hook(self.after), with_kwargs=True),
            *self.gain.handles(self.hook),
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
        call = self._calls[threading.get_ident()] = NormCall(self, module)
        x = self._input_of(args, kwargs)
        if not self.state.records(self.site.path) or not self._is_recordable(module, x):
            return None
        call.x, call.lies = x, placements(x)
        if call.is_plain:
            # A gain that is computed is not there yet, and to ask for it would compute it.
            call.evidence = self.proving.begin(module, x, args, kwargs)
        if not self.is_norm and (call.evidence is None or not self.likely):
            return None  # at most a look at it: an alias would change the order in which its gradients are added
        self._begin(module, x, call)
        if not call.graph or not x.requires_grad:
            return None
        handed_on = self._alias(args, kwargs)
        alias = self._input_of(*handed_on)
        self.state.placing.hand_on(self.site.path, alias)
        if call.evidence is not None:
            call.evidence.handed_on = alias
            hook_gradient(alias, call.evidence.grad_input, self.failed)
        hook_gradient(alias, call.grad_input, self.failed)
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
        call = self._calls.pop(threading.get_ident(), None)
        if call is None or call.x is None or self.silent:
            return
        y = first_tensor(output)
        if call.evidence is not None and (y is not None or not self.is_norm) and not self._proves(module, call, y):
            return
        if call.waits:
            call.measure(y)
        if not call.graph or call.row is None:
            return
        if y is None:
            why = f"its output is a {type(output).__name__} without a tensor"
            self.unsupported(why)
        elif y.requires_grad:
            if not call.is_plain:
                call.gain = self.gain.of_this_call(module, call.x.dim())
            self.state.placing.call(self.site.path, y)
            hook_output(y, call.x, call.on_grad_output(), self.failed)
        else:
            self.state.observed.frozen.add(self.site.path)
        call.x = None  # which nothing shall keep alive

    # ------------------------------------------------------------------ the proof

    def _proves(self, module: nn.Module, call: NormCall, y: Tensor | None) -> bool:
        """Hold the call against what the module is taken for; return whether it can be recorded."""
        evidence, before = call.evidence, self.proving.kind
        assert evidence is not None
        if call.row is None and (before is not None or self.likely):
            return False
        evidence.on_verdict = partial(self._judged, call.row)
        recorded = self.proving.end(module, evidence, y)
        call.gate = evidence.gate
        if recorded and self.proving.kind != before:
            self._knows(self.kind)
            self.site = replace(self.site, norm=self.kind)
            if before is None:
                self.on_found(self.site)
        if recorded and call.graph and call.x is not None:
            call.gain = self.gain.of_this_call(module, call.x.dim())
        evidence.release()
        if self.proving.over:
            self._stop()
        return recorded and (before is not None or self.likely)

    def _judged(self, row: Row | None, evidence: Evidence) -> None:
        """Take the verdict on a call's gradient: how the row is to be summed, or that it is none."""
        self.proving.judge(evidence)
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

    def _begin(self, module: nn.Module, x: Tensor, call: NormCall) -> None:
        """Begin a call: give it a row, and say whether it has a graph."""
        second_pass, graph = in_backward(), torch.is_grad_enabled()
        again, without_graph = regions() if second_pass or not graph else (None, None)
        if second_pass:
            self.ran_again = True
            # A checkpoint's second pass: its input is known now, and where the first pass had a graph it is hooked.
            waiting = self._without_graph.get(again) if again is not None else None
            if not waiting:
                return
            call.row = waiting.popleft()
        else:
            call.row = self.row(x)
            # The native core takes moments in no more time than it takes to look them up.
            looks = core.library is None or not x.is_cpu
            call.look_up = looks and self.is_norm and norm_input.keeps_moments(self.kind, module)
            # In half precision the output may tell which 1/σ its gradient will be taken with.
            call.waits = call.evidence is not None or call.look_up or x.dtype in norm_input.HALF
            if not call.waits:
                call.measure()
        if graph:
            call.graph = True
            # As it is now: torch.func.functional_call takes parameters away again, FSDP frees what it gathered.
            if call.evidence is None and call.is_plain:
                call.gain = self.gain.of_this_call(module, x.dim())
        elif without_graph is not None:
            self._without_graph.setdefault(without_graph, deque()).append(call.row)
