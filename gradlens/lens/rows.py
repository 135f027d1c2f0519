"""Where hooks put their numbers, and how these become one line of sums for each (site, call) of a step."""

from collections import defaultdict

import numpy as np
import torch
from torch import Tensor

from gradlens.lens.statistics import BACKWARD, CELLS, SUMS, new_cells, sums

#: Columns of a line: sums, and the largest |entry| of the input.
COLUMNS = (*SUMS, "absmax")
_FORWARD = [i for i, name in enumerate(SUMS) if CELLS.index(name.removesuffix("²")) < BACKWARD]


class Row:
    """One call of one site in the current step: its moments on the device, its shape on the host."""

    def __init__(self, buffer: "RowBuffer", index: int) -> None:
        self.buffer, self.index = buffer, index
        #: Moments of the call, [CELLS, vectors...], and views of its parts: indexing costs as much as a small kernel.
        self.moments = self.backward_moments = torch.empty(0)
        self.cells: tuple[Tensor, ...] = ()
        #: Smallest and largest entry of the input.
        self.extremes: tuple[Tensor, Tensor] = (torch.empty(0), torch.empty(0))
        self.vectors = self.width = 0
        self.eps = 0.0
        self.centered = self.recenters = self.used = False
        #: Whether only mean and σ of the input are known, not its norm.
        self.from_sigma = False
        #: Moments that are not in the line yet: of the input, of the gradients.
        self.forward_pending = self.backward_pending = False

    def begin(self, vectors: tuple[int, ...], width: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """Make room for one more call's moments and return it, a tensor [vectors...] for each of CELLS."""
        if self.forward_pending or self.backward_pending:
            self.buffer.drain()
        if not self.cells or self.cells[0].shape != vectors or self.moments.dtype != dtype:
            self.moments = new_cells(vectors, dtype, self.buffer.device)
            self.backward_moments = self.moments[BACKWARD:]
            self.cells = self.moments.unbind()
            low, high = torch.zeros(2, dtype=dtype, device=self.buffer.device).unbind()
            self.extremes = (low, high)
        self.width = width
        self.vectors += self.cells[0].numel()
        self.used = self.forward_pending = True
        return self.cells


class RowBuffer:
    """Rows and their lines of sums on one device; read and cleared once a recorded step."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        # Sums over calls and micro-batches are kept in float64 wherever the device has it.
        self.dtype = torch.float32 if device.type == "mps" else torch.float64
        self.rows: list[Row] = []
        self._lines = torch.zeros(0, len(SUMS), dtype=self.dtype, device=device)
        self._absmax = torch.zeros(0, dtype=self.dtype, device=device)

    def new_row(self) -> Row:
        """Return the next free row, which stays its caller's for good."""
        self.rows.append(Row(self, len(self.rows)))
        return self.rows[-1]

    def drain(self) -> None:
        """Add all pending moments to their lines; on the device, without a copy to the host."""
        groups: dict[tuple[int, torch.dtype], list[Row]] = defaultdict(list)
        for row in self.rows:
            if row.forward_pending or row.backward_pending:
                groups[row.cells[0].numel(), row.moments.dtype].append(row)
        missing = len(self.rows) - len(self._lines)
        if missing:
            self._lines = torch.cat([self._lines, self._lines.new_zeros(missing, len(SUMS))])
            self._absmax = torch.cat([self._absmax, self._absmax.new_zeros(missing)])
        with torch.no_grad():
            for rows in groups.values():
                self._drain_group(rows)

    def _drain_group(self, rows: list[Row]) -> None:
        added = sums(torch.stack([row.moments.flatten(1) for row in rows])).to(self.dtype)
        low, high = torch.stack([end for row in rows for end in row.extremes]).view(-1, 2).unbind(1)
        absmax = torch.maximum(high, -low).to(self.dtype)
        # An infinity is no maximum: it is missing, like NaN, which a later maximum keeps.
        absmax = torch.where(torch.isfinite(absmax), absmax, torch.nan)
        for position, row in enumerate(rows):
            if not row.forward_pending:
                added[position, _FORWARD] = 0
            row.backward_moments.zero_()
            row.forward_pending = row.backward_pending = False
        indices = torch.tensor([row.index for row in rows], device=self.device)
        self._lines.index_add_(0, indices, added)
        self._absmax[indices] = torch.maximum(self._absmax[indices], absmax)

    def pull(self) -> np.ndarray:
        """Copy all lines to the host, [rows, COLUMNS], and set them to zero. The only copy of a step."""
        self.drain()
        together = torch.cat([self._lines, self._absmax.unsqueeze(1)], dim=1)
        self._lines.zero_()
        self._absmax.zero_()
        return together.cpu().double().numpy()

    def clear_counts(self) -> None:
        """Forget the host-side counts of the step."""
        for row in self.rows:
            row.vectors = row.width = 0
            row.used = False
