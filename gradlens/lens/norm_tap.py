"""The hooks of a normalization.

A forward pre-hook hands the module an alias of its input (``x.view_as(x)``) and hooks the alias' gradient: that is
the gradient through this module only, never the sum with a skip path. A forward hook hooks the output tensor. Both
see the right tensors before in-place operations, for keyword inputs, for composite norms and inside torch.compile.
A hook takes a few numbers a vector: no copy to the host, no branch on a value, no activation kept. While a graph is
traced, the same numbers are summed and added up in the graph.
"""

import inspect
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.utils.hooks import RemovableHandle

from gradlens.lens import norm_input, statistics
from gradlens.lens.hooks import Hook, hook_gradient, in_backward, is_batched, regions
from gradlens.lens.proving import Call, Proving
from gradlens.lens.rows import Row
from gradlens.lens.sites import Site
from gradlens.lens.statistics import Facts
from gradlens.lens.switch import Switch
from gradlens.lens.tap import Tap, sizes
from gradlens.lens.world import placements
from gradlens.outputs import first_tensor
from gradlens.recognition.kinds import NormKind
from gradlens.recognition.proof import gradient

_UNPROVED = (
    "its output depends on further tensors of its call, or on a factor of its gain, and in a compiled graph nothing "
    "shows how. Run it uncompiled"
)


class _Between:
    """What the first hook of a call leaves to the second: what to do with the gradient, an input to look up."""

    def __init__(self) -> None:
        self.hook: Any = None
        self.waiting: tuple[Row, Tensor] | None = None
        #: Whether the output will hold the moments of the input.
        self.look_up = False
        #: What the call has to prove.
        self.call: Call | None = None
        self.row: Row | None = None
        #: The tensor that it is multiplied by besides.
        self.gate: Tensor | None = None
        #: How its gradient lies.
        self.lies: tuple[Any, ...] = ()


