"""What the taps of modules have in common: their site, their rows, their calls."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from gradlens.lens.compiling import TRACED_CALLS, TracedLines, next_traced_call
from gradlens.lens.rows import Row
from gradlens.lens.sites import Site
from gradlens.lens.switch import Switch
from gradlens.lens.world import placements


class Tap(ABC):
    """Hooks of one site. ``calls`` counts its calls in the step; row k belongs to call k."""

    def __init__(self, site: Site, switch: Switch) -> None:
        self.site = site
        self.switch = switch
        self.calls = 0
        self.rows: list[Row] = []
        self.traced = TracedLines(switch.device)

    def row(self, tensor: Tensor) -> Row:
        """Return the row of the next call."""
        if self.calls == len(self.rows):
            self.rows.append(self.switch.buffer(tensor.device).new_row())
        row = self.rows[self.calls]
        self.calls += 1
        return row.open(self.switch.forwards)

    def traced_call(self, tensor: Tensor) -> int | None:
        """Return the number of the next call in a graph that is being traced; None where it cannot be recorded."""
        if not torch.is_grad_enabled():
            return None
        if placements(tensor):
            self.switch.unsupported[self.site.path] = "a DTensor in a compiled graph: run the model uncompiled"
            return None
        if not self.switch.holds(self.site.path, tensor):
            return None
        if tensor.device != self.switch.device:
            self.switch.unsupported[self.site.path] = "the model was moved after attaching, and compiled: attach after"
            return None
        return min(next_traced_call(self.traced.key), TRACED_CALLS - 1)

    def settle(self) -> bool:
        """Return whether the rows of the step that ends now are of what they should be; asked once a step."""
        return True

    def new_call(self) -> None:
        """Start counting calls again, for a further step or micro-batch."""
        self.calls = 0

    def forward_failed(self, forward: int) -> None:
        """Take back the calls of a forward pass that raised, or whose backward pass did: it may be repeated.

        Args:
            forward: its number.
        """
        while self.calls and self.rows[self.calls - 1].forward == forward:
            self.calls -= 1
            self.rows[self.calls].cancel()

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
