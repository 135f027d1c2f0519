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
    """Hooks of one site."""

    def __init__(self, site: Site, switch: Switch) -> None:
        self.site = site
        self.switch = switch
        self.traced = TracedLines(switch.device)

    def row(self, tensor: Tensor) -> Row:
        """Return the row of the next call."""
        return self.switch.buffer(tensor.device).new_row(self, self.switch.forward)

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

    def new_call(self) -> None:  # noqa: B027
        """Let go of what an earlier step or micro-batch left."""

    def forward_failed(self) -> None:  # noqa: B027
        """Let go of what a forward pass left that raised."""

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
