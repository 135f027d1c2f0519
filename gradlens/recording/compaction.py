"""Compaction while a run is written: another thread lays out as Parquet what the segments hold, beside them.

Closing then has only the rest to do. The segments stay as they are until the Parquet files are whole and named in the
manifest, so that a kill at any time costs what it would cost without: nothing that was acknowledged. What it leaves of
unfinished files nobody reads, and the next attempt removes. Where anything goes wrong here, closing reads the segments.
"""

import contextlib
import functools
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from math import inf
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gradlens.recording.attempts import BY_STEP
from gradlens.recording.derive import merge
from gradlens.recording.history import expanded
from gradlens.recording.schema import STORED, TABLES
from gradlens.recording.stream import Stream

#: Bytes of batches that the other thread begins with; where it falls behind by so many, it is given up.
_CHUNK, _MOST = 2 << 20, 64 << 20
#: Rows of a row group.
_GROUP = 32_768
SUFFIX = ".part"

#: From rows as stored to rows as they stand in the Parquet file.
Describe = Callable[[str, pa.Table], pa.Table]


class Compaction:
    """Of a run that one process writes.

    Args:
        folder: the run folder.
        describe: gives rows the types and meanings of their columns.
        earlier: returns what earlier attempts wrote of steps below one; None where there is none.
    """

    def __init__(self, folder: Path, describe: Describe, earlier: Callable[[float], Stream] | None = None) -> None:
        self._folder, self._describe, self._earlier = folder, describe, earlier
        #: Table to the header of its stream, and to its batches since the last chunk.
        self._headers: dict[str, bytes] = {}
        self._kept: dict[str, list[bytes]] = defaultdict(list)
        self._size = 0
        self._thread: threading.Thread | None = None
        #: Table to rows that are in no file yet, and to the file that holds those before.
        self._rows: dict[str, list[pa.Table]] = defaultdict(list)
        self._files: dict[str, pq.ParquetWriter] = {}
        self._failed = False

    def keep(self, table: str, header: bytes, batch: bytes) -> None:
        """Take a batch that was written; after a row of ``steps`` hand over what there is, if it is much."""
        if self._failed:
            self._kept.clear()
            return
        self._headers[table] = header
        self._kept[table].append(batch)
        self._size += len(batch)
        if table == "steps" and self._size >= _CHUNK:
            if self._thread is None or not self._thread.is_alive():
                kept, self._kept, self._size = self._kept, defaultdict(list), 0
                self._thread = threading.Thread(target=self._take, args=(kept,), name="gradlens", daemon=True)
                self._thread.start()
            elif self._size > _MOST:
                self._failed = True

    @property
    def began(self) -> bool:
        """Whether there is anything that closing need not do."""
        return self._thread is not None and not self._failed

    def _take(self, kept: Mapping[str, list[bytes]], *, rest: bool = False) -> None:
        """Take over a chunk: of whole steps, or the rest, whose last step may not be counted."""
        try:
            found = {table: self._read(table, batches) for table, batches in kept.items()}
            if self._earlier is not None:
                self._take_earlier(self._earlier, found)
                self._earlier = None
            for table, rows in found.items():
                self._add(table, rows, rest=rest)
        except Exception:
            self._failed = True

    def _read(self, table: str, batches: list[bytes]) -> pa.Table:
        rows = pa.ipc.open_stream(b"".join([self._headers[table], *batches])).read_all().combine_chunks()
        return rows.replace_schema_metadata()

    def _take_earlier(self, earlier: Callable[[float], Stream], found: Mapping[str, pa.Table]) -> None:
        """Take over the rows of earlier attempts that this one, which begins with these, does not replace."""
        begun = [rows["step"][0].as_py() for rows in found.values() if "step" in rows.schema.names and len(rows)]
        stream = earlier(min(begun, default=inf))
        steps = stream.steps()["step"].to_numpy()
        for table in TABLES:
            if table != "sites" or table not in self._headers:  # which each attempt writes anew
                for rows in stream.rows(table, steps):
                    self._add(table, rows)

    def _add(self, table: str, rows: pa.Table, *, rest: bool = False) -> None:
        """Take rows over; write them where there are many."""
        self._rows[table].append(rows)
        # Of the others there is little, and what they are merged with comes later.
        if not rest and table in BY_STEP and table != "steps" and sum(map(len, self._rows[table])) >= _GROUP:
            self._write(table)

    def _write(self, table: str) -> None:
        """Write a row group."""
        rows = self._described(table)
        if table not in self._files:
            path = self._folder / "segments" / f"{table}{SUFFIX}"
            self._files[table] = pq.ParquetWriter(path, rows.schema, write_page_checksum=True)
        self._files[table].write_table(rows)

    def _described(self, table: str) -> pa.Table:
        rows = pa.concat_tables(self._rows.pop(table))
        keys = [column.name for column in STORED[table] if column.merge == "key"]
        plain = table in BY_STEP and table != "steps"
        # A call may have run in a compiled graph and outside of one: two rows of one key.
        if not plain or rows.group_by(keys, use_threads=False).aggregate([]).num_rows < rows.num_rows:
            frame: pd.DataFrame = merge(table, expanded(rows.to_pandas(maps_as_pydicts=None)))
            rows = pa.Table.from_pandas(frame, preserve_index=False)
        for index, field in enumerate(rows.schema):
            if field.type == pa.float64():  # a missing number is NaN in a segment
                column = rows[field.name]
                rows = rows.set_column(index, field, pc.if_else(pc.is_nan(column), pa.scalar(None, field.type), column))
        return self._describe(table, rows)

    def finish(self, write: Callable[[Path, Callable[..., object]], None]) -> list[str] | None:
        """Leave one Parquet file a table.

        Args:
            write: writes a file so that it is always whole.

        Returns:
            The tables; None where something went wrong, and the segments are to be read.
        """
        if self._thread is not None:
            self._thread.join()
        self._take(self._kept, rest=True)
        if not self._failed:
            with contextlib.suppress(Exception):  # whatever it is, reading the segments will say it
                return self._finished(write)
        self.drop()
        return None

    def _finished(self, write: Callable[[Path, Callable[..., object]], None]) -> list[str]:
        last = max(pc.max(rows["step"]).as_py() for rows in self._rows["steps"])
        for table in BY_STEP:  # rows of a step that was begun and not counted are none
            self._rows[table] = [rows.filter(pc.less_equal(rows["step"], last)) for rows in self._rows[table]]
        written = [*self._files]
        for table in [table for table, rows in self._rows.items() if sum(map(len, rows))]:
            if table in self._files:
                self._write(table)
            else:
                path = self._folder / f"{table}.parquet"
                write(path, functools.partial(pq.write_table, self._described(table), write_page_checksum=True))
                written.append(table)
        for table, file in self._files.items():
            file.close()
            part = self._folder / "segments" / f"{table}{SUFFIX}"
            with part.open("rb") as whole:
                os.fsync(whole.fileno())
            part.replace(self._folder / f"{table}.parquet")
        return written

    def drop(self) -> None:
        """Give it up: closing reads the segments."""
        self._failed = True
        if self._thread is not None:
            self._thread.join()
        self._kept.clear()
        self._rows.clear()
        with contextlib.suppress(Exception):
            for file in self._files.values():
                file.close()
        remove_parts(self._folder)


def remove_parts(folder: Path) -> None:
    """Remove what was not finished."""
    with contextlib.suppress(OSError):
        for path in (folder / "segments").glob(f"*{SUFFIX}"):
            path.unlink(missing_ok=True)
