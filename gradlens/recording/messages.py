"""Reading many Arrow messages of one shape at once.

From step to step a table keeps its rows and their names, and a segment its messages' layout: where the metadata of
successive messages are the same, each column's numbers lie at one place in all of them, a message apart.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
import pyarrow as pa

_NUMPY = {pa.int64(): np.int64, pa.float64(): np.float64}


class Message(NamedTuple):
    """Where a message lies, and its metadata but for the seal: the same object where it is that of the one before."""

    start: int
    end: int
    shape: bytes


def read_batches(
    data: pa.Buffer, schema: pa.Schema, messages: Sequence[Message]
) -> Iterator[tuple[pa.RecordBatch, int]]:
    """Read record batches, each of one message or of several successive ones.

    Args:
        data: what holds the messages.
        schema: of the batches.
        messages: in order.

    Yields:
        The batches and, of each, how many messages it is of.

    Raises:
        pa.ArrowException: one is no record batch.
    """
    for _, alike in groupby(messages, lambda message: (id(message.shape), message.end - message.start)):
        group = list(alike)
        first = _read(data, schema, group[0])
        together = _together(data, first, group) if len(group) > 1 else None
        if together is not None:
            yield together, len(group)
            continue
        yield first, 1
        yield from ((_read(data, schema, message), 1) for message in group[1:])


def _read(data: pa.Buffer, schema: pa.Schema, message: Message) -> pa.RecordBatch:
    batch = pa.ipc.read_record_batch(data.slice(message.start, message.end - message.start), schema)
    batch.validate(full=True)
    return batch


def _together(data: pa.Buffer, first: pa.RecordBatch, group: Sequence[Message]) -> pa.RecordBatch | None:
    """Return the rows of messages of one shape and length, one behind the other; None where texts or nulls differ."""
    start, length = group[0].start, group[0].end - group[0].start
    body = np.frombuffer(data, np.uint8, length * len(group), start).reshape(len(group), length)
    columns = [_spread(column, body, data.address + start) for column in first.columns]
    if any(column is None for column in columns):
        return None
    return pa.RecordBatch.from_arrays(columns, schema=first.schema)


def _spread(column: pa.Array, body: np.ndarray, address: int) -> pa.Array | None:
    """Return a column over all messages.

    Args:
        column: of the first.
        body: bytes [messages, length].
        address: of the first.
    """
    count = len(body)
    if pa.types.is_map(column.type):
        keys, items = (_spread(part, body, address) for part in (column.keys, column.items))
        if keys is None or items is None or column.null_count or not _same(column.buffers()[1:2], body, address):
            return None
        lengths = np.tile(np.diff(column.offsets.to_numpy()), count)
        offsets = pa.array(np.append(0, np.cumsum(lengths)).astype(np.int32))
        return pa.MapArray.from_arrays(offsets, keys, items).cast(column.type)
    if column.type in _NUMPY:
        if column.null_count:
            return None
        at = column.buffers()[1].address - address if len(column) else 0
        numbers = np.ascontiguousarray(body[:, at : at + 8 * len(column)])
        return pa.array(numbers.view(_NUMPY[column.type]).ravel())
    if not _same(column.buffers(), body, address):
        return None
    return column.take(pa.array(np.tile(np.arange(len(column)), count)))


def _same(buffers: Sequence[pa.Buffer | None], body: np.ndarray, address: int) -> bool:
    """Whether what lies at the place of buffers is the same in all messages."""
    parts = [body[:, b.address - address :][:, : b.size] for b in buffers if b is not None and b.size]
    return all(bool((part == part[0]).all()) for part in parts)
