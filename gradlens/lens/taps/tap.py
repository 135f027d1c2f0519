"""What the taps of modules have in common: their site, their rows, their calls."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from gradlens.errors import GradlensError, one_line
from gradlens.lens.compiling import TRACED_CALLS, GraphSums, next_traced_call
from gradlens.lens.hook_state import HookState
from gradlens.lens.hooks import Hook
from gradlens.lens.moment_buffer import Row
from gradlens.lens.sites import Site
from gradlens.lens.world import placements

#: By the key of its sums in graphs.
_taps: "WeakValueDictionary[str, Tap]" = WeakValueDictionary()


class Tap(ABC):
    """Hooks of one site."""

    def __init__(self, site: Site, state: HookState) -> None:
        self.site = site
        self.state = state
        self.traced = GraphSums(state.device)
        #: Whether it gave up: nothing is recorded here any more, the step that is open included.
        self.silent = False
        #: Sizes for which its hooks can be traced into a graph.
        self.rehearsed: set[tuple[object, ...]] = set()
        _taps[self.traced.key] = self

    def hook(self, run: Callable[..., Any]) -> Hook:
        """Return a hook of this site, to be registered."""
        return Hook(run, self.failed)

    def failed(self, error: Exception) -> None:
        """Give up, for a hook of this site raised."""
        if torch.compiler.is_compiling():
            failed_in_graph(self.traced.key, str(error))
            return
        if self.state.guard.strict:
            raise GradlensError(f"A hook of the lens failed at {self.site.path}: {one_line(error)}.") from error
        self.give_up(f"a hook failed in step {self.state.step} ({one_line(error)}), and the site is silent since")

    def give_up(self, why: str) -> None:
        """Record nothing here from now on, and let the audit say why."""
        if not self.silent:
            self.unsupported(why)
        self.silent = True

    def unsupported(self, why: str) -> None:
        """Let the audit say why something is not recorded here."""
        self.state.observed.unsupported[self.site.path] = why

    def row(self, tensor: Tensor) -> Row:
        """Return the row of the next call."""
        return self.state.buffer(tensor.device).new_row(self, self.state.forward)

    def traced_call(self, tensor: Tensor) -> int | None:
        """Return the number of the next call in a graph that is being traced; None where it cannot be recorded."""
        if not torch.is_grad_enabled():
            return None
        if placements(tensor):
            self.unsupported("a DTensor in a compiled graph: run the model uncompiled")
            return None
        if not self.state.holds(self.site.path, tensor):
            return None
        if tensor.device != self.state.device:
            self.unsupported("the model was moved after attaching, and compiled: attach after")
            return None
        return min(next_traced_call(self.traced.key), TRACED_CALLS - 1)

    def settle(self) -> bool:
        """Return whether the rows of the step that ends now are of what they should be; asked once a step."""
        return True

    def new_call(self) -> None:  # noqa: B027
        """Let go of what an earlier step or micro-batch left."""

    def forward_failed(self) -> None:  # noqa: B027
        """Let go of what a forward pass left that raised."""

    def untraceable(self) -> str:
        """Return what keeps its hooks out of compiled graphs; empty where nothing does."""
        return ""

    def rehearse(self, x: Tensor, y: Tensor) -> None:
        """Do on fake tensors all that is done in a graph; raises what dynamo would."""
        raise NotImplementedError

    @abstractmethod
    def handles(self) -> list[RemovableHandle]:
        """Register the hooks and return their handles."""


def sizes(view: Tensor, dims: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """Return the sizes of the vector dimensions, and H."""
    entries = [dim % view.dim() for dim in dims]
    width = 1
    for dim in entries:
        width *= view.shape[dim]
    return tuple(size for dim, size in enumerate(view.shape) if dim not in entries), width


# What dynamo runs while it traces, with constants, and takes the result for one (as in ``compiling``).


def failed_in_graph(key: str, error: str) -> None:
    """Give up on a site whose hook raised while a graph was traced."""
    _taps[key].give_up(f"a hook failed while a graph was compiled ({error}), and the site is silent since")


def fits(key: str, x: tuple[int, ...], x_dtype: torch.dtype, y: tuple[int, ...], y_dtype: torch.dtype) -> bool:
    """Whether the hooks of a site can be traced for an input and output of these sizes: what dynamo meets it raises.

    Args:
        key: of the site's sums in graphs.
        x: sizes of the input, -1 for one that is not known.
        x_dtype: its precision.
        y: of the output.
        y_dtype: its precision.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    tap = _taps[key]
    if tap.silent:
        return False
    if tap.untraceable():
        tap.unsupported(tap.untraceable())
        return False
    case = (tap.site.norm, *(p.shape for p in tap.site.module.parameters()), x, x_dtype, y, y_dtype)
    if case in tap.rehearsed:
        return True
    device = tap.state.device
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            tap.rehearse(
                torch.empty([_SOME if size < 0 else size for size in x], dtype=x_dtype, device=device),
                torch.empty([_SOME if size < 0 else size for size in y], dtype=y_dtype, device=device),
            )
    except Exception as error:
        if tap.state.guard.strict:
            raise
        tap.give_up(f"a hook failed when a graph was compiled ({one_line(error)}), and the site is silent since")
        return False
    tap.rehearsed.add(case)
    return True


#: A size for what is not known.
_SOME = 4

failed_in_graph._dynamo_marked_constant = True  # type: ignore[attr-defined]
fits._dynamo_marked_constant = True  # type: ignore[attr-defined]
