"""The hooks of a normalization.

A forward pre-hook hands the module an alias of its input (``x.view_as(x)``) and hooks the alias' gradient: that is
the gradient through this module only, never the sum with a skip path. A forward hook hooks the output tensor. Both
see the right tensors before in-place operations, for keyword inputs, for composite norms and inside torch.compile.
A hook takes a few numbers a vector: no copy to the host, no branch on a value, no activation kept. While a graph is
traced, the same numbers are summed and added up in the graph.
"""

import copy
import inspect
import threading
from collections import deque
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gradlens.lens import norm_input, statistics
from gradlens.lens.compiling import TracedLines
from gradlens.lens.gains import Gain
from gradlens.lens.hooks import hook_gradient, in_backward, is_batched, regions
from gradlens.lens.rows import Row
from gradlens.lens.sites import Site
from gradlens.lens.statistics import Facts
from gradlens.lens.switch import Switch
from gradlens.lens.tap import Tap, fits, sizes
from gradlens.lens.views import hook_output, hook_traced_output
from gradlens.lens.world import placements
from gradlens.outputs import first_tensor

_COMPUTED = "its gain is computed in a compiled graph: run the model uncompiled"


class _Between:
    """What the first hook of a call leaves to the second: what to do with the gradient, an input to look up."""

    def __init__(self) -> None:
        #: Its row, the input, how that lies across processes, and γ where it was to be had before the module ran.
        self.begun: tuple[Row, Tensor, tuple[Any, ...], Tensor | None] | None = None
        self.waiting: tuple[Row, Tensor] | None = None


