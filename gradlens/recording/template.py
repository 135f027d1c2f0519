"""Writing the same shape again and again: an Arrow message whose numbers are replaced in place.

From step to step a table keeps its rows and their names; only the numbers change. The message of the first step is
kept, with a view of each numeric column in it, so that a further step is a copy of numbers and one write.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

_NUMPY = {pa.int64(): np.int64, pa.float64(): np.float64}


class Template:
    """One serialized record batch, to be filled again.

    Args:
        batch: what was written first; its numeric columns hold no nulls.
        columns: the values it was made of.
    """

    def __init__(self, batch: pa.RecordBatch, columns: Mapping[str, Any]) -> None:
        self.message = bytearray(batch.serialize())
        self._rows = batch.num_rows
        self._fixed = {f.name: tuple(columns[f.name]) for f in batch.schema if f.type not in _NUMPY}
        buffer = pa.py_buffer(self.message)
        inside = pa.ipc.read_record_batch(buffer, batch.schema)
        self._views = {
            field.name: np.frombuffer(
                self.message, _NUMPY[field.type], self._rows, column.buffers()[1].address - buffer.address
            )
            for field, column in zip(batch.schema, inside.columns, strict=True)
            if field.type in _NUMPY
        }

    @classmethod
    def of(cls, batch: pa.RecordBatch, columns: Mapping[str, Any]) -> "Template | None":
        """Return a template, or None where there is none: no rows, nulls, or columns of another kind."""
        plain = all(f.type in _NUMPY or f.type == pa.string() for f in batch.schema)
        nulls = any(column.null_count for column in batch.columns if column.type in _NUMPY)
        return cls(batch, columns) if plain and batch.num_rows and not nulls else None

    def fill(self, columns: Mapping[str, Any]) -> memoryview | None:
        """Return the message with these numbers, or None where names or the number of rows are others."""
        if any(tuple(columns[name]) != value for name, value in self._fixed.items()):
            return None
        for name, view in self._views.items():
            values = columns[name]
            if len(values) != self._rows:
                return None
            view[:] = values
        return memoryview(self.message)
