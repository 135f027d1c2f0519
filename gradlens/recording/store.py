"""The run folder on disk: Arrow segments while it grows, one Parquet file a table when it is finished.

    run/
      manifest.json                 metadata, status, schema version (temp file + rename)
      lock                          held by the process that writes
      segments/norms-r0-a0.arrows   one Arrow IPC stream a table, rank and attempt; one batch a recorded step
      norms.parquet                 after closing: the same stored columns, merged

A batch is one write() call, so a killed process loses at most the step it was writing: the reader takes every
whole batch and stops at a torn one. An attempt that starts at step s replaces all earlier rows from s on.
"""

import contextlib
import fcntl
import functools
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import pandas as pd
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from gradlens.errors import RecordingError
from gradlens.recording.derive import merge
from gradlens.recording.recording import Recording
from gradlens.recording.schema import SCHEMA_VERSION, STORED, TABLES

_ARROW = {"string": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}
#: The steps table alone has columns the user adds; a segment keeps them in one map so that its schema is fixed.
_EXTRA = pa.field("extra", pa.map_(pa.string(), pa.float64()))


def arrow_schema(table: str) -> pa.Schema:
    """Return the Arrow schema of a stored table, each field with its meaning."""
    fields = [pa.field(c.name, _ARROW[c.dtype], metadata={"meaning": c.meaning, "unit": c.unit}) for c in STORED[table]]
    return pa.schema(fields + ([_EXTRA] if table == "steps" else []))


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON so that the file is always whole: temp file, then rename.

    Raises:
        RecordingError: the disk refuses it; what was there before is untouched.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n", "utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RecordingError(_refused(path, error)) from error


