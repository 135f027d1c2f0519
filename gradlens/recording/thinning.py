"""Thinning while a run is written: another thread leaves of old steps what stays, and says so.

An attempt is written in parts of some thousand steps. Of all parts but the newest ones, and of what was left before,
the steps that stay are written anew; once these segments are whole, one small file says that they stand for those
before, which are removed then. A reader, or who comes after a kill, finds either the one or the other.
"""

import contextlib
import os
import threading
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gradlens.recording.attempts import BY_STEP, Attempt
from gradlens.recording.folder import Name, path_of, segments
from gradlens.recording.schema import TABLES
from gradlens.recording.segment_writer import SegmentWriter
from gradlens.recording.stream import Cursor, Stream, stream_of
from gradlens.recording.thinned import WHOLE, Thinned, counts, firsts, near_events, span_of

#: Steps of a batch of what is left.
_GROUP = 64


class Thinning:
    """Of the run that a process writes.

    Args:
        folder: the run folder.
        run: number of the run.
        rank: of the process.
    """

    def __init__(self, folder: Path, run: str, rank: int) -> None:
        self._asked = (folder, run, rank)
        self._steps, self._last = 0, -inf
        self._thread: threading.Thread | None = None

    def count(self, step: int) -> None:
        """Count a step of the part that is written."""
        self._steps, self._last = self._steps + 1, max(step, self._last)

    def ends_before(self, table: str, step: Any) -> bool:
        """Whether the part that is written ends before rows of this step."""
        return self._steps >= WHOLE and table in BY_STEP and step > self._last

    def begin(self, place: tuple[int, int]) -> None:
        """Begin a part; thin what lies far enough before it, unless that is being done."""
        self._steps, self._last = 0, -inf
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._thin, args=(place,), name="gradlens", daemon=True)
            self._thread.start()

    def _thin(self, place: tuple[int, int]) -> None:
        # Where it is refused, or rows are damaged, all stays as it is, and is thinned with the next part.
        with contextlib.suppress(Exception):
            thin(*self._asked, place)

    def stop(self) -> None:
        """Wait for what is being done."""
        if self._thread is not None:
            self._thread.join()


def thin(folder: Path, run: str, rank: int, before: tuple[int, int]) -> None:
    """Thin what a process wrote, but for its last steps.

    Args:
        folder: the run folder.
        run: number of the run.
        rank: of the process.
        before: attempt and part that are being written.

    Raises:
        OSError: the disk refuses it; all is as it was.
        RecordingError: the same, or something is damaged.
    """
    stream = stream_of(folder, run, rank, before=before)
    old = _old(stream)
    if old:
        last = old[-1]
        first_whole = int(stream.attempts[len(old)].start)
        steps, span = _left(stream, first_whole)
        sweep(folder, rank)
        sizes = _write(replace(stream, attempts=old), steps, Name(last.number, rank, "steps", last.part, thinned=True))
        began = min(attempt.began for attempt in old if attempt.number == last.number)
        Thinned(last.number, last.part, int(began), first_whole, span, sizes).write(folder, rank)
        sweep(folder, rank)


def _old(stream: Stream) -> list[Attempt]:
    """Return what comes before the last steps, which stay whole; nothing where that was thinned already."""
    whole, attempts = 0, list(stream.attempts)
    while attempts and whole < WHOLE:
        newest = attempts.pop()
        recorded = replace(stream, attempts=[newest]).steps()["seconds"].to_numpy()
        whole += int((~np.isnan(recorded)).sum())
    return attempts if attempts and attempts[-1].thinned is None and newest.start < inf else []


def _left(stream: Stream, before: int) -> tuple[np.ndarray, int]:
    """Return the steps that are left of those before one, and how long a span is."""
    rows = stream.steps()
    steps, recorded = rows["step"].to_numpy(), ~np.isnan(rows["seconds"].to_numpy())
    # Of results between recorded steps there may be as many.
    bare = np.unique(steps[~recorded & (steps < before)])
    measured = steps[recorded]
    old = measured < before
    span = span_of(measured[old])
    stays = near_events(rows["reason"].to_numpy()[recorded])
    stays[old] |= firsts(measured[old], span)
    return np.union1d(measured[old & stays], bare[firsts(bare, span_of(bare))]), span


def _write(stream: Stream, steps: np.ndarray, name: Name) -> dict[str, int]:
    """Write what is left; return the sizes of the segments."""
    writers: dict[str, SegmentWriter] = {}

    def append(table: str, rows: pa.Table | None) -> None:
        if rows is not None:
            if table not in writers:
                writers[table] = SegmentWriter(stream.folder, name.of(table), stream.run, {})
            wrote = {other: writer.crc for other, writer in writers.items() if other != "steps"}
            writers[table].append_rows(rows, wrote if table == "steps" else {})

    for table in TABLES:
        if table not in BY_STEP and (parts := list(stream.rows(table, steps))):
            append(table, pa.concat_tables(parts))
    cursors = {table: Cursor(stream.rows(table, steps)) for table in BY_STEP}
    for group in range(0, len(steps), _GROUP):
        for table, cursor in cursors.items():  # steps last
            append(table, cursor.until(steps[group : group + _GROUP][-1]))
    sizes = {}
    for table, writer in writers.items():
        writer.close()
        with writer.path.open("rb") as whole:
            os.fsync(whole.fileno())
        sizes[str(name.of(table))] = path_of(stream.folder, name.of(table)).lstat().st_size
    return sizes


def sweep(folder: Path, rank: int) -> None:
    """Remove a process' segments that do not count any more, or not yet."""
    thinned = Thinned.read(folder, rank)
    for name, path in segments(folder).items():
        if name.rank == rank and not counts(name, thinned):
            path.unlink(missing_ok=True)
