"""The rows of one process that count, a piece at a time: never all of a long run is in memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from pathlib import Path

import numpy as np
import pyarrow as pa

from gradlens.errors import RecordingError
from gradlens.recording.attempts import BY_STEP, Attempt, read_attempts
from gradlens.recording.folder import arrow_schema, path_of
from gradlens.recording.history import as_today
from gradlens.recording.segment import pieces
from gradlens.recording.thinned import Thinned

#: What is kept of all segments while rows are chosen.
_LOOK = ("step", "reason", "seconds")


@dataclass(frozen=True)
class Stream:
    """What one process wrote.

    Attributes:
        folder: the run folder.
        run: number of the run.
        attempts: of the process, in order; of their rows only those columns that rows are chosen by.
        thinned: what was thinned of it before.
        end: a step; it and later ones are left out.
    """

    folder: Path
    run: str
    attempts: list[Attempt]
    thinned: Thinned | None
    end: float = inf

    def steps(self) -> pa.Table:
        """Return the rows of ``steps`` that count, as far as they are kept."""
        parts = [
            self._until(attempt, segment.rows)
            for attempt in self.attempts
            if (segment := attempt.segments.get("steps")) is not None and segment.rows is not None
        ]
        return pa.concat_tables(parts) if parts else arrow_schema("steps").empty_table().select(_LOOK)

    def rows(self, table: str, steps: np.ndarray) -> Iterator[pa.Table]:
        """Yield rows of a table in order, of these steps only where it has some of each step."""
        having = [attempt for attempt in self.attempts if table in attempt.segments and attempt.segments[table].crcs]
        schema = arrow_schema(table)
        for attempt in having if "step" in schema.names else having[-1:]:
            name = attempt.segments[table].name
            for piece in pieces(path_of(self.folder, name), name, self.run):
                rows = as_today(piece.replace_schema_metadata(), schema)
                if "step" in schema.names:
                    rows = self._until(attempt, rows)
                if table in BY_STEP:
                    rows = rows.filter(pa.array(np.isin(rows["step"].to_numpy(), steps)))
                if len(rows):
                    yield rows

    def _until(self, attempt: Attempt, rows: pa.Table) -> pa.Table:
        end = min(attempt.end, self.end)
        return rows if end == inf else rows.filter(pa.array(rows["step"].to_numpy() < end))


def stream_of(folder: Path, run: str, rank: int, *, before: tuple[int, int] | None = None, end: float = inf) -> Stream:
    """Look through what a process wrote.

    Args:
        folder: the run folder.
        run: number of the run.
        rank: of the process.
        before: an attempt and a part of it; that and later ones are left out.
        end: a step; it and later ones are left out.

    Raises:
        FileNotFoundError: a segment went away meanwhile.
        RecordingError: something is damaged; another way of reading may know what is left.
    """
    read = read_attempts(folder, run, columns=_LOOK, rank=rank, before=before)
    if read.damage:
        raise RecordingError(" ".join(read.damage))
    return Stream(folder, run, read.attempts, read.thinned.get(rank), end)


class Cursor:
    """Rows in order of their steps, taken up to one step after another.

    Args:
        rows: in pieces.
    """

    def __init__(self, rows: Iterator[pa.Table]) -> None:
        self._rows, self._rest = rows, next(rows, None)

    def until(self, step: float) -> pa.Table | None:
        """Return the rows that were not yet taken, up to those of a step; None where there are none.

        Raises:
            RecordingError: they are not in order.
        """
        taken: list[pa.Table] = []
        while self._rest is not None:
            steps = self._rest["step"].to_numpy()
            if (np.diff(steps) < 0).any():
                raise RecordingError("Rows must be in order of their steps to be thinned; they are not.")
            count = int(np.searchsorted(steps, step, side="right"))
            taken.append(self._rest.slice(0, count))
            if count < len(steps):
                self._rest = self._rest.slice(count)
                break
            self._rest = next(self._rows, None)
        rows = pa.concat_tables(taken).combine_chunks() if taken else None
        return rows if rows is not None and len(rows) else None
