"""Where hooks put their numbers, and how these become one line of sums for each (site, call) of a step."""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gradlens.lens.statistics import ABSENT, BACKWARD, CELLS, SUMS, sums

#: Columns of a line.
COLUMNS = (*SUMS, "absmax")


@dataclass(frozen=True)
class Shape:
    """What calls must share for their moments to be summed together."""

    vectors: tuple[int, ...]
    width: int
    dtype: torch.dtype
    eps: float
    centered: bool
    scaled: bool
    given: bool
    backward: bool


class Row:
    """One call of one site in the current step: its moments on the device, its shape on the host."""

    def __init__(self, buffer: "RowBuffer", index: int) -> None:
        self.buffer, self.index = buffer, index
        self.shape: Shape | None = None
        #: Size and dtype of the tensor that gave the shape: the same again needs no new one.
        self.seen: tuple[torch.Size, torch.dtype, bool] | None = None
        self.cells = torch.empty(0)
        self.vectors = self.width = 0
        self.recenters = self.used = False
        #: Moments that are not in the line yet: of the input, of the gradients.
        self.forward_pending = self.backward_pending = False

    def begin(self, shape: Shape) -> Tensor:
        """Make room for one more call's moments and return it, [CELLS, vectors...]."""
        if self.forward_pending or self.backward_pending:
            self.buffer.drain()
        if shape is not self.shape:
            self.shape = shape
            self.cells = torch.full(
                (len(CELLS), *shape.vectors), ABSENT, dtype=shape.dtype, device=self.buffer.device
            )
            self.backward_cells = self.cells[BACKWARD:]
        self.width = shape.width
        self.vectors += self.cells[0].numel()
        self.used = self.forward_pending = True
        return self.cells


class RowBuffer:
    """Rows and their lines of sums on one device; read and cleared once a recorded step."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        # Sums are kept in float64 wherever the device has it.
        self.dtype = torch.float32 if device.type == "mps" else torch.float64
        self.rows: list[Row] = []
        self._lines = torch.zeros(0, len(COLUMNS), dtype=self.dtype, device=device)

    def new_row(self) -> Row:
        """Return the next free row, which stays its caller's for good."""
        self.rows.append(Row(self, len(self.rows)))
        return self.rows[-1]

    def drain(self) -> None:
        """Add all pending moments to their lines; on the device, without a copy to the host."""
        groups: dict[tuple[Shape, bool], list[Row]] = defaultdict(list)
        for row in self.rows:
            if (row.forward_pending or row.backward_pending) and row.shape is not None:
                groups[row.shape, row.forward_pending].append(row)
        if len(self.rows) > len(self._lines):
            more = torch.zeros(len(self.rows), len(COLUMNS), dtype=self.dtype, device=self.device)
            more[: len(self._lines)] = self._lines
            self._lines = more
        with torch.no_grad():
            for (shape, forward), rows in groups.items():
                self._drain_group(shape, forward, rows)

    def _drain_group(self, shape: Shape, forward: bool, rows: list[Row]) -> None:
        cells = torch.stack([row.cells for row in rows]).to(self.dtype).flatten(2)
        added, absmax = sums(
            cells, shape.width, shape.eps,
            centered=shape.centered, scaled=shape.scaled, given=shape.given, backward=shape.backward,
        )  # fmt: skip
        if not forward:
            added[:, : SUMS.index("vectors_grad_output")] = 0
        indices = torch.tensor([row.index for row in rows], device=self.device)
        lines = self._lines[indices]
        lines[:, :-1] += added
        lines[:, -1] = torch.maximum(lines[:, -1], absmax)
        self._lines[indices] = lines
        for row in rows:
            if shape.backward:
                row.backward_cells.fill_(ABSENT)
            row.forward_pending = row.backward_pending = False

    def pull(self) -> np.ndarray:
        """Copy all lines to the host, [rows, COLUMNS], and set them to zero. The only copy of a step."""
        self.drain()
        lines = self._lines.cpu().double().numpy().copy()
        self._lines.zero_()
        return lines

    def clear_counts(self) -> None:
        """Forget the host-side counts of the step."""
        for row in self.rows:
            row.vectors = row.width = 0
            row.used = False
