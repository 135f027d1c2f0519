"""Where hooks put their moments, and how these become one line of sums for each (site, call) of a step.

A hook leaves N numbers of each moment in a ``Row``; they are summed for all rows together at the end of backward.
"""

from collections import defaultdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradlens.lens.statistics import CELLS, COLUMNS, PHASES, Facts, sums


class Row:
    """One call of one site in the current step: its moments on the device, its facts on the host."""

    def __init__(self, buffer: "RowBuffer", index: int) -> None:
        self.buffer, self.index = buffer, index
        self.facts = Facts(0)
        #: Smallest and largest entry of the input.
        self.extremes: tuple[Tensor, Tensor] | None = None
        #: Moments of each phase, and whether they wait to be summed.
        self.cells: list[tuple[Tensor, ...] | None] = [None, None, None]
        self.pending = [False, False, False]
        #: Phases whose gradient came with a graph of its own (``create_graph``). What comes later holds derivatives of
        #: that gradient, too, and is no first-order gradient.
        self.settled = [False, False, False]
        #: Which forward pass has the row now; gradients of an earlier one are not its own.
        self.generation = 0
        self.forward = -1
        #: Whether it holds something of this step, and whether some of that is summed already.
        self.used = self.drained = False

    def open(self, forward: int) -> "Row":
        """Give the row to a new call, in the forward pass of this number."""
        self.generation += 1
        self.forward = forward
        self.settled = [False, False, False]
        return self

    def begin(self, cells: tuple[Tensor, ...], extremes: tuple[Tensor, Tensor], facts: Facts) -> None:
        """Leave the moments of an input."""
        if any(self.pending):
            self.buffer.drain()
        self.extremes, self.facts = extremes, facts
        self.cells[0] = cells
        self.pending[0] = self.used = True

    def put(self, phase: int, cells: tuple[Tensor, ...], generation: int) -> None:
        """Leave the moments of a gradient, for the call that had the row in that generation."""
        if generation != self.generation:
            self.buffer.stale = self.buffer.stale or not self.settled[phase]
            return
        if self.settled[phase]:
            return
        if self.pending[phase]:
            self.buffer.drain()
        of_input = self.cells[0]
        if of_input is not None and cells[0].shape != of_input[0].shape:
            # Seen here, for once its moments lie beside those of others nobody knows whose fault it is.
            raise ValueError(f"gradients of {list(cells[0].shape)} vectors, for {list(of_input[0].shape)} of the input")
        self.cells[phase] = cells
        self.pending[phase] = self.used = True
        self.settled[phase] = torch.is_grad_enabled()

    def cancel(self) -> None:
        """Take a call back whose forward pass failed."""
        self.generation += 1
        self.cells, self.pending, self.used = [None, None, None], [False, False, False], self.drained


class RowBuffer:
    """Rows on one device; drained to sums at the end of backward, read once a recorded step."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.rows: list[Row] = []
        #: Whether gradients of an earlier forward pass came after a newer one had begun, and were left out.
        self.stale = False
        #: What was drained: rows, columns that came, sums [rows, COLUMNS], extremes [rows, 2].
        self._drained: list[tuple[list[int], np.ndarray, Tensor, Tensor]] = []

    def new_row(self) -> Row:
        """Return the next free row, which stays its caller's for good."""
        self.rows.append(Row(self, len(self.rows)))
        return self.rows[-1]

    def drain(self) -> None:
        """Turn all waiting moments into sums; on the device, without a copy to the host."""
        groups: dict[tuple[torch.Size, torch.dtype], list[Row]] = defaultdict(list)
        for row in self.rows:
            if any(row.pending) and row.cells[0] is not None:
                groups[row.cells[0][0].shape, row.cells[0][0].dtype].append(row)
        with torch.no_grad():
            for (shape, dtype), rows in groups.items():
                self._drain_group(rows, torch.zeros(shape, dtype=dtype, device=self.device))

    def _drain_group(self, rows: list[Row], zero: Tensor) -> None:
        cells = [
            cell
            for row in rows
            for phase, names in zip(row.cells, CELLS, strict=True)
            for cell in (phase or (zero,) * len(names))
        ]
        facts = torch.tensor([row.facts for row in rows], dtype=zero.dtype, device=self.device)
        stacked = torch.stack(cells).view(len(rows), -1, zero.numel())
        added = sums(stacked, Facts(*facts.unbind(1)))
        extremes = torch.stack([end for row in rows for end in row.extremes or ()]).view(-1, 2)
        came = np.zeros((len(rows), len(COLUMNS)), dtype=bool)
        for position, row in enumerate(rows):
            for phase, waiting in enumerate(row.pending):
                came[position, PHASES[phase]] = waiting
            # The input's moments stay: a graph that was retained may send further gradients.
            row.cells[1:] = [None, None]
            row.pending = [False, False, False]
            row.drained = True
        self._drained.append(([row.index for row in rows], came, added, extremes))

    def pull(self) -> tuple[np.ndarray, np.ndarray]:
        """Copy the step's sums to the host and forget them: [rows, COLUMNS], and max |input| [rows]. The only copy."""
        self.drain()
        lines, peaks = np.zeros((len(self.rows), len(COLUMNS))), np.zeros(len(self.rows))
        for indices, came, added, extremes in self._drained:
            lines[indices] += np.where(came, added.cpu().numpy(), 0.0)
            low, high = extremes.cpu().numpy().T
            peaks[indices] = np.maximum(peaks[indices], finite_peak(np.maximum(high, -low)))
        self._drained.clear()
        return lines, peaks

    def forget(self) -> None:
        """Begin a further step."""
        for row in self.rows:
            row.drained = False
            row.cancel()
            row.extremes = None


def finite_peak(peak: Any) -> Any:
    """Return max |x|, missing where it is infinite: an infinity is no maximum."""
    return np.where(np.isfinite(peak), peak, np.nan)