class NormTap(Tap):
    """Forward and backward sums of one normalization."""

    def __init__(self, site: Site, switch: Switch) -> None:
        super().__init__(site, switch)
        assert site.norm is not None
        self.kind = site.norm
        #: Of its last input, and whether it ran in a backward pass: a checkpoint's second pass.
        self.dtype: torch.dtype | None = None
        self.ran_again = False
        #: Between the module's two hooks, by thread: what the second one has to do.
        self._between: dict[int, _Between] = {}
        #: Calls that ran without a graph, by region: a reentrant checkpoint runs them again in backward.
        self._without_graph: dict[int, deque[Row]] = {}
        self._input_name = _first_parameter(site.module)
        self._gain = Gain(self.kind, site.module, switch)

    def new_call(self) -> None:
        """Let go of what an earlier step or micro-batch left."""
        self._without_graph.clear()

    def forward_failed(self) -> None:
        """Let go of what a forward pass left that raised."""
        self._between.clear()

    @property
    def inside(self) -> bool:
        """Whether this thread is between the module's two hooks: what its own body calls is seen already."""
        return threading.get_ident() in self._between

    def handles(self) -> list[RemovableHandle]:
        """Register the hooks and return their handles."""
        module = self.site.module
        return [
            module.register_forward_pre_hook(self.hook(self.before), with_kwargs=True),
            module.register_forward_hook(self.hook(self.after), with_kwargs=True),
            *self._gain.handles(self.hook),
        ]

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Measure the input and hand on an alias whose gradient is hooked."""
        if not self.switch.recording:
            return None
        if torch.compiler.is_compiling():
            return self._alias(args, kwargs) if torch.is_grad_enabled() else None
        if self.silent:
            return None
        between = self._between[threading.get_ident()] = _Between()
        if not self.switch.records(self.site.path):
            return None
        x = self._input_of(args, kwargs)
        if not isinstance(x, Tensor):
            self.switch.unsupported[self.site.path] = f"its input is a {type(x).__name__}, not a tensor"
            return None
        if x.is_nested:
            self.switch.unsupported[self.site.path] = "a nested tensor"
            return None
        if x.numel() == 0 or not self.switch.holds(self.site.path, x):
            return None
        if self.switch.world.size > 1 and self.kind.split(module, x):
            self.switch.unsupported[self.site.path] = "its vectors are split over processes"
            return None
        hook = self._begin(module, x, between)
        if hook is None or not x.requires_grad:
            return None
        handed_on = self._alias(args, kwargs)
        hook_gradient(self._input_of(*handed_on), hook, self.failed)
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
                self._trace(module, self._input_of(args, kwargs), output)
            return
        between = self._between.pop(threading.get_ident(), None)
        if between is None or self.silent:
            return
        if between.waiting is not None:
            self._measure(module, *between.waiting, output)
        if between.begun is None:
            return
        row, x, lies, gain = between.begun
        if not self._gain.is_parameter(module):
            gain = self._gain.of_this_call(module, x.dim())
        y = first_tensor(output)
        if y is None:
            why = f"its output is a {type(output).__name__} without a tensor"
            self.switch.unsupported[self.site.path] = why
        elif y.requires_grad:
            hook = partial(self._grad_output, row, row.generation, module, gain, lies)
            hook_output(y, x, hook, self.failed)

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
            if norm_input.keeps_moments(self.kind, module):
                between.waiting = row, x
            else:
                self._measure(module, row, x)
        if not graph:
            if without_graph is not None:
                self._without_graph.setdefault(without_graph, deque()).append(row)
            return None
        # A parameter as it is now: torch.func.functional_call takes it away again, FSDP frees what it gathered.
        gain = self._gain.of_this_call(module, x.dim()) if self._gain.is_parameter(module) else None
        lies = placements(x)
        between.begun = row, x, lies, gain
        return partial(self._grad_input, row, row.generation, module, lies)

    def _measure(self, module: nn.Module, row: Row, x: Tensor, output: Any = None) -> None:
        self.dtype = x.dtype
        view, dims = self.kind.vectors(module, statistics.raised(x))
        vectors, width = sizes(view, dims)
        cells = norm_input.saved(output, vectors, width)
        facts = norm_input.facts(self.kind, module, width, x.dtype, from_sigma=cells is not None)
        if cells is None:
            cells = norm_input.measured(self.kind, module, view, dims, width, x.dtype)
            kept = norm_input.rounded(output, vectors)
            cells = cells if kept is None else (*cells[:2], kept.to(cells[2].dtype))
        row.begin(cells, self.switch.known_extremes(x) or statistics.extremes(view), facts)

    def _grad_output(
        self, row: Row, generation: int, module: nn.Module, gain: Tensor | None, lies: tuple[Any, ...], grad: Tensor
    ) -> None:
        if not self._is_measurable(grad, lies):
            return
        view, dims = self.kind.vectors(module, statistics.raised(grad))
        row.put(1, statistics.grad_output_moments(view, gain, dims), generation)

    def _grad_input(self, row: Row, generation: int, module: nn.Module, lies: tuple[Any, ...], grad: Tensor) -> None:
        if not self._is_measurable(grad, lies):
            return
        view, dims = self.kind.vectors(module, statistics.raised(grad))
        row.put(2, statistics.moments(view, dims), generation)

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
        if not isinstance(x, Tensor) or y is None:
            return
        call = self.traced_call(x) if fits(self.traced.key, _known(x), x.dtype, _known(y), y.dtype) else None
        if call is None:
            return
        begin, on_output, on_input = self._traced_hooks(call, module, x)
        if y.requires_grad:
            hook_traced_output(y, x, on_output, self.failed)
        else:
            begin()
        if x.requires_grad:
            hook_gradient(x, on_input, self.failed)

    def _traced_hooks(self, call: int, module: nn.Module, x: Tensor) -> tuple[Any, Any, Any]:
        """Return what to do without a gradient, and with those of output and input."""
        view, dims = self.kind.vectors(module, statistics.raised(x))
        _, width = sizes(view, dims)
        facts = norm_input.facts(self.kind, module, width, x.dtype)
        cells = norm_input.measured(self.kind, module, view, dims, width, x.dtype)
        peak = view.abs().amax()
        return (
            partial(self.traced.begin, call, cells, peak, facts),
            partial(self._traced_grad_output, call, cells, peak, facts, module),
            partial(self._traced_grad_input, call, cells, peak, facts, module),
        )

    def untraceable(self) -> str:
        """Return what keeps its hooks out of compiled graphs; empty where nothing does."""
        return "" if self._gain.is_parameter(self.site.module) else _COMPUTED

    def rehearse(self, x: Tensor, y: Tensor) -> None:
        """Do on fake tensors all that is done in a graph; raises what dynamo would."""
        twin = copy.copy(self)
        twin.traced = TracedLines(self.switch.device)
        begin, on_output, on_input = twin._traced_hooks(0, self.site.module, x)
        begin()
        on_output(y)
        on_input(x)

    def _traced_grad_output(
        self, call: int, cells: tuple[Tensor, ...], peak: Tensor, facts: Facts, module: nn.Module, grad: Tensor
    ) -> None:
        view, dims = self.kind.vectors(module, statistics.raised(grad))
        moments = statistics.grad_output_moments(view, self.kind.gain(module, grad.dim()), dims)
        self.traced.put(1, call, cells, moments, peak, facts)

    def _traced_grad_input(
        self, call: int, cells: tuple[Tensor, ...], peak: Tensor, facts: Facts, module: nn.Module, grad: Tensor
    ) -> None:
        view, dims = self.kind.vectors(module, statistics.raised(grad))
        self.traced.put(2, call, cells, statistics.moments(view, dims), peak, facts)


def _first_parameter(module: nn.Module) -> str:
    """Return the name of what a norm normalizes when it is called with keywords."""
    forward = getattr(type(module), "forward", None)
    names = list(inspect.signature(forward).parameters) if forward is not None else []
    return names[1] if len(names) > 1 else "input"


def _known(x: Tensor) -> tuple[int, ...]:
    """Return the sizes of a tensor in a graph that is traced; -1 for one that may be another in the next call."""
    from torch.fx.experimental.symbolic_shapes import has_static_value

    return tuple([size if has_static_value(size) else -1 for size in x.shape])
