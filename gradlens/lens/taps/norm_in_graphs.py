"""What the hooks of a normalization do while a graph is traced: the numbers are summed and added up in the graph."""

import copy
import inspect
from functools import partial
from typing import Any

from torch import Tensor, nn

from gradlens.lens import statistics
from gradlens.lens.compiling import GraphSums
from gradlens.lens.hook_state import HookState
from gradlens.lens.hooks import hook_gradient
from gradlens.lens.sites import Site
from gradlens.lens.statistics import GRAD_INPUT, GRAD_OUTPUT, Facts, Moments
from gradlens.lens.taps import norm_input
from gradlens.lens.taps.gains import Gain
from gradlens.lens.taps.proving import Proving
from gradlens.lens.taps.tap import Tap, fits, sizes
from gradlens.lens.taps.views import hook_traced_output
from gradlens.outputs import first_tensor
from gradlens.recognition.kinds import NormKind

_UNPROVED = (
    "its output depends on further tensors of its call, or on a factor of its gain, and in a compiled graph nothing "
    "shows how. Run it uncompiled"
)
_COMPUTED = "its gain is computed in a compiled graph: run the model uncompiled"


class NormTapInGraphs(Tap):
    """What a norm is taken for, and its hooks in compiled graphs."""

    def __init__(self, site: Site, state: HookState) -> None:
        super().__init__(site, state)
        assert site.taken is not None
        self._input_name, *_ = names = _parameters(site.module)
        self.proving = Proving(site.taken, names)
        self.gain = Gain(self.proving.kind, site.module, state)

    @property
    def kind(self) -> NormKind:
        """How the module normalizes."""
        assert self.proving.kind is not None
        return self.proving.kind

    @property
    def is_norm(self) -> bool:
        """Whether the module is taken for a norm."""
        return self.proving.kind is not None

    def _knows(self, kind: NormKind) -> None:
        """Take a kind that was found out."""
        self.gain.kind = kind

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

    def _trace(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Record a call; all in the second hook, for between two hooks of a checkpoint no state can be kept."""
        x, y = self._input_of(args, kwargs), first_tensor(output)
        if not self.is_norm or not isinstance(x, Tensor) or y is None:
            return
        if self._is_unproved(x, args, kwargs):
            self.unsupported(_UNPROVED)
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

    def _is_unproved(self, x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether what a trial showed of the module may not be what it does in this graph."""
        more = any(isinstance(one, Tensor) and one is not x for one in (*args, *kwargs.values()))
        return more or (self.kind.gain_factor != 1.0 and not self.proving.proved)

    def _traced_hooks(self, call: int, module: nn.Module, x: Tensor) -> tuple[Any, Any, Any]:
        """Return what to do without a gradient, and with those of output and input."""
        view, dims = self.kind.vectors(module, statistics.raised(x))
        _, width = sizes(view, dims)
        facts = norm_input.facts(self.kind, module, width, x.dtype)
        moments = norm_input.computed(self.kind, module, view, dims, width, x.dtype)
        peak = view.abs().amax()
        return (
            partial(self.traced.add_input, call, moments, peak, facts),
            partial(self._traced_grad_output, call, moments, peak, facts, module),
            partial(self._traced_grad_input, call, moments, peak, facts, module),
        )

    def untraceable(self) -> str:
        """Return what keeps its hooks out of compiled graphs; empty where nothing does."""
        return "" if self.gain.is_parameter(self.site.module) else _COMPUTED

    def rehearse(self, x: Tensor, y: Tensor) -> None:
        """Do on fake tensors all that is done in a graph; raises what dynamo would."""
        twin = copy.copy(self)
        twin.traced = GraphSums(self.state.device)
        begin, on_output, on_input = twin._traced_hooks(0, self.site.module, x)
        begin()
        on_output(y)
        on_input(x)

    def _traced_grad_output(
        self, call: int, of_input: Moments, peak: Tensor, facts: Facts, module: nn.Module, grad: Tensor
    ) -> None:
        view, dims = self.kind.vectors(module, statistics.raised(grad))
        moments = statistics.grad_output_moments(view, self.kind.gain(module, grad.dim()), dims)
        self.traced.add_gradient(GRAD_OUTPUT, call, of_input, moments, peak, facts)

    def _traced_grad_input(
        self, call: int, of_input: Moments, peak: Tensor, facts: Facts, module: nn.Module, grad: Tensor
    ) -> None:
        view, dims = self.kind.vectors(module, statistics.raised(grad))
        self.traced.add_gradient(GRAD_INPUT, call, of_input, statistics.moments(view, dims), peak, facts)


def _parameters(module: nn.Module) -> list[str]:
    """Return the names that a module is called with; the first is what a norm normalizes."""
    forward = getattr(type(module), "forward", None)
    names = list(inspect.signature(forward).parameters) if forward is not None else []
    return names[1:] or ["input"]


def _known(x: Tensor) -> tuple[int, ...]:
    """Return the sizes of a tensor in a graph that is traced; -1 for one that may be another in the next call."""
    from torch.fx.experimental.symbolic_shapes import has_static_value

    return tuple([size if has_static_value(size) else -1 for size in x.shape])
