"""The writer of a run folder: Arrow segments while it grows, one Parquet file a table when it is finished.

A batch is one write() call, so a killed process loses at most the step it was writing: the reader takes every
whole batch and stops at a torn one. An attempt that starts at step s replaces all earlier rows from s on.

Several processes may write one run, each its own segments; none waits for another. The one of rank 0 writes the
manifest; the last one to close leaves the Parquet files.
"""

import contextlib
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gradlens.errors import RecordingError
from gradlens.recording.closing import complete, described
from gradlens.recording.compaction import Compaction, remove_parts
from gradlens.recording.folder import FINISHED, Name, agreed_run, read_manifest, refused, segments, write_json
from gradlens.recording.locks import claim, release
from gradlens.recording.schema import SCHEMA_VERSION
from gradlens.recording.segment_writer import SegmentWriter


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
        self._segments: dict[str, SegmentWriter] = {}
        self._failed: OSError | None = None
        self._compaction: Compaction | None = None
        self._lock = claim(folder, rank)
        try:
            before = read_manifest(folder) if (folder / "manifest.json").exists() else {}
            if before.get("status") in FINISHED:
                raise RecordingError(
                    f"A recording is never overwritten; {folder} holds a finished run ({before.get('label')!r}). "
                    "Choose another folder, or delete this one."
                )
            # A run of before there were checksums stays one.
            run = {} if before and "run" not in before else {"run": before.get("run") or agreed_run(folder)}
            self.meta: dict[str, Any] = {**before, **meta, **run, "schema": SCHEMA_VERSION, "status": "running"}
            (folder / "segments").mkdir(exist_ok=True)
            self._begin(int(before.get("attempts", 0)) if rank == 0 else 0)
            remove_parts(folder)
            # What several attempts or processes wrote is merged when all of it is there.
            if self.run and not segments(folder) and "processes" not in self.meta:
                self._compaction = Compaction(folder, functools.partial(described, self.run))
        except OSError as error:
            release(self._lock)
            raise RecordingError(refused(folder, error)) from error
        except BaseException:
            release(self._lock)
            raise

    @property
    def run(self) -> str:
        """Number of the run; empty for one that was begun before there were checksums."""
        return str(self.meta.get("run", ""))

    def _begin(self, attempt: int) -> None:
        """Begin this attempt, or the one after those that left segments."""
        earlier = {name: path.lstat().st_size for name, path in segments(self.folder).items() if name.rank == self.rank}
        self.attempt = max([attempt, *(name.attempt + 1 for name in earlier)])
        self._before = {str(name): size for name, size in earlier.items() if name.table == "steps"}
        self.annotate({"attempts": self.attempt + 1})

    def annotate(self, meta: Mapping[str, Any]) -> None:
        """Add metadata; the process of rank 0 writes the manifest.

        Raises:
            RecordingError: the disk refused it, or it cannot be JSON; nothing was added.
        """
        changed = {**self.meta, **meta}
        if self.rank == 0:
            write_json(self.folder / "manifest.json", changed)
        self.meta = changed

    def append(self, table: str, columns: Mapping[str, Any]) -> None:
        """Append rows to one table, as one batch in one write.

        Args:
            table: name of the table.
            columns: stored columns, each an array or list of equal length.

        Raises:
            RecordingError: the disk refused it now or before; rows written until then are safe.
        """
        if self._failed is None:
            if table not in self._segments:
                name = Name(self.attempt, self.rank, table)
                segment = self._segments[table] = SegmentWriter(self.folder, name, self.run, self._before)
                if self._compaction is not None:
                    segment.on_written = functools.partial(self._compaction.keep, table)
            try:
                self._segments[table].append(columns, self._wrote() if table == "steps" else {})
                return
            except OSError as error:
                self._failed = error
        # After a torn write nothing may follow in the same stream: the reader stops there.
        raise RecordingError(refused(self.folder, self._failed)) from self._failed

    def go_back(self) -> None:
        """Begin a further attempt: from its first step on, what it records replaces what was recorded before."""
        self._drop()
        for segment in self._segments.values():
            segment.close()
        self._segments.clear()
        self._begin(self.attempt + 1)

    def _wrote(self) -> dict[str, int]:
        """Return how far the other tables are: a row of ``steps``, written last, says which rows its step has."""
        return {table: segment.crc for table, segment in self._segments.items() if table != "steps"}

    def close(self, status: str) -> None:
        """Set the final status; the last one to close a finished run leaves one Parquet file a table."""
        if not self._lock.is_locked:
            return
        try:
            for segment in self._segments.values():
                segment.close()
            self.annotate({"status": status})
        finally:
            release(self._lock)
        whole = status in FINISHED and self._failed is None
        if not whole or (self._compaction is not None and not self._compaction.began):
            self._drop()
        if whole:
            with contextlib.suppress(FileNotFoundError):
                complete(self.folder, self._compaction)

    def _drop(self) -> None:
        """Compact nothing more."""
        if self._compaction is not None:
            self._compaction.drop()
            self._compaction = None
