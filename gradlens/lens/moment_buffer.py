"""Where hooks put their moments, and how these become sums.

A hook leaves N numbers of each moment in a ``Row``; they are summed for all rows together at the end of backward. Sums
of different passes are kept apart until the step ends, for only then it is known which passes it consists of.
"""

import itertools
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gradlens.lens import first_tokens
from gradlens.lens.passes import Forward, Pass
from gradlens.lens.statistics import (
    GRAD_OUTPUT,
    INPUT,
    MOMENTS,
    SUMS,
    Facts,
    Moments,
    columns,
    grad_output_moments,
    raised,
    sums,
)
from gradlens.lens.statistics import moments as moments_of
from gradlens.native import core, vectors

#: The phase of each column.
_PHASE_OF = [phase for phase, names in enumerate(SUMS) for _ in names]
_UNKNOWN = Facts(0)
#: Puts calls and gradients into the order in which they come.
_clock = itertools.count()


class Call:
    """One call of one site in the current step, as long as its numbers are kept.

    Attributes:
        tap: of the site.
        forward: the forward pass that it was made in.
        order: when it began.
        returned: when its first gradient came; None before.
    """

    __slots__ = ("forward", "order", "returned", "tap")

    def __init__(self, tap: Any, forward: Forward) -> None:
        self.tap, self.forward, self.order = tap, forward, next(_clock)
        self.returned: int | None = None


class Row:
    """The moments of a call on the device, its facts on the host. Whoever may bring a gradient holds it.

    The native core keeps all moments in one block; torch keeps those of a phase as tensors.
    """

    __slots__ = ("block", "buffer", "call", "extremes", "facts", "moments", "pending", "settled", "step", "vectors")

    def __init__(self, buffer: "MomentBuffer", call: Call) -> None:
        self.buffer, self.call, self.step = buffer, call, buffer.step
        self.facts = _UNKNOWN
        #: Smallest and largest entry of the input; in the block where there is one.
        self.extremes: tuple[Tensor, Tensor] | None = None
        #: Sizes of the vector dimensions; None before the input came.
        self.vectors: tuple[int, ...] | None = None
        self.block: Any = None
        #: Moments by phase, where there is no block; and of which pass those of each phase are that wait to be summed.
        self.moments: dict[int, Moments] = {}
        self.pending: list[int | None] = [None, None, None]
        #: Phases whose gradient came with a graph of its own (``create_graph``). What comes later holds derivatives of
        #: that gradient, too, and is no first-order gradient.
        self.settled: tuple[int, ...] = ()

    def keep_input(self, moments: Moments, extremes: tuple[Tensor, Tensor], facts: Facts) -> None:
        """Keep the moments of an input."""
        self.extremes, self.facts = extremes, facts
        self.moments[INPUT], self.vectors = moments, tuple(moments[0].shape)
        self.pending[INPUT] = -1
        self.buffer.waiting.append(self)

    def keep_block(self, seen: vectors.Seen, block: Any, facts: Facts) -> None:
        """Keep the moments of an input that the native core has taken."""
        self.block, self.vectors, self.facts = block, seen.vectors, facts
        self.pending[INPUT] = -1
        self.buffer.waiting.append(self)

    def keep_gradient(self, phase: int, moments: Moments) -> None:
        """Keep the moments of a gradient."""
        if self._awaits(phase, tuple(moments[0].shape)):
            if self.block is None:
                self.moments[phase] = moments
            else:
                vectors.put(self.block, vectors.FIRST[phase], *moments)

    def measure_gradient(self, phase: int, grad: Tensor, dims: tuple[int, ...], gain: Tensor | None = None) -> None:
        """Take and keep the moments of a gradient.

        Args:
            phase: which one it is.
            grad: [vectors..., entries...], without its graph.
            dims: the entry dimensions.
            gain: γ for the gradient of an output, broadcastable to it; None where there is none.
        """
        seen = vectors.seen(grad, dims) if self.block is not None and core.takes(grad) else None
        if seen is None or not vectors.fits(seen, gain):
            wide = raised(grad)
            of_output = phase == GRAD_OUTPUT
            self.keep_gradient(phase, grad_output_moments(wide, gain, dims) if of_output else moments_of(wide, dims))
        elif self._awaits(phase, seen.vectors):
            vectors.moments(seen, grad, phase, self.block, gain)

    def _awaits(self, phase: int, shape: tuple[int, ...]) -> bool:
        """Whether a gradient that comes now is to be kept; makes room for it."""
        one = self.buffer.arm(self.call.forward)
        if self.step != self.buffer.step:
            self.buffer.stale = self.buffer.stale or phase not in self.settled
            return False
        if phase in self.settled:
            return False
        if self.pending[phase] is not None:
            self.buffer.drain([self])
        if self.pending == [None, None, None]:
            self.buffer.waiting.append(self)
            if self.block is not None:
                vectors.clear_gradients(self.block)
        if self.vectors is not None and shape != self.vectors:
            # Seen here, for once its moments lie beside those of others nobody knows whose fault it is.
            raise ValueError(f"gradients of {list(shape)} vectors, for {list(self.vectors)} of the input")
        self.pending[phase] = one.number
        if torch.is_grad_enabled():
            self.settled += (phase,)
        if self.call.returned is None:
            self.call.returned = next(_clock)
        return True


