"""Reading a run folder back: Parquet where it is finished, else every whole step of its segments."""

import contextlib
import hashlib
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from gradlens.errors import RecordingError
from gradlens.recording import derive
from gradlens.recording.closing import complete
from gradlens.recording.folder import FINISHED, FOLDERS_OF_RUNS, opened, read_manifest
from gradlens.recording.history import History, read_history
from gradlens.recording.locks import being_written
from gradlens.recording.projection import read_columns
from gradlens.recording.recording import Recording
from gradlens.recording.schema import ADDED, STORED, TABLES
from gradlens.recording.text import printable_table
from gradlens.text import printable

#: Tables with many rows a step, of which single columns can be read.
_LARGE = ("norms", "activations", "params", "attention", "tokens")


def load(path: str | Path, columns: Mapping[str, Collection[str]] | None = None) -> Recording:
    """Read a run folder.

    A run that is being written, or was killed, reads up to its last whole step; ``meta["status"]`` says which. Where
    files were damaged since, a warning and ``meta["damage"]`` say so, and the steps end before the first that is not
    whole.

    Args:
        path: the run folder.
        columns: table to the public columns that are read of it; of a table that is not named, and by default, all.

    Raises:
        RecordingError: missing, foreign, damaged, or written by a newer schema; the message names the file.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    if manifest.get("status") in FINISHED and "tables" not in manifest and (folder / "segments").exists():
        # Whoever closed it last was killed before it had done so; who may not write here reads the segments.
        with contextlib.suppress(RecordingError, OSError):
            complete(folder)
    return peek(folder, columns)


def peek(folder: Path, columns: Mapping[str, Collection[str]] | None = None) -> Recording:
    """Do as ``load``, and leave the folder as it is: a run that has ended may be closed by its own process right now.

    Args:
        folder: the run folder.
        columns: as for ``load``.

    Raises:
        RecordingError: as for ``load``.
    """
    manifest = read_manifest(folder)
    if manifest.get("kind") in FOLDERS_OF_RUNS:
        runs = [str(run) for run in manifest.get("runs", ())]
        named = ", ".join(runs[:6]) + (f" and {len(runs) - 6} more" if len(runs) > 6 else "")
        what = FOLDERS_OF_RUNS[manifest["kind"]]
        raise RecordingError(f"A recording is one run; {folder} is a {what} of several. Load one of its runs: {named}.")
    only = {table: names for table, names in (columns or {}).items() if table in _LARGE}
    found, meta = _read(folder, manifest, only)
    if meta.get("status") == "running" and not being_written(folder):
        meta["status"] = "interrupted"
    if "damage" in meta:
        warnings.warn(f"The recording at {folder} is damaged: {' '.join(meta['damage'])}", stacklevel=3)
    stored, public = (
        {name: printable_table(table.rows) for name, table in found.items() if table.public is which}
        for which in (False, True)
    )
    return Recording(meta, stored, folder, public=public, only=only)


class Table(NamedTuple):
    """A table as it was read: its stored columns, or public ones of rows that need not be merged."""

    rows: pd.DataFrame
    public: bool = False


def _read(
    folder: Path, manifest: dict[str, Any], only: Mapping[str, Collection[str]]
) -> tuple[dict[str, Table], dict[str, Any]]:
    """Return the tables, of some only some public columns, and the manifest with what was found."""
    if "tables" in manifest or ("run" not in manifest and not (folder / "segments").exists()):
        # Whatever else lies there: the Parquet files were whole before the manifest named them.
        found = {name: read_table(folder, name, manifest, only.get(name)) for name in TABLES}
        return {name: table for name, table in found.items() if table is not None}, manifest
    history: History | Exception
    try:
        stored = {table: derive.sources(table, names) for table, names in only.items()}
        history = read_history(folder, manifest.get("run", ""), stored)
    except (RecordingError, FileNotFoundError) as error:
        history = error
    if "tables" in (now := read_manifest(folder)):
        return _read(folder, now, only)  # it was closed in between
    if isinstance(history, FileNotFoundError):
        raise RecordingError(f"The run at {folder} must hold {history.filename}; it does not. Is it a whole copy?")
    if isinstance(history, Exception):
        raise history
    return {name: Table(rows) for name, rows in history.tables.items()}, _with(manifest, history)


def _with(manifest: dict[str, Any], history: History) -> dict[str, Any]:
    """Return the manifest with what only the segments tell."""
    told: dict[str, Any] = {"damage": history.damage} if history.damage else {}
    if "processes" in manifest:
        told["processes"] = {**manifest["processes"], "recorded": history.ranks}
    if history.thinned:
        told["thinned"] = history.thinned
    return manifest | told


def next_step(folder: Path, run: str) -> int:
    """Return the number of the step after the last that is recorded in a run that goes on.

    Args:
        folder: the run folder, which has no manifest before the process of rank 0 comes.
        run: number of the run.
    """
    steps = read_history(folder, run).tables.get("steps")
    return 0 if steps is None or steps.empty else int(steps["step"].max()) + 1


def read_table(
    folder: Path, table: str, manifest: Mapping[str, Any], only: Collection[str] | None = None
) -> Table | None:
    """Read a table of a closed run; None where there is none.

    Args:
        folder: the run folder.
        table: its name.
        manifest: what the run was closed with.
        only: public columns that are read; by default all.

    Raises:
        RecordingError: its file is missing, damaged or foreign; the message names it.
    """
    path, closed_with = folder / f"{table}.parquet", manifest.get("tables", ())
    try:
        file = opened(path)
    except FileNotFoundError as error:
        if table not in closed_with:
            return None
        raise RecordingError(
            f"The run at {folder} must hold {path.name}, which it was closed with; it does not. "
            "Restore it from a copy of the folder."
        ) from error
    with file:
        if isinstance(closed_with, Mapping):
            if table not in closed_with:
                return None  # somebody else's
            if hashlib.file_digest(file, "sha256").hexdigest() != closed_with[table]:
                raise RecordingError(
                    f"{path} must be the file that the run was closed with; its SHA-256 is another: it was damaged, "
                    "changed, or comes from another run. Restore it from a copy of the folder."
                )
        try:
            # A batch of rows at a time, where columns are read so, and not whole columns ahead.
            parquet = pq.ParquetFile(file, page_checksum_verification=True, buffer_size=1 << 20)
            _check(parquet.schema_arrow, path, table, manifest)
            if only is not None and (columns := read_columns(parquet, table, only)) is not None:
                return Table(columns, public=True)
            stored = [
                name for name in parquet.schema_arrow.names if only is None or name in derive.sources(table, only)
            ]
            rows = parquet.read(stored)
            rows.validate(full=True)
        except (pa.ArrowException, OSError) as error:
            raise RecordingError(
                f"{path} must be a whole Parquet file; it is truncated or foreign "
                f"({printable(' '.join(str(error).split()))[:120]}). Restore it from a copy, or record the run again."
            ) from error
    return Table(rows.to_pandas())


def _check(schema: pa.Schema, path: Path, table: str, manifest: Mapping[str, Any]) -> None:
    """See that a file is of the run and the table that it is named for."""
    if (schema.metadata or {}).get(b"gradlens.run", b"").decode() != manifest.get("run", ""):
        raise RecordingError(f"{path} and manifest.json must be of one run; they are not. Restore both from a copy.")
    missing = [c.name for c in STORED[table] if c.name not in schema.names and c.name not in ADDED]
    if missing:
        raise RecordingError(f"{path} must hold the column {missing[0]!r}; it does not. It is no gradlens table.")
