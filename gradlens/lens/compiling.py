"""Lenses and torch.compile: lines that compiled graphs add to, and what must be done with graphs that exist already.

While a graph is traced, hooks may neither keep state (a checkpoint forbids it) nor call anything but operators. They
take their sums in the graph and add them to ``TracedLines``; which call of its module a hook stands for is counted
while tracing, and is a constant of the graph.
"""

import itertools
import sys
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor, nn

from gradlens.lens.rows import finite_peak
from gradlens.lens.statistics import CELLS, COLUMNS, PHASES, Facts, sums

#: Calls of one site in one graph that are told apart; further ones are added to the last.
TRACED_CALLS = 32
_all: "WeakValueDictionary[str, TracedLines]" = WeakValueDictionary()
_numbers = itertools.count()


class TracedLines:
    """Sums of the calls of one site inside compiled graphs, which add to them as they run.

    A tensor of its own a site: views of a shared one cannot be changed in a compiled graph. Made before any graph is
    traced, hence the fixed number of calls.
    """

    def __init__(self, device: torch.device) -> None:
        #: A text: an integer might be taken for a variable of the graph.
        self.key = f"lines {next(_numbers)}"
        _all[self.key] = self
        #: Whether some graph adds to the lines, and how many calls the graph that was traced last has.
        self.in_graph = False
        self.trace: Any = None
        self.calls = 0
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self.lines = torch.zeros(TRACED_CALLS, len(COLUMNS), dtype=dtype, device=device)
        self.peaks = torch.zeros(TRACED_CALLS, dtype=dtype, device=device)

    def begin(self, call: int, cells: tuple[Tensor, ...], x: Tensor, facts: Facts) -> None:
        """Add the sums of an input's moments."""
        self._add(0, call, cells, facts)
        peak = torch.maximum(self.peaks[call : call + 1], x.abs().amax().to(self.peaks.dtype))
        self.peaks[call : call + 1].copy_(peak)

    def put(self, phase: int, call: int, before: tuple[Tensor, ...], cells: tuple[Tensor, ...], facts: Facts) -> None:
        """Add the sums of one phase of the gradients, given the moments of the input before."""
        absent = (torch.zeros_like(before[0]),)
        self._add(phase, call, before + (absent * len(CELLS[1]) if phase == 2 else ()) + cells, facts)

    def _add(self, phase: int, call: int, cells: tuple[Tensor, ...], facts: Facts) -> None:
        cells += (torch.zeros_like(cells[0]),) * (sum(map(len, CELLS)) - len(cells))
        line = sums(torch.stack([cell.flatten() for cell in cells]).unsqueeze(0), facts)
        self.lines[call : call + 1, PHASES[phase]].add_(line[:, PHASES[phase]])


def next_traced_call(key: str) -> int:
    """Count the calls of a site in the graph that is being traced; dynamo runs this while it traces."""
    lines, trace = _all[key], torch._guards.CompileContext.current_trace_id()
    lines.in_graph = True
    lines.calls = lines.calls + 1 if trace == lines.trace else 0
    lines.trace = trace
    return lines.calls


# What torch.compiler.assume_constant_result sets; calling it would import the whole compiler.
next_traced_call._dynamo_marked_constant = True  # type: ignore[attr-defined]


def pull_traced(traced: list[TracedLines]) -> tuple[np.ndarray, np.ndarray]:
    """Copy the sums of compiled graphs to the host and set them to zero: [sites, calls, COLUMNS], [sites, calls]."""
    lines = torch.stack([one.lines for one in traced]).cpu().double().numpy()
    peaks = torch.stack([one.peaks for one in traced]).cpu().double().numpy()
    torch._foreach_zero_([tensor for one in traced for tensor in (one.lines, one.peaks)])
    return lines, finite_peak(peaks)


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the module inside of what torch.compile returned: hooks on the wrapper would not be compiled."""
    inner = getattr(model, "_orig_mod", None)
    return unwrapped(inner) if isinstance(inner, nn.Module) else model


def compiled_inside(model: nn.Module) -> list[str]:
    """Return the paths of modules that were compiled one by one."""
    return [
        path
        for path, module in model.named_modules()
        if getattr(module, "_compiled_call_impl", None) is not None or hasattr(module, "_orig_mod")
    ]


def forget_graphs() -> bool:
    """Drop the graphs that were compiled so far, if any: they would never see hooks that are registered now.

    They are compiled again at their next call.
    """
    dynamo: Any = sys.modules.get("torch._dynamo")
    if dynamo is None or not dynamo.convert_frame.input_codes.seen:
        return False
    dynamo.reset()
    return True
