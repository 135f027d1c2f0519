"""Reading a run folder back: Parquet where it is finished, else every whole batch of its segments."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from gradlens.errors import RecordingError
from gradlens.recording.derive import merge
from gradlens.recording.folder import FOLDERS_OF_RUNS, being_written, read_manifest
from gradlens.recording.recording import Recording
from gradlens.recording.schema import STORED, TABLES


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    """Yield every whole batch of a segment; a torn tail ends it, as after a kill."""
    with path.open("rb") as file, contextlib.suppress(pa.ArrowInvalid, OSError, EOFError):
        yield from pa.ipc.open_stream(file)


def expand_extra(frame: pd.DataFrame) -> pd.DataFrame:
    """Turn the map of user scalars into columns."""
    extra = pd.DataFrame([dict(pairs or ()) for pairs in frame.pop("extra")], index=frame.index, dtype="float64")
    return pd.concat([frame, extra], axis=1)


def _read_segments(folder: Path, table: str) -> pd.DataFrame | None:
    """Read a table's segments of all attempts and ranks; later attempts replace earlier rows from their start on."""
    rows: pd.DataFrame | None = None
    paths = (folder / "segments").glob(f"{table}-r*-a*.arrows")
    for path in sorted(paths, key=lambda p: (int(p.stem.rsplit("-a", 1)[1]), p.name)):
        batches = list(_batches(path))
        if not batches:
            if path.stat().st_size > 4096:
                raise RecordingError(
                    f"{path} must be an Arrow stream; it cannot be read as one. It was not written by gradlens or is "
                    "damaged from its start: move it away to read the rest of the run."
                )
            continue
        frame = pa.Table.from_batches(batches).to_pandas(maps_as_pydicts=None)
        frame["rank_"], rank = int(path.stem.split("-r")[1].split("-a")[0]), "rank_"
        if rows is not None and "step" in frame:
            rows = rows[(rows["step"] < frame["step"].min()) | (rows[rank] != frame[rank].iloc[0])]
        elif rows is not None:
            rows = rows[:0]
        rows = frame if rows is None else pd.concat([rows, frame], ignore_index=True)
    return None if rows is None else rows.drop(columns="rank_")


def read_stored(folder: Path, table: str) -> pd.DataFrame | None:
    """Read one stored table of a run folder: Parquet where it is finished, else its segments.

    Returns:
        The stored columns, merged; None where nothing was recorded.

    Raises:
        RecordingError: a file is truncated, damaged or foreign; the message names it.
    """
    path = folder / f"{table}.parquet"
    # While segments exist the compaction is not known to be whole: they are the truth.
    if path.exists() and not (folder / "segments").exists():
        try:
            frame: pd.DataFrame = pq.read_table(path).to_pandas()
        except (pa.ArrowException, OSError) as error:
            raise RecordingError(
                f"{path} must be a whole Parquet file; it is truncated or foreign ({str(error)[:120]}). "
                "Restore it from a copy, or record the run again."
            ) from error
        missing = [c.name for c in STORED[table] if c.name not in frame]
        if missing:
            raise RecordingError(f"{path} must hold the column {missing[0]!r}; it does not. It is no gradlens table.")
        return frame
    segments = _read_segments(folder, table)
    if segments is None:
        return None
    return merge(table, expand_extra(segments) if "extra" in segments else segments)


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
    stored = {table: read_stored(folder, table) for table in TABLES}
    return Recording(manifest, {k: v for k, v in stored.items() if v is not None}, folder)
