"""Writing the same shape again and again: an Arrow message whose numbers are replaced in place.

From step to step a table keeps its rows and their names; only the numbers change. The message of the first step is
kept, with a view of each numeric column in it, so that a further step is a copy of numbers and one write.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

_NUMPY = {pa.int64(): np.int64, pa.float64(): np.float64}
#: What hardly ever changes from step to step.
_TEXTS = (pa.string(), pa.bool_())


class Template:
    """One serialized record batch, to be filled again.

    Args:
        message: the batch as it was written.
        schema: of the batch.
        columns: the values it was made of; its numeric columns hold no nulls.
    """

    def __init__(self, message: bytearray, schema: pa.Schema, columns: Mapping[str, Any]) -> None:
        self.message = message
        batch = pa.ipc.read_record_batch(pa.py_buffer(message), schema)
        self._rows = batch.num_rows
        self._names = {f.name: _names(columns[f.name]) for f in schema if f.type not in _NUMPY}
        self._maps = [f.name for f in schema if pa.types.is_map(f.type)]
        self._views = {
            field.name: _view(message, column.items if field.name in self._maps else column)
            for field, column in zip(schema, batch.columns, strict=True)
            if field.type in _NUMPY or field.name in self._maps
        }

    @classmethod
    def of(cls, message: bytearray, batch: pa.RecordBatch, columns: Mapping[str, Any]) -> "Template | None":
        """Return a template, or None where there is none: no rows, nulls, or columns of another kind."""
        maps = [c for column in batch.columns if pa.types.is_map(column.type) for c in (column, column.items)]
        known = all(f.type in _NUMPY or f.type in _TEXTS or pa.types.is_map(f.type) for f in batch.schema)
        numbers = [column for column in batch.columns if column.type in _NUMPY] + maps
        plain = known and batch.num_rows and not any(column.null_count for column in numbers)
        return cls(message, batch.schema, columns) if plain else None

    def fill(self, columns: Mapping[str, Any]) -> bytearray | None:
        """Return the message with these numbers, or None where names or the number of rows are others."""
        if any(_names(columns[name]) != names for name, names in self._names.items()):
            return None
        for name, view in self._views.items():
            values = columns[name]
            if name in self._maps:
                values = [number for pairs in values for number in pairs.values()]
            elif len(values) != self._rows:
                return None
            view[:] = values
        return self.message


def _names(values: Iterable[Any]) -> tuple[Any, ...]:
    """Return what a column holds besides numbers: its texts and flags, or the names in its maps."""
    return tuple(tuple(value) if isinstance(value, dict) else value for value in values)


def _view(message: bytearray, column: pa.Array) -> np.ndarray:
    """Return a column's numbers, to be written to, where they lie in the message."""
    dtype = _NUMPY[column.type]
    if not len(column):
        return np.empty(0, dtype)
    return np.frombuffer(message, dtype, len(column), column.buffers()[1].address - pa.py_buffer(message).address)
