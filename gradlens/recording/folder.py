"""The run folder itself: its manifest, its lock, and the Arrow types of its tables."""

import errno
import fcntl
import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from gradlens.errors import RecordingError
from gradlens.recording.schema import SCHEMA_VERSION, STORED

_ARROW = {"string": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}
#: The steps table alone has columns the user adds; a segment keeps them in one map so that its schema is fixed.
EXTRA = pa.field("extra", pa.map_(pa.string(), pa.float64()))

#: Status of a run that nothing is added to.
FINISHED = ("complete", "diverged")

#: Kind of a manifest that stands for several runs, named in its ``runs``, to what such a folder is called.
FOLDERS_OF_RUNS = {"compare": "comparison", "reproduce": "reproduction"}


def arrow_schema(table: str) -> pa.Schema:
    """Return the Arrow schema of a stored table, each field with its meaning."""
    fields = [pa.field(c.name, _ARROW[c.dtype], metadata={"meaning": c.meaning, "unit": c.unit}) for c in STORED[table]]
    return pa.schema(fields + ([EXTRA] if table == "steps" else []))


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
        raise RecordingError(refused(path, error)) from error


def refused(path: Path, error: OSError) -> str:
    """Say what a disk refused, what is safe, and what to do."""
    if isinstance(error, FileExistsError | NotADirectoryError):
        return f"A run folder must be a folder; {path} is (or lies in) a file. Choose another --out."
    what = f"A run folder must be writable; writing {path} failed: {error.strerror or error}."
    if isinstance(error, FileNotFoundError | PermissionError) or error.errno == errno.EROFS:
        return f"{what} Choose another --out, where you may make files."
    return f"{what} Everything written before is safe. Free space (or choose another --out) and run the same again."


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


#: What a process of several may have made before the first one writes the manifest.
_EARLY = re.compile(r"lock(-r\d+)?|segments|manifest\.json\.tmp")
#: Attempts to take a lock: somebody who looks whether it is held holds it for a moment.
_ATTEMPTS = 3


def claim(folder: Path, rank: int = 0) -> IO[str]:
    """Create the folder and take a process's lock; the kernel frees it when the process ends, however it ends.

    Args:
        folder: the run folder.
        rank: of the process, where several write one run.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        foreign = [p.name for p in folder.iterdir() if not _EARLY.fullmatch(p.name)]
        if foreign and not (folder / "manifest.json").exists():
            raise RecordingError(
                f"A run folder must be empty or hold a gradlens run; {folder} holds {', '.join(sorted(foreign)[:3])}. "
                "Choose another folder."
            )
        lock = (folder / (f"lock-r{rank}" if rank else "lock")).open("a")
    except OSError as error:
        raise RecordingError(refused(folder, error)) from error
    for left in reversed(range(_ATTEMPTS)):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError as error:
            if not left:
                lock.close()
                raise RecordingError(
                    f"One process writes a run folder at a time; another one is writing {folder} now. "
                    "Wait for it, stop it, or choose another folder."
                ) from error
            time.sleep(0.02)
    return lock


def release(lock: IO[str]) -> None:
    """Give a lock back: also where a child process, a loader's worker, still has the file open."""
    if not lock.closed:
        fcntl.flock(lock, fcntl.LOCK_UN)
        lock.close()


def being_written(folder: Path) -> bool:
    """Whether some process holds a lock of the folder now."""
    return any(_held(path) for path in folder.glob("lock*"))


def _held(path: Path) -> bool:
    with path.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