class Summed(NamedTuple):
    """What was summed together.

    Attributes:
        calls: one a row.
        passes: of each phase, [rows, phases]: the number of the pass; -1 for the input, -2 for what did not come.
        sums: [rows, COLUMNS].
        extremes: smallest and largest entry of the input, [rows, 2].
        tokens: of ``first_tokens``, [rows, its SUMS]; they come with grad_output. None where they are not asked for.
    """

    calls: list[Call]
    passes: np.ndarray
    sums: Any
    extremes: Any
    tokens: Any = None


class MomentBuffer:
    """Rows on one device; drained to sums at the end of backward, read once a recorded step.

    Args:
        device: where they are.
        arm: from a forward pass to the backward pass that goes through it now.
        lengths: of the step's sequences, where attention is watched.
    """

    def __init__(
        self, device: torch.device, arm: Callable[[Forward], Pass], lengths: Collection[int] | None = None
    ) -> None:
        self.device, self.arm, self._lengths = device, arm, lengths
        #: Counts recorded steps: a row of an earlier one takes no gradients.
        self.step = 0
        #: Rows with moments that are not summed yet.
        self.waiting: list[Row] = []
        #: Whether gradients came through a forward pass of an earlier step, and were left out.
        self.stale = False
        self._summed: list[Summed] = []

    def new_row(self, tap: Any, forward: Forward) -> Row:
        """Return the row of a call that begins."""
        return Row(self, Call(tap, forward))

    def forwards(self) -> set[Forward]:
        """Return the forward passes of the step that left something."""
        return {row.call.forward for row in self.waiting} | {call.forward for one in self._summed for call in one.calls}

    def drain_pass(self, one: Pass) -> None:
        """Turn into sums what a backward pass left, with the inputs of the forward passes that it went through."""
        self.drain([row for row in self.waiting if one.number in row.pending or row.call.forward in one.forwards])

    def drain(self, wanted: list[Row]) -> None:
        """Turn the waiting moments of rows into sums; on the device, without a copy to the host."""
        groups: dict[Any, list[Row]] = defaultdict(list)
        blocks: dict[Any, list[Row]] = defaultdict(list)
        for row in wanted:
            of_input = row.moments.get(INPUT)
            if row.block is not None:
                blocks[row.vectors if self._lengths else None].append(row)
            elif of_input is not None:
                groups[of_input[0].shape, of_input[0].dtype].append(row)
        with torch.no_grad():
            for (shape, dtype), rows in groups.items():
                self._drain_group(rows, torch.zeros(shape, dtype=dtype, device=self.device))
            for rows in blocks.values():
                self._drain_blocks(rows)
        self.waiting = [row for row in self.waiting if row.pending != [None, None, None]]

    def _drain_blocks(self, rows: list[Row]) -> None:
        blocks = [row.block for row in rows]
        totals, every, extremes = vectors.sums(blocks)
        facts = Facts(*np.array([row.facts for row in rows]).T)
        tokens, shape = None, rows[0].vectors
        if self._lengths and shape is not None:
            tokens = first_tokens.sums(torch.stack([*map(vectors.as_tensor, blocks)]), shape, self._lengths)
        self._take(rows, np.stack(columns(list(totals), every, facts), 1), extremes, tokens)

    def _drain_group(self, rows: list[Row], zero: Tensor) -> None:
        moments = [
            moment
            for row in rows
            for phase, names in enumerate(MOMENTS)
            for moment in row.moments.get(phase, (zero,) * len(names))
        ]
        facts = torch.tensor([row.facts for row in rows], dtype=zero.dtype, device=self.device)
        stacked = torch.stack(moments).view(len(rows), -1, zero.numel())
        added = sums(stacked, Facts(*facts.unbind(1)))
        extremes = torch.stack([end for row in rows for end in row.extremes or ()]).view(-1, 2)
        self._take(
            rows, added, extremes, first_tokens.sums(stacked, zero.shape, self._lengths) if self._lengths else None
        )

    def _take(self, rows: list[Row], added: Any, extremes: Any, tokens: Tensor | None) -> None:
        passes = np.array([[-2 if number is None else number for number in row.pending] for row in rows])
        for row in rows:
            # The input's moments stay: a graph that was retained may send further gradients.
            row.moments = {phase: moments for phase, moments in row.moments.items() if phase == INPUT}
            row.pending = [None, None, None]
        self._summed.append(Summed([row.call for row in rows], passes, added, extremes, tokens))

    def pull(self, counts: Callable[[Forward], bool]) -> list[Summed]:
        """Copy the step's sums to the host, begin a further step, and return them. The only copy.

        Args:
            counts: whether a forward pass is the step's: what waits of others is let go.
        """
        self.drain([row for row in self.waiting if counts(row.call.forward)])
        found = [
            one._replace(
                sums=_on_host(one.sums),
                extremes=_on_host(one.extremes),
                tokens=None if one.tokens is None else _on_host(one.tokens),
            )
            for one in self._summed
        ]
        self._summed, self.waiting, self.step = [], [], self.step + 1
        return found


def came(passes: np.ndarray, counted: Sequence[int]) -> np.ndarray:
    """Return which columns of sums are of the input, or of passes that count, [rows, COLUMNS]."""
    counts: np.ndarray = passes == -1
    for number in counted:
        counts |= passes == number
    columns: np.ndarray = counts[:, _PHASE_OF]
    return columns


def _on_host(values: Any) -> np.ndarray:
    found: np.ndarray = values.cpu().numpy() if isinstance(values, Tensor) else values
    return found


def finite_peak(peak: Any) -> Any:
    """Return max |x|, missing where it is infinite: an infinity is no maximum."""
    return np.where(np.isfinite(peak), peak, np.nan)
