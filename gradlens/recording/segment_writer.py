"""Writing one segment: a batch a write, each with the checksum of all that stands before it."""

import functools
import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from gradlens.recording.folder import Name
from gradlens.recording.own_file import OwnFile
from gradlens.recording.segment import BLANK, MARK, PREFIX, schema_of
from gradlens.recording.template import Template


class SegmentWriter:
    """Appends batches to a segment, each in one write.

    Args:
        folder: the run folder.
        name: whose segment it is.
        run: number of the run.
        before: segments of the process' earlier attempts, with their sizes.
    """

    def __init__(self, folder: Path, name: Name, run: str, before: Mapping[str, int]) -> None:
        self.path = folder / "segments" / f"{name}.arrows"
        own = {"gradlens.segment": str(name), "gradlens.run": run, "gradlens.before": json.dumps(dict(before))}
        self._schema = schema_of(name.table).with_metadata(own)
        self._header = self._schema.serialize().to_pybytes()
        #: CRC of all that was written.
        self.crc = zlib.crc32(self._header[PREFIX.size :])
        #: Called with the header and each batch, once that is written.
        self.on_written: Callable[[bytes, bytes], None] | None = None
        self._file: OwnFile | None = None
        self._template: Template | None = None
        self._told = 0

    def append(self, columns: Mapping[str, Any], wrote: Mapping[str, int]) -> None:
        """Append one batch.

        Args:
            columns: stored columns, each an array or list of equal length.
            wrote: of a step, every other table's CRC.

        Raises:
            OSError: the disk refused it.
        """
        told = _told(wrote)
        # Of another length what is told has another table in it: then the template has no room for it.
        template = self._template if len(told) == self._told else None
        self._append((template and template.fill(columns)) or self._new(columns, told), told)

    def append_rows(self, rows: pa.Table, wrote: Mapping[str, int]) -> None:
        """Append rows, of whichever steps, as one batch.

        Args:
            rows: stored columns.
            wrote: as for ``append``.

        Raises:
            OSError: the disk refused it.
        """
        told = _told(wrote)
        batch = pa.RecordBatch.from_arrays(
            [rows[name].combine_chunks() for name in self._schema.names], schema=self._schema
        )
        self._append(self._message(batch, told), told)

    def _append(self, message: bytearray, told: bytes) -> None:
        """Seal a message and write it."""
        at = message.index(MARK) + len(MARK)
        message[at + 26 : at + 26 + len(told)] = told
        message[at : at + 8] = BLANK
        crc = zlib.crc32(memoryview(message)[PREFIX.size :], self.crc)
        message[at : at + 8] = b"%08x" % crc
        if self._file is None:
            self._file = OwnFile(self.path)
            self._file.write(memoryview(self._header + message))
        else:
            self._file.write(memoryview(message))
        self.crc = crc
        if self.on_written is not None:
            self.on_written(self._header, bytes(message))  # a copy: the next batch is made of it

    def _new(self, columns: Mapping[str, Any], told: bytes) -> bytearray:
        """Return a batch as a message, and keep it as a template."""
        schema = self._schema
        batch = pa.RecordBatch.from_arrays([_array(columns[f.name], f.type) for f in schema], schema=schema)
        message = self._message(batch, told)
        self._template, self._told = Template.of(message, batch, columns), len(told)
        return message

    def _message(self, batch: pa.RecordBatch, told: bytes) -> bytearray:
        """Return a batch as a message with room for its CRC."""
        sink = pa.BufferOutputStream()
        seal = b"%s%s body=%012d%s;" % (MARK, BLANK, 0, told)
        pa.ipc.new_stream(sink, self._schema).write_batch(batch, custom_metadata={"gradlens": seal})
        message = bytearray(memoryview(sink.getvalue())[len(self._header) :])
        at, (_, length) = message.index(MARK) + len(MARK), PREFIX.unpack_from(message)
        message[at + 14 : at + 26] = b"%012d" % (len(message) - PREFIX.size - length)
        return message

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def _told(wrote: Mapping[str, int]) -> bytes:
    return b"".join(b" %s=%08x" % (table.encode(), crc) for table, crc in wrote.items())


@functools.lru_cache(maxsize=256)
def _strings(values: tuple[str | None, ...]) -> pa.Array:
    """Names repeat from step to step; making them anew would be most of the cost of a write."""
    return pa.array([None if pd.isna(value) else value for value in values], type=pa.string())


def _array(values: Any, dtype: pa.DataType) -> pa.Array:
    if dtype == pa.string():
        return _strings(tuple(values))
    # A missing number stays NaN in a segment, which costs nothing, and becomes null in the Parquet file.
    return pa.array(values, type=dtype, from_pandas=dtype != pa.float64() and not pa.types.is_map(dtype))
