"""Where recorded steps go: a run folder, or memory. Both take the same rows."""

from collections import defaultdict
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from gradlens.errors import RecordingError
from gradlens.recording import Recording, RunWriter, load
from gradlens.recording.derive import merge
from gradlens.recording.folder import refused
from gradlens.recording.history import expand_extra
from gradlens.recording.reading import next_step


class Sink(Protocol):
    """What a lens writes to.

    Attributes:
        lasting: whether what is written is there still when nobody holds the lens any more.
    """

    lasting: bool

    def append(self, table: str, columns: Mapping[str, Any]) -> None:
        """Append rows to one table."""

    def annotate(self, meta: Mapping[str, Any]) -> None:
        """Add metadata."""

    def next_step(self) -> int:
        """Return the number of the step after the last that is recorded."""

    def begin_attempt(self, step: int) -> None:
        """Let what follows replace rows from this step on."""

    def close(self, status: str) -> None:
        """Set the final status; further calls do nothing."""

    def recording(self) -> Recording:
        """Return what was recorded so far."""


class MemorySink:
    """Keeps rows in memory; for short recordings."""

    lasting = False

    def __init__(self, meta: Mapping[str, Any]) -> None:
        self.meta = {**meta, "status": "running"}
        self._rows: dict[str, list[Mapping[str, Any]]] = defaultdict(list)

    def append(self, table: str, columns: Mapping[str, Any]) -> None:
        """Append rows to one table."""
        self._rows[table].append(columns)

    def annotate(self, meta: Mapping[str, Any]) -> None:
        """Add metadata."""
        self.meta.update(meta)

    def next_step(self) -> int:
        """Return 0: a recording in memory begins with its lens."""
        return 0

    def begin_attempt(self, step: int) -> None:
        """Let what follows replace rows from this step on."""
        for table, appended in self._rows.items():
            if "step" in appended[0]:
                self._rows[table] = [rows for rows in appended if rows["step"][0] < step]

    def close(self, status: str) -> None:
        """Set the final status."""
        if self.meta["status"] == "running":
            self.meta["status"] = status

    def recording(self) -> Recording:
        """Return what was recorded so far."""
        stored = self.frames()
        if "steps" in stored:
            stored["steps"] = expand_extra(stored["steps"])
        return Recording(self.meta, stored)

    def frames(self) -> dict[str, pd.DataFrame]:
        """Return the stored tables as they were appended."""
        # A frame a table, not one a step: over thousands of steps that is seconds less.
        found = {
            table: pd.DataFrame({name: list(chain.from_iterable(row[name] for row in rows)) for name in rows[0]})
            for table, rows in self._rows.items()
            if rows
        }
        if "sites" in found:  # of which more becomes known
            found["sites"] = merge("sites", found["sites"])
        return found


class FolderSink(RunWriter):
    """A run folder on disk."""

    lasting = True

    def next_step(self) -> int:
        """Return the number of the step after the last that an earlier attempt recorded."""
        return next_step(self.folder, self.run)

    def begin_attempt(self, step: int) -> None:
        """Let what follows replace rows from this step on."""
        self.go_back()

    def close(self, status: str) -> None:
        """Set the final status."""
        try:
            super().close(status)
        except OSError as error:
            raise RecordingError(refused(self.folder, error)) from error

    def recording(self) -> Recording:
        """Return what was recorded so far."""
        return load(self.folder)


def open_sink(out: str | Path | None, meta: Mapping[str, Any], rank: int) -> Sink:
    """Return a run folder where there is a path, memory where there is none."""
    return MemorySink(meta) if out is None else FolderSink(Path(out), meta, rank)
