"""The end of a run: from segments to one Parquet file a table, and the manifest that says so.

The Parquet files are written first, each whole or not at all; then the manifest names them, with their digests; then
the segments go. Whoever is killed in between leaves a run that reads the same, and that the next one completes.
"""

import contextlib
import functools
import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gradlens.errors import RecordingError
from gradlens.recording.attempts import all_thinned
from gradlens.recording.compaction import Compaction, remove_parts
from gradlens.recording.folder import EXTRA, FINISHED, arrow_schema, read_manifest, replace, segments, write_json
from gradlens.recording.history import read_history, said
from gradlens.recording.locks import being_written, claim, release
from gradlens.recording.schema import SCHEMA_VERSION
from gradlens.recording.stream import stream_of

#: Bytes of segments that are not read all at once.
_MANY = 4 << 20


def compact(folder: Path, run: str, compaction: Compaction | None = None) -> dict[str, Any]:
    """Write one Parquet file a table from the segments.

    Args:
        folder: the run folder.
        run: number of the run.
        compaction: what was made of them while they were written, if it was.

    Returns:
        What the manifest then says: ``tables``, each with its file's SHA-256, and how many ``processes`` wrote rows.

    Raises:
        RecordingError: the disk refuses it, or segments are damaged; they stay.
    """
    if compaction is None:
        compaction = _of_segments(folder, run)
    if compaction is not None and (written := compaction.finish(replace)) is not None:
        return {"tables": {table: _digest(folder, table) for table in written}, "recorded": 1}
    history = read_history(folder, run)
    if history.damage:
        raise RecordingError(f"The run at {folder} cannot be closed: {' '.join(history.damage[:2])}")
    digests = {}
    for table, stored in history.tables.items():
        rows = described(run, table, pa.Table.from_pandas(stored, preserve_index=False))
        replace(folder / f"{table}.parquet", functools.partial(pq.write_table, rows, write_page_checksum=True))
        digests[table] = _digest(folder, table)
    return {"tables": digests, "recorded": history.ranks}


def _of_segments(folder: Path, run: str) -> Compaction | None:
    """Return a compaction of what lies in the segments; None where they are read at once: of several, or few rows."""
    found = segments(folder)
    ranks = {name.rank for name in found}
    if not run or len(ranks) != 1 or sum(path.lstat().st_size for path in found.values()) < _MANY:
        return None
    earlier = functools.partial(stream_of, folder, run, ranks.pop())
    return Compaction(folder, functools.partial(described, run), lambda end: earlier(end=end))


def _digest(folder: Path, table: str) -> str:
    with (folder / f"{table}.parquet").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def described(run: str, table: str, rows: pa.Table) -> pa.Table:
    """Return rows with the types, meanings and units of their columns."""
    described = {f.name: f for f in arrow_schema(table) if f != EXTRA}
    rows = rows.cast(pa.schema([described.get(f.name, f) for f in rows.schema]))
    return rows.replace_schema_metadata({"gradlens.schema": str(SCHEMA_VERSION), "gradlens.run": run})


def complete(folder: Path, compaction: Compaction | None = None) -> None:
    """Close a finished run that still lies in segments, unless somebody writes it.

    Args:
        folder: the run folder.
        compaction: of the process that wrote it, if it was compacted meanwhile.

    Raises:
        RecordingError: somebody does, the disk refuses it, or segments are damaged; they stay.
    """
    if not (folder / "manifest.json").exists() or being_written(folder):
        return
    lock = claim(folder)
    try:
        manifest = read_manifest(folder)
        if manifest.get("status") in FINISHED and "tables" not in manifest:
            closed = compact(folder, manifest.get("run", ""), compaction)
            if "processes" in manifest:
                manifest["processes"]["recorded"] = closed["recorded"]
            thinned = {"thinned": told} if (told := said(all_thinned(folder).values())) else {}
            write_json(folder / "manifest.json", manifest | {"tables": closed["tables"]} | thinned)
            remove_segments(folder)
    finally:
        release(lock)


def remove_segments(folder: Path) -> None:
    """Remove the segments, which are no longer what is read; files of other names stay."""
    remove_parts(folder)
    with contextlib.suppress(OSError):  # somebody may have one open, which some systems mind
        thinned = (folder / "segments").glob("thinned-r*.json")
        for path in (*segments(folder).values(), *thinned, folder / "segments" / "run"):
            path.unlink(missing_ok=True)
        (folder / "segments").rmdir()