class NormTap(Tap):
    """Forward and backward sums of one normalization."""

    def __init__(self, site: Site, switch: Switch) -> None:
        super().__init__(site, switch)
        assert site.taken is not None
        self._input_name, *_ = names = _parameters(site.module)
        self.proving = Proving(site.taken, names)
        #: Called when the kind is found that nobody knew.
        self.on_found: Callable[[Site], None] = lambda site: None
        #: Of its last input, and whether it ran in a backward pass: a checkpoint's second pass.
        self.dtype: torch.dtype | None = None
        self.ran_again = False
        #: Between the module's two hooks, by thread: what the second one has to do.
        self._between: dict[int, _Between] = {}
        #: Calls that ran without a graph, by region: a reentrant checkpoint runs them again in backward.
        self._without_graph: dict[int, deque[Row]] = {}
        self._registered: list[RemovableHandle] = []

    @property
    def kind(self) -> NormKind:
        """How the module normalizes."""
        assert self.proving.kind is not None
        return self.proving.kind

    @property
    def is_norm(self) -> bool:
        """Whether the module is taken for a norm."""
        return self.proving.kind is not None

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
        """Start counting calls again, for a further step or micro-batch."""
        super().new_call()
        self._without_graph.clear()

    def forward_failed(self, forward: int) -> None:
        """Take back the calls of a forward pass that raised, and let go of what it left."""
        super().forward_failed(forward)
        self._between.clear()

    @property
    def inside(self) -> bool:
        """Whether this thread is between the hooks of a norm: what its own body calls is seen already."""
        return self.is_norm and threading.get_ident() in self._between

    def handles(self) -> list[RemovableHandle]:
        """Register the hooks and return their handles."""
        module = self.site.module
        self._registered = [
            module.register_forward_pre_hook(Hook(self.before), with_kwargs=True),
            module.register_forward_hook(Hook(self.after), with_kwargs=True),
        ]
        return self._registered

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Measure the input and hand on an alias whose gradient is hooked."""
        if not self.switch.recording or self.proving.over:
            return None
        if torch.compiler.is_compiling():
            return self._alias(args, kwargs) if torch.is_grad_enabled() else None
        between = self._between[threading.get_ident()] = _Between()
        if not self.switch.records(self.site.path):
            return None
        x = self._input_of(args, kwargs)
        if not self.is_norm and not (isinstance(x, Tensor) and x.is_floating_point() and x.dim()):
            return None
        if not isinstance(x, Tensor):
            self.switch.unsupported[self.site.path] = f"its input is a {type(x).__name__}, not a tensor"
            return None
        if x.is_nested:
            self.switch.unsupported[self.site.path] = "a nested tensor"
            return None
        if x.numel() == 0 or not self.switch.holds(self.site.path, x):
            return None
        if self.switch.world.size > 1 and self.is_norm and norm_input.split(self.kind, module, x):
            self.switch.unsupported[self.site.path] = "its vectors are split over processes"
            return None
        between.call = self.proving.begin(module, x, args, kwargs)
        if not self.is_norm and (between.call is None or not self.likely):
            return None  # at most a look at it: an alias would change the order in which its gradients are added
        hook = self._begin(module, x, between)
        if hook is None or not x.requires_grad:
            return None
        handed_on = self._alias(args, kwargs)
        alias = self._input_of(*handed_on)
        if between.call is not None:
            hook_gradient(alias, between.call.grad_input)
        hook_gradient(alias, hook)
        return handed_on

    def _input_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the argument that is normalized: the first, or the keyword of that name."""
        return args[0] if args else kwargs.get(self._input_name)

    def _alias(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the arguments with an alias in place of the input, so that its gradient is this module's alone."""
        x = self._input_of(args, kwargs)
        if not isinstance(x, Tensor) or not x.requires_grad:
            return args, kwargs
        if args:
            return (x.view_as(x), *args[1:]), kwargs
        return args, {**kwargs, self._input_name: x.view_as(x)}

    def after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Hook the gradient of the output."""
        if torch.compiler.is_compiling():
            if self.switch.recording and torch.is_grad_enabled():
                x = self._input_of(args, kwargs)
                if self.is_norm and self._is_unproved(x, args, kwargs):
                    self.switch.unsupported[self.site.path] = _UNPROVED
                    return
                self._trace(module, x, output)
            return
        between = self._between.pop(threading.get_ident(), None)
        if between is None:
            return
        y = first_tensor(output)
        if between.call is not None and (y is not None or not self.is_norm) and not self._proves(module, between, y):
            return
        if between.waiting is not None:
            self._measure(module, *between.waiting, output if between.look_up else None, between.gate)
            between.waiting = None
        if between.hook is None:
            return
        if y is None:
            why = f"its output is a {type(output).__name__} without a tensor"
            self.switch.unsupported[self.site.path] = why
        elif y.requires_grad:
            if between.call is not None:
                hook_gradient(y, between.call.grad_output)
            hook_gradient(y, between.hook)

    def _proves(self, module: nn.Module, between: _Between, y: Tensor | None) -> bool:
        """Hold the call against what the module is taken for; return whether it can be recorded."""
        call, before = between.call, self.proving.kind
        assert call is not None
        if between.waiting is None and between.hook is None and (before is not None or self.likely):
            return False
        call.on_verdict = partial(self._judged, between.row)
        recorded = self.proving.end(module, call, y)
        between.gate = call.gate
        if recorded and self.proving.kind != before:
            self.site = replace(self.site, norm=self.kind)
            if before is None:
                self.on_found(self.site)
        if recorded and between.hook is not None and between.row is not None:
            between.hook = self._grad_output_hook(module, between, call.x)
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
            self.switch.unsupported[self.site.path] = self.proving.refuted

    # ------------------------------------------------------------------ eager

    def _begin(self, module: nn.Module, x: Tensor, between: _Between) -> Any:
        """Begin a call; return what to do with the gradient of its input, None without a graph."""
        second_pass, graph = in_backward(), torch.is_grad_enabled()
        again, without_graph = regions() if second_pass or not graph else (None, None)
        if second_pass:
            self.ran_again = True
            # A checkpoint's second pass: its input is measured, and where the first pass had a graph it is hooked.
            waiting = self._without_graph.get(again) if again is not None else None
            if not waiting:
                return None
            row = waiting.popleft()
        else:
            row = self.row(x)
            between.look_up = self.is_norm and norm_input.keeps_moments(self.kind, module)
            if between.call is not None or between.look_up:
                between.waiting = row, x
            else:
                self._measure(module, row, x)
        if not graph:
            if without_graph is not None:
                self._without_graph.setdefault(without_graph, deque()).append(row)
            return None
        between.row, between.lies = row, placements(x)
        between.hook = self._grad_output_hook(module, between, x) if between.call is None else _nothing
        return partial(self._grad_input, between, row, row.generation, module, between.lies)

    def _grad_output_hook(self, module: nn.Module, between: _Between, x: Tensor) -> Any:
        """Return what to do with the gradient of the output."""
        # γ as it is now: torch.func.functional_call takes the parameters away again before backward.
        gain, row = self._gain(module, x.dim()), between.row
        assert row is not None
        if between.gate is not None:
            return partial(self._gated, row, row.generation, module, gain, between.lies, x.detach(), between.gate)
        return partial(self._grad_output, row, row.generation, module, gain, between.lies)

    def _measure(self, module: nn.Module, row: Row, x: Tensor, output: Any = None, gate: Tensor | None = None) -> None:
        self.dtype = x.dtype
        view, dims = self.kind.vectors(module, self._gated_input(x, gate))
        vectors, width = sizes(view, dims)
        cells = norm_input.saved(output, vectors, width)
        facts = norm_input.facts(self.kind, module, width, x.dtype, from_sigma=cells is not None)
        if cells is None:
            cells = norm_input.measured(self.kind, module, view, dims, width, x.dtype)
        row.begin(cells, (gate is None and self.switch.known_extremes(x)) or statistics.extremes(view), facts)

    def _grad_output(
        self, row: Row, generation: int, module: nn.Module, gain: Tensor | None, lies: tuple[Any, ...], grad: Tensor
    ) -> None:
        if not self.switch.root_seen:
            self.switch.arm()
        if not self._is_measurable(grad, lies):
            return
        view, dims = self.kind.vectors(module, statistics.raised(grad))
        row.put(1, statistics.grad_output_moments(view, gain, dims), generation)

    def _gated(
        self, row: Row, generation: int, module: nn.Module, gain: Tensor | None, lies: tuple[Any, ...],
        x: Tensor, gate: Tensor, grad: Tensor,
    ) -> None:  # fmt: skip
        """Do as ``_grad_output`` where the output, or what is normalized, is a product with a gate."""
        kind = self.kind
        assert kind.gate is not None
        if not kind.gate.first:
            factor, _ = kind.vectors(module, kind.gate.factor(gate))
            self._grad_output(row, generation, module, factor if gain is None else factor * gain, lies, grad)
            return
        self._grad_output(row, generation, module, gain, lies, grad)
        # What comes back went through the gate besides, where it may be lost: by the formula that was proved.
        h, dims = kind.vectors(module, self._gated_input(x, gate))
        g, _ = kind.vectors(module, statistics.raised(grad))
        h = h - h.mean(-1, keepdim=True) if kind.centered else h
        norm, eps = torch.linalg.vector_norm(h, dim=-1, keepdim=True), kind.eps(module, x.dtype)
        inverse = kind.inv_sigma(norm, h.shape[-1], eps)
        back = gradient(kind, g if gain is None else g * gain, h * inverse, norm, inverse, eps)
        row.put(2, statistics.moments(back, dims), generation)

    def _gated_input(self, x: Tensor, gate: Tensor | None) -> Tensor:
        """Return what is normalized: the input, or its product with a gate."""
        wide, own = statistics.raised(x), self.kind.gate
        return wide if gate is None or own is None or not own.first else wide * own.factor(gate)

    def _grad_input(
        self, between: _Between, row: Row, generation: int, module: nn.Module, lies: tuple[Any, ...], grad: Tensor
    ) -> None:
        if self.proving.over or not self.is_norm:
            return
        if between.gate is not None and self.kind.gate is not None and self.kind.gate.first:
            return  # that of its product is there already
        if not self._is_measurable(grad, lies):
            return
        view, dims = self.kind.vectors(module, statistics.raised(grad))
        row.put(2, statistics.moments(view, dims), generation)

    def _gain(self, module: nn.Module, ndim: int) -> Tensor | None:
        """Return γ, copied, for FSDP frees what it gathered; a parametrization is run again, and must give the same."""
        if not is_parametrized(module, self.kind.gain_name):
            gain = self.kind.gain(module, ndim)
            return gain if gain is None else gain.clone()
        cards = [self.switch.device] if self.switch.device.type == "cuda" else []
        with torch.random.fork_rng(cards):
            before = _random_state(cards)
            gain = self.kind.gain(module, ndim)
            if any(not torch.equal(a, b) for a, b in zip(before, _random_state(cards), strict=True)):
                self.switch.unsupported[self.site.path] = "its gain is drawn at random: its shares are of another draw"
        return gain

    def _is_measurable(self, grad: Tensor, lies: tuple[Any, ...]) -> bool:
        """Whether a gradient is one, and lies across processes as the input did; to bring it there would wait."""
        if is_batched(grad):
            self.switch.transformed.add(self.site.path)
            return False
        if placements(grad) == lies:
            return True
        self.switch.unsupported[self.site.path] = f"a gradient lies as {placements(grad)}, its input as {lies}"
        return False

    # ------------------------------------------------------------------ while a graph is traced

    def _trace(self, module: nn.Module, x: Any, output: Any) -> None:
        """Record a call; all in the second hook, for between two hooks of a checkpoint no state can be kept."""
        y = first_tensor(output)
        if not self.is_norm or not isinstance(x, Tensor) or y is None:
            return
        call = self.traced_call(x)
        if call is None:
            return
        view, dims = self.kind.vectors(module, statistics.raised(x))
        _, width = sizes(view, dims)
        facts = norm_input.facts(self.kind, module, width, x.dtype)
        cells = norm_input.measured(self.kind, module, view, dims, width, x.dtype)
        self.traced.begin(call, cells, view, facts)
        if y.requires_grad:
            hook_gradient(y, partial(self._traced_grad_output, call, cells, facts, module))
        if x.requires_grad:
            hook_gradient(x, partial(self._traced_grad_input, call, cells, facts, module))

    def _is_unproved(self, x: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether what a trial showed of the module may not be what it does in this graph."""
        more = any(isinstance(one, Tensor) and one is not x for one in (*args, *kwargs.values()))
        return more or (self.kind.gain_factor != 1.0 and not self.proving.proved)

    def _traced_grad_output(
        self, call: int, cells: tuple[Tensor, ...], facts: Facts, module: nn.Module, grad: Tensor
    ) -> None:
        view, dims = self.kind.vectors(module, statistics.raised(grad))
        moments = statistics.grad_output_moments(view, self.kind.gain(module, grad.dim()), dims)
        self.traced.put(1, call, cells, moments, facts)

    def _traced_grad_input(
        self, call: int, cells: tuple[Tensor, ...], facts: Facts, module: nn.Module, grad: Tensor
    ) -> None:
        view, dims = self.kind.vectors(module, statistics.raised(grad))
        self.traced.put(2, call, cells, statistics.moments(view, dims), facts)


def _random_state(cards: list[torch.device]) -> list[Tensor]:
    """Return the state of the host's random numbers, and of each card's."""
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(card) for card in cards)]


def _parameters(module: nn.Module) -> list[str]:
    """Return the names that a module is called with; the first is what a norm normalizes."""
    forward = getattr(type(module), "forward", None)
    names = list(inspect.signature(forward).parameters) if forward is not None else []
    return names[1:] or ["input"]


def _nothing(grad: Tensor) -> None:
    """Do nothing with a gradient: what to do is known only when the output is there."""
