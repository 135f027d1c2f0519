"""The writer of a run folder: Arrow segments while it grows, one Parquet file a table when it is finished.

A batch is one write() call, so a killed process loses at most the step it was writing: the reader takes every
whole batch and stops at a torn one. An attempt that starts at step s replaces all earlier rows from s on.

Several processes may write one run, each its own segments; none waits for another. The one of rank 0 writes the
manifest; the last one to close leaves the Parquet files.
"""

import contextlib
import functools
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from gradlens.errors import RecordingError
from gradlens.recording.closing import complete, described
from gradlens.recording.compaction import Compaction, remove_parts
from gradlens.recording.folder import FINISHED, Name, agreed_run, read_manifest, refused, segments, write_json
from gradlens.recording.locks import claim, release
from gradlens.recording.schema import SCHEMA_VERSION
from gradlens.recording.segment_writer import SegmentWriter
from gradlens.recording.stream import stream_of
from gradlens.recording.thinning import Thinning, sweep


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
        #: Rows of ``sites`` that were written in this attempt of a run that is thinned.
        self._sites: list[Mapping[str, Any]] = []
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
            self._thinning: Thinning | None = None
            if self.run and meta.get("keep") == "thinned":
                sweep(folder, rank)
                self._thinning = Thinning(folder, self.run, rank)
                self._thinning.begin((self.attempt, 0))
            self._compact()
        except OSError as error:
            release(self._lock)
            raise RecordingError(refused(folder, error)) from error
        except BaseException:
            release(self._lock)
            raise

    def _compact(self) -> None:
        """Compact what is written from now on, and what earlier attempts wrote."""
        # What several processes wrote is merged when all of it is there; what is thinned is little in the end.
        ranks = {name.rank for name in segments(self.folder)}
        if self.run and self._thinning is None and "processes" not in self.meta and ranks <= {self.rank}:
            look = functools.partial(stream_of, self.folder, self.run, self.rank, before=(self.attempt, 0))
            earlier = (lambda end: look(end=end)) if ranks else None
            self._compaction = Compaction(self.folder, functools.partial(described, self.run), earlier)

    @property
    def run(self) -> str:
        """Number of the run; empty for one that was begun before there were checksums."""
        return str(self.meta.get("run", ""))

    def _begin(self, attempt: int) -> None:
        """Begin this attempt, or the one after those that left segments."""
        earlier = [name.attempt + 1 for name in segments(self.folder) if name.rank == self.rank]
        self.attempt, self._part = max([attempt, *earlier]), 0
        self._look_back()
        self.annotate({"attempts": self.attempt + 1})

    def _look_back(self) -> None:
        """Note how far the segments before are: what is missing of them later is missed."""
        self._before: dict[str, int] = {}
        for name, path in segments(self.folder).items():
            if name.rank == self.rank and name.table == "steps":
                with contextlib.suppress(FileNotFoundError):  # thinned meanwhile
                    self._before[str(name)] = path.lstat().st_size

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
            try:
                if self._thinning is not None:
                    self._append_in_parts(self._thinning, table, columns)
                else:
                    self._append(table, columns)
                return
            except OSError as error:
                self._failed = error
        # After a torn write nothing may follow in the same stream: the reader stops there.
        raise RecordingError(refused(self.folder, self._failed)) from self._failed

    def _append(self, table: str, columns: Mapping[str, Any]) -> None:
        if table not in self._segments:
            name = Name(self.attempt, self.rank, table, self._part)
            segment = self._segments[table] = SegmentWriter(self.folder, name, self.run, self._before)
            if self._compaction is not None:
                segment.on_written = functools.partial(self._compaction.keep, table)
        self._segments[table].append(columns, self._wrote() if table == "steps" else {})

    def _append_in_parts(self, thinning: Thinning, table: str, columns: Mapping[str, Any]) -> None:
        """Append rows of a run that is thinned; before those of a step a further part may begin."""
        if thinning.ends_before(table, columns["step"][0] if "step" in columns else None):
            self._end_part()
            self._part += 1
            self._look_back()
            if self._sites:  # where they are written last, all of them are read
                names = self._sites[0]
                self._append(
                    "sites", {name: [*chain.from_iterable(one[name] for one in self._sites)] for name in names}
                )
            thinning.begin((self.attempt, self._part))
        self._append(table, columns)
        if table == "sites":
            self._sites.append(columns)
        elif table == "steps":
            thinning.count(columns["step"][-1])

    def _end_part(self) -> None:
        for segment in self._segments.values():
            segment.close()
        self._segments.clear()

    def go_back(self) -> None:
        """Begin a further attempt: from its first step on, what it records replaces what was recorded before."""
        self._drop()
        self._end_part()
        self._sites.clear()
        self._begin(self.attempt + 1)
        self._compact()
        if self._thinning is not None:
            self._thinning.begin((self.attempt, 0))

    def _wrote(self) -> dict[str, int]:
        """Return how far the other tables are: a row of ``steps``, written last, says which rows its step has."""
        return {table: segment.crc for table, segment in self._segments.items() if table != "steps"}

    def close(self, status: str) -> None:
        """Set the final status; the last one to close a finished run leaves one Parquet file a table."""
        if not self._lock.is_locked:
            return
        try:
            if self._thinning is not None:
                self._thinning.stop()
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
