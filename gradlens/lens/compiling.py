"""Lenses and torch.compile: sums that compiled graphs add to, and what must be done with graphs that exist already.

While a graph is traced, hooks may neither keep state (a checkpoint forbids it) nor call anything but operators. They
take their sums in the graph and add them to ``GraphSums``; which call of its module a hook stands for is counted
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
from gradlens.lens.statistics import COLUMNS, GRAD_INPUT, GRAD_OUTPUT, INPUT, MOMENTS, PHASES, Facts, Moments, sums

#: Calls of one site in one graph that are told apart; further ones are added to the last.
TRACED_CALLS = 32
_all: "WeakValueDictionary[str, GraphSums]" = WeakValueDictionary()
_numbers, _traced = itertools.count(), itertools.count(1)


class GraphSums:
    """Sums of the calls of one site inside compiled graphs, which add to them as they run.

    A tensor of its own a site: views of a shared one cannot be changed in a compiled graph. Made before any graph is
    traced, hence the fixed number of calls.
    """

    def __init__(self, device: torch.device) -> None:
        #: A text: an integer might be taken for a variable of the graph.
        self.key = f"sums {next(_numbers)}"
        _all[self.key] = self
        #: Whether some graph adds to them, how many calls the graph that was traced last has, and the most.
        self.in_graph = False
        self.trace: Any = None
        self.calls = self.most = 0
        #: When it was traced first: graphs are traced in the order of the forward pass.
        self.order = 0
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self.sums = torch.zeros(TRACED_CALLS, len(COLUMNS), dtype=dtype, device=device)
        self.peaks = torch.zeros(TRACED_CALLS, dtype=dtype, device=device)

    def add_input(self, call: int, moments: Moments, peak: Tensor, facts: Facts) -> None:
        """Add the sums of an input's moments."""
        self._add((INPUT,), call, moments, facts)
        self._raise(call, peak)

    def add_gradient(
        self, phase: int, call: int, of_input: Moments, moments: Moments, peak: Tensor, facts: Facts
    ) -> None:
        """Add the sums of one phase of the gradients, given the moments of the input.

        With the gradient of the output come those of the input: a forward pass without a backward one leaves nothing.
        """
        if phase == GRAD_INPUT:
            absent = (torch.zeros_like(of_input[0]),) * len(MOMENTS[GRAD_OUTPUT])
            self._add((GRAD_INPUT,), call, of_input + absent + moments, facts)
        else:
            self._add((INPUT, GRAD_OUTPUT), call, of_input + moments, facts)
            self._raise(call, peak)

    def _add(self, phases: tuple[int, ...], call: int, moments: Moments, facts: Facts) -> None:
        moments += (torch.zeros_like(moments[0]),) * (sum(map(len, MOMENTS)) - len(moments))
        added = sums(torch.stack([moment.flatten() for moment in moments]).unsqueeze(0), facts)
        place = slice(PHASES[phases[0]].start, PHASES[phases[-1]].stop)
        self.sums[call : call + 1, place].add_(added[:, place])

    def _raise(self, call: int, peak: Tensor) -> None:
        higher = torch.maximum(self.peaks[call : call + 1], peak.to(self.peaks.dtype))
        self.peaks[call : call + 1].copy_(higher)


def next_traced_call(key: str) -> int:
    """Count the calls of a site in the graph that is being traced; dynamo runs this while it traces."""
    site, trace = _all[key], torch._guards.CompileContext.current_trace_id()
    site.in_graph = True
    site.calls = site.calls + 1 if trace == site.trace else 0
    site.trace, site.most = trace, max(site.most, site.calls)
    site.order = site.order or next(_traced)
    return site.calls


# What torch.compiler.assume_constant_result sets; calling it would import the whole compiler.
next_traced_call._dynamo_marked_constant = True  # type: ignore[attr-defined]


class Added(NamedTuple):
    """What compiled graphs have added until a backward pass ended.

    Attributes:
        number: of the pass; -1 where none was seen.
        where: to what they added it.
        sums: [sites, calls, COLUMNS].
        peaks: [sites, calls].
    """

    number: int
    where: list[GraphSums]
    sums: Tensor
    peaks: Tensor


def take_traced(traced: list[GraphSums], number: int) -> Added:
    """Take the sums of compiled graphs and set them to zero; on the device."""
    calls = min(TRACED_CALLS, 1 + max(one.most for one in traced))
    added = torch.stack([one.sums[:calls] for one in traced])
    peaks = torch.stack([one.peaks[:calls] for one in traced])
    torch._foreach_zero_([tensor for one in traced for tensor in (one.sums, one.peaks)])
    return Added(number, traced, added, peaks)


def pull_traced(added: list[Added]) -> dict[GraphSums, tuple[np.ndarray, np.ndarray]]:
    """Copy to the host what passes that count have added, and add it up: [TRACED_CALLS, COLUMNS], [TRACED_CALLS]."""
    found = {
        traced: (np.zeros((TRACED_CALLS, len(COLUMNS))), np.zeros(TRACED_CALLS))
        for one in added
        for traced in one.where
    }
    for one in added:
        every_sum, every_peak = one.sums.cpu().double().numpy(), finite_peak(one.peaks.cpu().double().numpy())
        for traced, own, own_peaks in zip(one.where, every_sum, every_peak, strict=True):
            total, peaks = found[traced]
            total[: len(own)] += own
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
