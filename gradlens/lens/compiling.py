"""Lenses and torch.compile: lines that compiled graphs add to, and what must be done with graphs that exist already.

While a graph is traced, hooks may neither keep state (a checkpoint forbids it) nor call anything but operators. They
take their sums in the graph and add them to ``TracedLines``; which call of its module a hook stands for is counted
while tracing, and is a constant of the graph.
"""

import itertools
import sys
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor, nn

from gradlens.lens.moment_buffer import finite_peak
from gradlens.lens.statistics import CELLS, COLUMNS, PHASES, Facts, sums

#: Calls of one site in one graph that are told apart; further ones are added to the last.
TRACED_CALLS = 32
_all: "WeakValueDictionary[str, TracedLines]" = WeakValueDictionary()
_numbers, _traced = itertools.count(), itertools.count(1)


class TracedLines:
    """Sums of the calls of one site inside compiled graphs, which add to them as they run.

    A tensor of its own a site: views of a shared one cannot be changed in a compiled graph. Made before any graph is
    traced, hence the fixed number of calls.
    """

    def __init__(self, device: torch.device) -> None:
        #: A text: an integer might be taken for a variable of the graph.
        self.key = f"lines {next(_numbers)}"
        _all[self.key] = self
        #: Whether some graph adds to the lines, how many calls the graph that was traced last has, and the most.
        self.in_graph = False
        self.trace: Any = None
        self.calls = self.most = 0
        #: When it was traced first: graphs are traced in the order of the forward pass.
        self.order = 0
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self.lines = torch.zeros(TRACED_CALLS, len(COLUMNS), dtype=dtype, device=device)
        self.peaks = torch.zeros(TRACED_CALLS, dtype=dtype, device=device)

    def begin(self, call: int, cells: tuple[Tensor, ...], peak: Tensor, facts: Facts) -> None:
        """Add the sums of an input's moments."""
        self._add((0,), call, cells, facts)
        self._raise(call, peak)

    def put(
        self, phase: int, call: int, before: tuple[Tensor, ...], cells: tuple[Tensor, ...], peak: Tensor, facts: Facts
    ) -> None:
        """Add the sums of one phase of the gradients, given the moments of the input before.

        With the gradient of the output come those of the input: a forward pass without a backward one leaves nothing.
        """
        absent = (torch.zeros_like(before[0]),)
        phases = (2,) if phase == 2 else (0, 1)
        self._add(phases, call, before + (absent * len(CELLS[1]) if phase == 2 else ()) + cells, facts)
        if phase == 1:
            self._raise(call, peak)

    def _add(self, phases: tuple[int, ...], call: int, cells: tuple[Tensor, ...], facts: Facts) -> None:
        cells += (torch.zeros_like(cells[0]),) * (sum(map(len, CELLS)) - len(cells))
        line = sums(torch.stack([cell.flatten() for cell in cells]).unsqueeze(0), facts)
        place = slice(PHASES[phases[0]].start, PHASES[phases[-1]].stop)
        self.lines[call : call + 1, place].add_(line[:, place])

    def _raise(self, call: int, peak: Tensor) -> None:
        higher = torch.maximum(self.peaks[call : call + 1], peak.to(self.peaks.dtype))
        self.peaks[call : call + 1].copy_(higher)


def next_traced_call(key: str) -> int:
    """Count the calls of a site in the graph that is being traced; dynamo runs this while it traces."""
    lines, trace = _all[key], torch._guards.CompileContext.current_trace_id()
    lines.in_graph = True
    lines.calls = lines.calls + 1 if trace == lines.trace else 0
    lines.trace, lines.most = trace, max(lines.most, lines.calls)
    lines.order = lines.order or next(_traced)
    return lines.calls


# What torch.compiler.assume_constant_result sets; calling it would import the whole compiler.
next_traced_call._dynamo_marked_constant = True  # type: ignore[attr-defined]


class Taken(NamedTuple):
    """What compiled graphs have added until a backward pass ended.

    Attributes:
        number: of the pass; -1 where none was seen.
        traced: where they added it.
        lines: [sites, calls, COLUMNS].
        peaks: [sites, calls].
    """

    number: int
    traced: list[TracedLines]
    lines: Tensor
    peaks: Tensor


def take_traced(traced: list[TracedLines], number: int) -> Taken:
    """Take the sums of compiled graphs and set them to zero; on the device."""
    calls = min(TRACED_CALLS, 1 + max(one.most for one in traced))
    lines = torch.stack([one.lines[:calls] for one in traced])
    peaks = torch.stack([one.peaks[:calls] for one in traced])
    torch._foreach_zero_([tensor for one in traced for tensor in (one.lines, one.peaks)])
    return Taken(number, traced, lines, peaks)


def pull_traced(taken: list[Taken]) -> dict[TracedLines, tuple[np.ndarray, np.ndarray]]:
    """Copy to the host what was taken of passes that count, and add it up: [TRACED_CALLS, COLUMNS], [TRACED_CALLS]."""
    found = {
        traced: (np.zeros((TRACED_CALLS, len(COLUMNS))), np.zeros(TRACED_CALLS))
        for one in taken
        for traced in one.traced
    }
    for one in taken:
        every_line, every_peak = one.lines.cpu().double().numpy(), finite_peak(one.peaks.cpu().double().numpy())
        for traced, own, own_peaks in zip(one.traced, every_line, every_peak, strict=True):
            lines, peaks = found[traced]
            lines[: len(own)] += own
            np.maximum(peaks[: len(own)], own_peaks, out=peaks[: len(own)])
    return found


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
