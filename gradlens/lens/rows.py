"""Where hooks put their sums: one row of a device buffer for each (site, call), one copy to the host a step."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from gradlens.lens.statistics import FORWARD_SUMS, GRAD_INPUT_SUMS, GRAD_OUTPUT_SUMS

#: Columns of a buffer's row, in order; "absmax" merges by maximum, everything else by addition.
COLUMNS = (
    *FORWARD_SUMS,
    "absmax",
    "vectors_grad_output",
    *GRAD_OUTPUT_SUMS,
    "vectors_grad_input",
    *GRAD_INPUT_SUMS,
)
_ABSMAX = COLUMNS.index("absmax")
_GRAD_OUTPUT = COLUMNS.index("vectors_grad_output")
_GRAD_INPUT = COLUMNS.index("vectors_grad_input")
_CHUNK = 64


@dataclass(eq=False)
class Row:
    """The sums of one call of one site in the current step; views of one line of a buffer.

    The host-side counts (vectors, width) are shapes, known without asking the device.
    """

    line: Tensor
    buffer: "RowBuffer"
    index: int
    vectors: int = 0
    width: int = 0
    recenters: bool = False
    used: bool = False
    #: Views, made once: indexing a tensor costs as much as a small kernel.
    forward: Tensor = field(init=False)
    absmax: Tensor = field(init=False)
    vectors_grad_output: Tensor = field(init=False)
    grad_output: Tensor = field(init=False)
    vectors_grad_input: Tensor = field(init=False)
    grad_input: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.forward = self.line[:_ABSMAX]
        self.absmax = self.line[_ABSMAX]
        self.vectors_grad_output = self.line[_GRAD_OUTPUT]
        self.grad_output = self.line[_GRAD_OUTPUT + 1 : _GRAD_INPUT]
        self.vectors_grad_input = self.line[_GRAD_INPUT]
        self.grad_input = self.line[_GRAD_INPUT + 1 :]

    def add_forward(self, sums: Tensor, absmax: Tensor, vectors: int, width: int) -> None:
        """Add one more tensor's forward sums, and note its shape."""
        self.forward.add_(sums)
        torch.maximum(self.absmax, absmax, out=self.absmax)
        self.vectors += vectors
        self.width = width
        self.used = True


class RowBuffer:
    """Rows for (tap, call) pairs on one device; grows by chunks, is read and cleared once a recorded step."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._chunks: list[Tensor] = []
        self._rows: list[Row] = []

    def new_row(self) -> Row:
        """Return the next free row, which stays its caller's for good."""
        index = len(self._rows) % _CHUNK
        if index == 0:
            dtype = torch.float32 if self.device.type == "mps" else torch.float64
            self._chunks.append(torch.zeros(_CHUNK, len(COLUMNS), dtype=dtype, device=self.device))
        row = Row(self._chunks[-1][index], self, len(self._rows))
        self._rows.append(row)
        return row

    def pull(self) -> np.ndarray:
        """Copy all lines to the host, [rows, columns], and set them to zero. The only copy of a step."""
        if not self._chunks:
            return np.zeros((0, len(COLUMNS)))
        together = torch.cat(self._chunks) if len(self._chunks) > 1 else self._chunks[0].clone()
        torch._foreach_zero_(self._chunks)
        return together.cpu().double().numpy()

    def clear_counts(self) -> None:
        """Forget the host-side counts of the step."""
        for row in self._rows:
            row.vectors = row.width = 0
            row.used = False
