"""Reading a run folder back: Parquet where it is finished, else every whole step of its segments."""

import contextlib
import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from gradlens.errors import RecordingError
from gradlens.recording.closing import complete
from gradlens.recording.folder import FINISHED, FOLDERS_OF_RUNS, content, read_manifest
from gradlens.recording.history import History, read_history
from gradlens.recording.locks import being_written
from gradlens.recording.recording import Recording
from gradlens.recording.schema import ADDED, STORED, TABLES
from gradlens.recording.text import printable_table
from gradlens.text import printable


def load(path: str | Path) -> Recording:
    """Read a run folder.

    A run that is being written, or was killed, reads up to its last whole step; ``meta["status"]`` says which. Where
    files were damaged since, a warning and ``meta["damage"]`` say so, and the steps end before the first that is not
    whole.

    Args:
        path: the run folder.

    Raises:
        RecordingError: missing, foreign, damaged, or written by a newer schema; the message names the file.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    if manifest.get("status") in FINISHED and "tables" not in manifest and (folder / "segments").exists():
        # Whoever closed it last was killed before it had done so; who may not write here reads the segments.
        with contextlib.suppress(RecordingError, OSError):
            complete(folder)
    return peek(folder)


def peek(folder: Path) -> Recording:
    """Do as ``load``, and leave the folder as it is: a run that has ended may be closed by its own process right now.

    Args:
        folder: the run folder.

    Raises:
        RecordingError: as for ``load``.
    """
    manifest = read_manifest(folder)
    if manifest.get("kind") in FOLDERS_OF_RUNS:
        runs = [str(run) for run in manifest.get("runs", ())]
        named = ", ".join(runs[:6]) + (f" and {len(runs) - 6} more" if len(runs) > 6 else "")
        what = FOLDERS_OF_RUNS[manifest["kind"]]
        raise RecordingError(f"A recording is one run; {folder} is a {what} of several. Load one of its runs: {named}.")
    stored, meta = _read(folder, manifest)
    if meta.get("status") == "running" and not being_written(folder):
        meta["status"] = "interrupted"
    if "damage" in meta:
        warnings.warn(f"The recording at {folder} is damaged: {' '.join(meta['damage'])}", stacklevel=3)
    return Recording(meta, {table: printable_table(frame) for table, frame in stored.items()}, folder)


def _read(folder: Path, manifest: dict[str, Any]) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """Return the stored tables, and the manifest with what was found."""
    if "tables" in manifest or ("run" not in manifest and not (folder / "segments").exists()):
        # Whatever else lies there: the Parquet files were whole before the manifest named them.
        found = {table: read_table(folder, table, manifest) for table in TABLES}
        return {table: frame for table, frame in found.items() if frame is not None}, manifest
    history: History | Exception
    try:
        history = read_history(folder, manifest.get("run", ""))
    except (RecordingError, FileNotFoundError) as error:
        history = error
    if "tables" in (now := read_manifest(folder)):
        return _read(folder, now)  # it was closed in between
    if isinstance(history, FileNotFoundError):
        raise RecordingError(f"The run at {folder} must hold {history.filename}; it does not. Is it a whole copy?")
    if isinstance(history, Exception):
        raise history
    return history.tables, _with(manifest, history)


def _with(manifest: dict[str, Any], history: History) -> dict[str, Any]:
    """Return the manifest with what only the segments tell."""
    told: dict[str, Any] = {"damage": history.damage} if history.damage else {}
    if "processes" in manifest:
        told["processes"] = {**manifest["processes"], "recorded": history.ranks}
    return manifest | told


def next_step(folder: Path, run: str) -> int:
    """Return the number of the step after the last that is recorded in a run that goes on.

    Args:
        folder: the run folder, which has no manifest before the process of rank 0 comes.
        run: number of the run.
    """
    steps = read_history(folder, run).tables.get("steps")
    return 0 if steps is None or steps.empty else int(steps["step"].max()) + 1


def read_table(folder: Path, table: str, manifest: Mapping[str, Any]) -> pd.DataFrame | None:
    """Read a table of a closed run: its stored columns, merged; None where there is none.

    Raises:
        RecordingError: its file is missing, damaged or foreign; the message names it.
    """
    path, closed_with = folder / f"{table}.parquet", manifest.get("tables", ())
    try:
        data = content(path)
    except FileNotFoundError as error:
        if table not in closed_with:
            return None
        raise RecordingError(
            f"The run at {folder} must hold {path.name}, which it was closed with; it does not. "
            "Restore it from a copy of the folder."
        ) from error
    if isinstance(closed_with, Mapping):
        if table not in closed_with:
            return None  # somebody else's
        if hashlib.sha256(data).hexdigest() != closed_with[table]:
            raise RecordingError(
                f"{path} must be the file that the run was closed with; its SHA-256 is another: it was damaged, "
                "changed, or comes from another run. Restore it from a copy of the folder."
            )
    try:
        rows = pq.read_table(pa.BufferReader(data), page_checksum_verification=True)
        rows.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        raise RecordingError(
            f"{path} must be a whole Parquet file; it is truncated or foreign "
            f"({printable(' '.join(str(error).split()))[:120]}). Restore it from a copy, or record the run again."
        ) from error
    if (rows.schema.metadata or {}).get(b"gradlens.run", b"").decode() != manifest.get("run", ""):
        raise RecordingError(f"{path} and manifest.json must be of one run; they are not. Restore both from a copy.")
    frame: pd.DataFrame = rows.to_pandas()
    missing = [c.name for c in STORED[table] if c.name not in frame and c.name not in ADDED]
    if missing:
        raise RecordingError(f"{path} must hold the column {missing[0]!r}; it does not. It is no gradlens table.")
    return frame
