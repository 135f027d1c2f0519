"""The run folder on disk: Arrow segments while it grows, one Parquet file a table when it is finished.

    run/
      manifest.json                 metadata, status, schema version (temp file + rename)
      lock, lock-r1 ...             held by the processes that write
      segments/norms-r0-a0.arrows   one Arrow IPC stream a table, rank and attempt; one batch a recorded step
      norms.parquet                 after closing: the same stored columns, merged

A batch is one write() call, so a killed process loses at most the step it was writing: the reader takes every
whole batch and stops at a torn one. An attempt that starts at step s replaces all earlier rows from s on.

Several processes may write one run, each its own segments; none waits for another. The first one writes the manifest;
the last one to close leaves the Parquet files.
"""

import functools
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from gradlens.errors import RecordingError
from gradlens.recording.folder import (
    EXTRA,
    FINISHED,
    arrow_schema,
    being_written,
    claim,
    read_manifest,
    refused,
    release,
    write_json,
)
from gradlens.recording.own_file import OwnFile
from gradlens.recording.reading import attempts, read_stored, recorded_ranks
from gradlens.recording.schema import SCHEMA_VERSION, TABLES
from gradlens.recording.template import Template


class RunWriter:
    """Appends recorded steps to a run folder. One process a folder and rank, enforced by a lock.

    Args:
        folder: created where missing; an unfinished run in it gets a further attempt.
        meta: metadata for the manifest, which the process of rank 0 writes.
        rank: process rank, part of the segments' names.

    Raises:
        RecordingError: the folder holds something else, a finished run, or is being written by another process.
    """

    def __init__(self, folder: Path, meta: Mapping[str, Any], rank: int = 0) -> None:
        self.folder, self.rank = folder, rank
        self._files: dict[str, OwnFile] = {}
        self._failed: OSError | None = None
        self._templates: dict[str, Template | None] = {}
        self._lock = claim(folder, rank)
        try:
            before = read_manifest(folder) if (folder / "manifest.json").exists() else {}
            if before.get("status") in FINISHED:
                raise RecordingError(
                    f"A recording is never overwritten; {folder} holds a finished run ({before.get('label')!r}). "
                    "Choose another folder, or delete this one."
                )
            self.attempt = int(before.get("attempts", 0)) if rank == 0 else attempts(folder, rank)
            self.meta: dict[str, Any] = {**before, **meta, "schema": SCHEMA_VERSION, "status": "running"}
            self.meta["attempts"] = self.attempt + 1
            # First the manifest: a folder without one, but with anything else in it, is taken for somebody else's.
            self.annotate({})
            (folder / "segments").mkdir(exist_ok=True)
        except BaseException:
            release(self._lock)
            raise

    def annotate(self, meta: Mapping[str, Any]) -> None:
        """Add metadata; the process of rank 0 writes the manifest."""
        self.meta.update(meta)
        if self.rank == 0:
            write_json(self.folder / "manifest.json", self.meta)

    def append(self, table: str, columns: Mapping[str, Any]) -> None:
        """Append rows to one table, as one batch in one write.

        Args:
            table: name of the table.
            columns: stored columns, each an array or list of equal length.

        Raises:
            RecordingError: the disk refused it now or before; rows written until then are safe.
        """
        if self._failed is None:
            schema = arrow_schema(table) if table not in _SCHEMAS else _SCHEMAS[table]
            _SCHEMAS[table] = schema
            template = self._templates.get(table)
            message = template.fill(columns) if template is not None else None
            if message is None:
                arrays = [_array(columns[f.name], f.type) for f in schema]
                batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
                self._templates[table] = Template.of(batch, columns)
                message = memoryview(batch.serialize())
            try:
                self._file(table, schema).write(message)
                return
            except OSError as error:
                self._failed = error
        # After a torn write nothing may follow in the same stream: the reader stops there.
        raise RecordingError(refused(self.folder, self._failed)) from self._failed

    def _file(self, table: str, schema: pa.Schema) -> OwnFile:
        if table not in self._files:
            path = self.folder / "segments" / f"{table}-r{self.rank}-a{self.attempt}.arrows"
            self._files[table] = OwnFile(path)
            self._files[table].write(memoryview(schema.serialize()))
        return self._files[table]

    def close(self, status: str) -> None:
        """Set the final status; a finished run is compacted to one Parquet file a table."""
        if self._lock.closed:
            return
        whole = status in FINISHED and self._failed is None
        alone = self.rank == 0 and not any(self.folder.glob("lock-r*"))
        try:
            for file in self._files.values():
                file.close()
            tables = compact(self.folder) if whole and alone else []
            self.annotate({"status": status} | ({"tables": tables} if tables else {}))
            if whole and alone:
                _remove_segments(self.folder)
        finally:
            release(self._lock)
        if whole and not alone:
            _close_last(self.folder)


def _close_last(folder: Path) -> None:
    """Compact the run of several processes, if this was the last of them to close it."""
    status = read_manifest(folder).get("status") if (folder / "manifest.json").exists() else None
    if status not in FINISHED or being_written(folder):
        return
    try:
        lock = claim(folder)
    except RecordingError:
        return  # another one closed at the same moment and does it
    try:
        if (folder / "segments").exists():
            tables, manifest = compact(folder), read_manifest(folder)
            processes = {**manifest.get("processes", {}), "recorded": recorded_ranks(folder)}
            write_json(folder / "manifest.json", {**manifest, "processes": processes, "tables": tables})
            _remove_segments(folder)
    finally:
        release(lock)


def _remove_segments(folder: Path) -> None:
    """Remove the segments, all at once for a reader: while there are some, they are what it reads."""
    done = folder / "segments.done"
    (folder / "segments").rename(done)
    shutil.rmtree(done, ignore_errors=True)


_SCHEMAS: dict[str, pa.Schema] = {}


@functools.lru_cache(maxsize=256)
def _strings(values: tuple[str | None, ...]) -> pa.Array:
    """Names repeat from step to step; making them anew would be most of the cost of a write."""
    return pa.array([None if pd.isna(value) else value for value in values], type=pa.string())


def _array(values: Any, dtype: pa.DataType) -> pa.Array:
    if dtype == pa.string():
        return _strings(tuple(values))
    # A missing number stays NaN in a segment, which costs nothing, and becomes null in the Parquet file.
    return pa.array(values, type=dtype, from_pandas=dtype != pa.float64())


def compact(folder: Path) -> list[str]:
    """Write one Parquet file a table from the segments, each whole or not at all; return which tables there are."""
    written = []
    for table in TABLES:
        stored = read_stored(folder, table)
        if stored is None:
            continue
        described = {f.name: f for f in arrow_schema(table) if f != EXTRA}
        result = pa.Table.from_pandas(stored, preserve_index=False)
        result = result.cast(pa.schema([described.get(f.name, f) for f in result.schema]))
        temporary = folder / f"{table}.parquet.tmp"
        try:
            pq.write_table(result.replace_schema_metadata({"gradlens.schema": str(SCHEMA_VERSION)}), temporary)
            os.replace(temporary, folder / f"{table}.parquet")
            written.append(table)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise RecordingError(refused(folder, error)) from error
    return written
