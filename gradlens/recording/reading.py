"""Reading a run folder back: Parquet where it is finished, else every whole batch of its segments."""

import contextlib
from collections.abc import Iterator
from math import inf
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from gradlens.errors import RecordingError
from gradlens.recording.derive import merge
from gradlens.recording.folder import FOLDERS_OF_RUNS, being_written, read_manifest
from gradlens.recording.recording import Recording
from gradlens.recording.schema import ADDED, STORED, TABLES

#: Tables with rows of training steps, which are whole or not.
_BY_STEP = ("norms", "activations", "params", "steps")


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    """Yield every whole batch of a segment; a torn tail ends it, as after a kill."""
    if not path.exists():
        return
    with path.open("rb") as file, contextlib.suppress(pa.ArrowInvalid, OSError, EOFError):
        yield from pa.ipc.open_stream(file)


def expand_extra(frame: pd.DataFrame) -> pd.DataFrame:
    """Turn the map of user scalars into columns."""
    extra = pd.DataFrame([dict(pairs or ()) for pairs in frame.pop("extra")], index=frame.index, dtype="float64")
    return pd.concat([frame, extra], axis=1)


def attempts(folder: Path, rank: int) -> int:
    """Count the attempts of a process that left something."""
    return max((attempt + 1 for attempt, own in _written(folder) if own == rank), default=0)


def recorded_ranks(folder: Path) -> int:
    """Count the processes that wrote segments."""
    return len({rank for _, rank in _written(folder)})


def _written(folder: Path) -> list[tuple[int, int]]:
    """Return attempt and rank of everybody who left a segment, in order."""
    return sorted({(_attempt(path), _rank(path)) for path in (folder / "segments").glob("*-r*-a*.arrows")})


def _attempt(path: Path) -> int:
    return int(path.stem.rsplit("-a", 1)[1])


def _rank(path: Path) -> int:
    return int(path.stem.split("-r")[1].split("-a")[0])


def _read_segments(folder: Path, table: str) -> pd.DataFrame | None:
    """Read a table's segments, up to the last step that is whole: every process that counts steps has counted it."""
    rows = _read_attempts(folder, table)
    if rows is None:
        return None
    steps = rows if table == "steps" else _read_attempts(folder, "steps") if table in _BY_STEP else None
    if steps is not None:
        # Of an evaluation between recorded steps one process may know alone.
        recorded = steps[steps["seconds"].notna()] if steps["rank_"].nunique() > 1 else steps
        whole = rows["step"] <= _last_whole(recorded, began=_start(_segments(folder, "steps")[-1]))
        rows = rows[whole | rows["seconds"].isna() if table == "steps" else whole & rows["step"].isin(recorded["step"])]
    return rows.drop(columns="rank_")


def _last_whole(recorded: pd.DataFrame, began: float) -> float:
    """Return the last step that every process has counted.

    Args:
        recorded: rows of ``steps``, with ``rank_``.
        began: first step of the last attempt; processes that ended before it do not belong to it.
    """
    last = recorded.groupby("rank_")["step"].max()
    return float(last[last >= min(began, last.max())].min())


def _read_attempts(folder: Path, table: str) -> pd.DataFrame | None:
    """Read a table's segments, with a column ``rank_``; later attempts replace earlier rows from their start on."""
    rows: pd.DataFrame | None = None
    for path in _segments(folder, table):
        batches = list(_batches(path))
        if not batches and path.exists() and path.stat().st_size > 4096:
            raise RecordingError(
                f"{path} must be an Arrow stream; it cannot be read as one. It was not written by gradlens or is "
                "damaged from its start: move it away to read the rest of the run."
            )
        if rows is not None:
            others = rows["rank_"] != _rank(path)
            rows = rows[others | (rows["step"] < _start(path))] if "step" in rows else rows[others | (not batches)]
        if batches:
            frame = pa.Table.from_batches(batches).to_pandas(maps_as_pydicts=None)
            frame["rank_"] = _rank(path)
            rows = frame if rows is None else pd.concat([rows, frame], ignore_index=True)
    return rows


def _segments(folder: Path, table: str) -> list[Path]:
    """Return where a table's segments lie, or would: one for every attempt and rank that left any table."""
    return [folder / "segments" / f"{table}-r{rank}-a{attempt}.arrows" for attempt, rank in _written(folder)]


def _start(path: Path) -> float:
    """Return the first step of a segment's attempt, of all its tables; infinite where it came to none."""
    others = path.parent.glob(f"*-r{_rank(path)}-a{_attempt(path)}.arrows")
    first = (next(_batches(other), None) for other in others)
    return min((batch["step"][0].as_py() for batch in first if batch and "step" in batch.schema.names), default=inf)


def read_stored(folder: Path, table: str) -> pd.DataFrame | None:
    """Read one stored table of a run folder: Parquet where it is finished, else its segments.

    Returns:
        The stored columns, merged; None where nothing was recorded.

    Raises:
        RecordingError: a file is truncated, damaged or foreign; the message names it.
    """
    path = folder / f"{table}.parquet"
    # While segments exist the compaction is not known to be whole: they are the truth.
    if (folder / "segments").exists():
        segments = _read_segments(folder, table)
        if segments is not None:
            segments = merge(table, expand_extra(segments) if "extra" in segments else segments)
        if (folder / "segments").exists():
            return segments  # else the run was closed in between
    if path.exists():
        try:
            frame: pd.DataFrame = pq.read_table(path).to_pandas()
        except (pa.ArrowException, OSError) as error:
            raise RecordingError(
                f"{path} must be a whole Parquet file; it is truncated or foreign ({str(error)[:120]}). "
                "Restore it from a copy, or record the run again."
            ) from error
        missing = [c.name for c in STORED[table] if c.name not in frame and c.name not in ADDED]
        if missing:
            raise RecordingError(f"{path} must hold the column {missing[0]!r}; it does not. It is no gradlens table.")
        return frame
    if table in read_manifest(folder).get("tables", ()):
        raise RecordingError(
            f"The run at {folder} must hold {path.name}, which it was closed with; it does not. "
            "Restore it from a copy of the folder."
        )
    return None


def load(path: str | Path) -> Recording:
    """Read a run folder.

    A run that is being written, or was killed, reads up to its last whole step; ``meta["status"]`` says which.

    Args:
        path: the run folder.

    Raises:
        RecordingError: missing, foreign, damaged, or written by a newer schema; the message names the file.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    if manifest.get("kind") in FOLDERS_OF_RUNS:
        runs = [str(run) for run in manifest.get("runs", ())]
        named = ", ".join(runs[:6]) + (f" and {len(runs) - 6} more" if len(runs) > 6 else "")
        what = FOLDERS_OF_RUNS[manifest["kind"]]
        raise RecordingError(f"A recording is one run; {folder} is a {what} of several. Load one of its runs: {named}.")
    if manifest.get("status") == "running" and not being_written(folder):
        manifest["status"] = "interrupted"
    if "processes" in manifest and (folder / "segments").exists():
        manifest["processes"] = {**manifest["processes"], "recorded": recorded_ranks(folder)}
    stored = {table: read_stored(folder, table) for table in TABLES}
    return Recording(manifest, {k: v for k, v in stored.items() if v is not None}, folder)