def _refused(path: Path, error: OSError) -> str:
    return (
        f"A run folder must be writable; writing {path} failed: {error.strerror or error}. "
        "Everything written before is safe. Free space (or choose another --out) and run the same again."
    )


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read and check a run folder's manifest.

    Raises:
        RecordingError: no folder, no manifest, not gradlens', damaged, or written by a newer schema.
    """
    path = folder / "manifest.json"
    if not folder.exists():
        raise RecordingError(f"A run folder must exist; there is none at {folder}. Check the path.")
    if not path.is_file():
        raise RecordingError(f"A run folder holds a manifest.json; {folder} does not. Is it a gradlens run?")
    try:
        manifest = json.loads(path.read_text("utf-8"))
        version = int(manifest["schema"])
    except (ValueError, KeyError, TypeError) as error:
        raise RecordingError(
            f"{path} must be a gradlens manifest; it cannot be read as one ({error!r}). "
            "If it was written by gradlens, restore it from a copy; the segments beside it are untouched."
        ) from error
    if version > SCHEMA_VERSION:
        raise RecordingError(
            f"{path} was written with schema {version}; this gradlens reads up to {SCHEMA_VERSION}. "
            "Read it with the newer gradlens that wrote it."
        )
    return dict(manifest)


class RunWriter:
    """Appends recorded steps to a run folder. One process a folder, enforced by a lock.

    Args:
        folder: created where missing; an unfinished run in it gets a further attempt.
        meta: metadata for the manifest.
        rank: process rank, part of the segments' names.

    Raises:
        RecordingError: the folder holds something else, a finished run, or is being written by another process.
    """

    def __init__(self, folder: Path, meta: Mapping[str, Any], rank: int = 0) -> None:
        self.folder, self.rank = folder, rank
        self._files: dict[str, IO[bytes]] = {}
        self._failed: OSError | None = None
        self._lock = _claim(folder)
        try:
            before = read_manifest(folder) if (folder / "manifest.json").exists() else {}
            if before.get("status") in ("complete", "diverged"):
                raise RecordingError(
                    f"A recording is never overwritten; {folder} holds a finished run ({before.get('label')!r}). "
                    "Choose another folder, or delete this one."
                )
            self.attempt = int(before.get("attempts", 0))
            self.meta: dict[str, Any] = {**before, **meta, "schema": SCHEMA_VERSION, "status": "running"}
            self.meta["attempts"] = self.attempt + 1
            # First the manifest: a folder without one, but with anything else in it, is taken for somebody else's.
            write_json(folder / "manifest.json", self.meta)
            (folder / "segments").mkdir(exist_ok=True)
        except BaseException:
            self._lock.close()
            raise

    def annotate(self, meta: Mapping[str, Any]) -> None:
        """Add metadata and write the manifest."""
        self.meta.update(meta)
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
            arrays = [_array(columns[f.name], f.type) for f in schema]
            try:
                _write_all(self._file(table, schema), pa.RecordBatch.from_arrays(arrays, schema=schema).serialize())
                return
            except OSError as error:
                self._failed = error
        # After a torn write nothing may follow in the same stream: the reader stops there.
        raise RecordingError(_refused(self.folder, self._failed)) from self._failed

    def _file(self, table: str, schema: pa.Schema) -> IO[bytes]:
        if table not in self._files:
            path = self.folder / "segments" / f"{table}-r{self.rank}-a{self.attempt}.arrows"
            self._files[table] = path.open("ab", buffering=0)
            _write_all(self._files[table], schema.serialize())
        return self._files[table]

    def close(self, status: str) -> None:
        """Set the final status; a finished run is compacted to one Parquet file a table."""
        if self._lock.closed:
            return
        for file in self._files.values():
            file.close()
        try:
            if status in ("complete", "diverged") and self._failed is None:
                compact(self.folder)
            self.annotate({"status": status})
            if status in ("complete", "diverged") and self._failed is None:
                shutil.rmtree(self.folder / "segments", ignore_errors=True)
        finally:
            self._lock.close()


def _write_all(file: IO[bytes], buffer: pa.Buffer) -> None:
    """Write the whole buffer: on a disk that is nearly full a write may be short, and only the next one fails."""
    rest = memoryview(buffer)
    while rest:
        rest = rest[file.write(rest) :]


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


def _claim(folder: Path) -> IO[str]:
    """Create the folder and take its lock; the kernel frees it when the process ends, however it ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        foreign = [p.name for p in folder.iterdir() if p.name not in ("lock", "manifest.json.tmp")]
        if foreign and not (folder / "manifest.json").exists():
            raise RecordingError(
                f"A run folder must be empty or hold a gradlens run; {folder} holds {', '.join(sorted(foreign)[:3])}. "
                "Choose another folder."
            )
        lock = (folder / "lock").open("a")
    except OSError as error:
        raise RecordingError(_refused(folder, error)) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise RecordingError(
            f"One process writes a run folder at a time; another one is writing {folder} now. "
            "Wait for it, stop it, or choose another folder."
        ) from error
    return lock


def being_written(folder: Path) -> bool:
    """Whether another process holds the folder's lock now."""
    if not (folder / "lock").exists():
        return False
    with (folder / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


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


def compact(folder: Path) -> None:
    """Write one Parquet file a table from the segments, each whole or not at all."""
    for table in TABLES:
        stored = read_stored(folder, table)
        if stored is None:
            continue
        described = {f.name: f for f in arrow_schema(table) if f != _EXTRA}
        result = pa.Table.from_pandas(stored, preserve_index=False)
        result = result.cast(pa.schema([described.get(f.name, f) for f in result.schema]))
        temporary = folder / f"{table}.parquet.tmp"
        try:
            pq.write_table(result.replace_schema_metadata({"gradlens.schema": str(SCHEMA_VERSION)}), temporary)
            os.replace(temporary, folder / f"{table}.parquet")
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise RecordingError(_refused(folder, error)) from error


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
    if manifest.get("kind") == "compare":
        runs = ", ".join(str(run) for run in manifest.get("runs", ()))
        raise RecordingError(
            f"A recording is one run; {folder} is a comparison of several. Load one of its runs: {runs}."
        )
    if manifest.get("status") == "running" and not being_written(folder):
        manifest["status"] = "interrupted"
    stored = {table: read_stored(folder, table) for table in TABLES}
    return Recording(manifest, {k: v for k, v in stored.items() if v is not None}, folder)
