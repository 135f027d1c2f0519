"""The run folder's files: what lies where, its manifest, and how a file is read and replaced.

    run/
      manifest.json                 metadata, status, schema version, digests of the Parquet files, its own seal
      lock, lock-r1 ...             held by the processes that write
      segments/run                  the run's number, agreed on by its processes
      segments/norms-r0-a0.arrows   one stream a table, rank and attempt, while it is written; of a run that is thinned
                                    one a part of the attempt, -p1, -p2 ..., and one of what is left of those before
      segments/thinned-r0.json      which parts these are, and how they were thinned
      norms.parquet                 one file a table, when it is finished

Nothing here follows a symbolic link: a folder may come from anywhere.
"""

import contextlib
import errno
import json
import os
import re
import stat
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from dataclasses import replace as replaced
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from gradlens.errors import RecordingError
from gradlens.recording.manifest import FINISHED, SEAL, fault, is_whole, sealed
from gradlens.recording.schema import SCHEMA_VERSION, STORED, TABLES
from gradlens.recording.text import all_printable
from gradlens.recording.whole import write_then_rename
from gradlens.text import printable

__all__ = ["EXTRA", "FINISHED", "FOLDERS_OF_RUNS", "arrow_schema", "read_manifest", "write_json"]

_ARROW = {"string": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}
#: The steps table alone has columns the user adds; a segment keeps them in one map so that its schema is fixed.
EXTRA = pa.field("extra", pa.map_(pa.string(), pa.float64()))

#: Kind of a manifest that stands for several runs, named in its ``runs``, to what such a folder is called.
FOLDERS_OF_RUNS = {"compare": "comparison", "reproduce": "reproduction"}


def arrow_schema(table: str) -> pa.Schema:
    """Return the Arrow schema of a stored table, each field with its meaning."""
    fields = [pa.field(c.name, _ARROW[c.dtype], metadata={"meaning": c.meaning, "unit": c.unit}) for c in STORED[table]]
    return pa.schema(fields + ([EXTRA] if table == "steps" else []))


# ------------------------------------------------------------------ names


@dataclass(frozen=True)
class Name:
    """Whose segment it is: attempt and rank of a process, and the table; of a run that is thinned a part of these.

    Attributes:
        part: of the attempt.
        thinned: whether it holds what is left of all up to this part.
    """

    attempt: int
    rank: int
    table: str
    part: int = 0
    thinned: bool = False

    def __str__(self) -> str:
        part = f"-p{self.part}" if self.part else ""
        return f"{self.table}-r{self.rank}-a{self.attempt}{part}{'-thinned' if self.thinned else ''}"

    def of(self, table: str) -> "Name":
        """Return the name of another table's segment beside it."""
        return replaced(self, table=table)

    @property
    def place(self) -> tuple[int, int]:
        """Attempt and part: rows of later ones come later."""
        return self.attempt, self.part

    @staticmethod
    def read(name: str) -> "Name | None":
        """Return what a file or a segment is called by its name; None where it is none."""
        m = _NAME.fullmatch(name.removesuffix(".arrows"))
        return m and Name(int(m[3]), int(m[2]), m[1], int(m[4] or 0), bool(m[5]))


# Without leading zeros: a segment has one name.
_NAME = re.compile(rf"({'|'.join(TABLES)})-r(0|[1-9]\d{{0,8}})-a(0|[1-9]\d{{0,8}})(?:-p([1-9]\d{{0,8}}))?(-thinned)?")


def segments(folder: Path) -> dict[Name, Path]:
    """List the segments by whose they are, in order; other files that lie there, copies say, are none.

    Raises:
        FileNotFoundError: there is no folder of them.
        RecordingError: what is there is no folder, or a link.
    """
    found = [entry.name for entry in os.scandir(real(folder / "segments", stat.S_ISDIR))]
    named = ((Name.read(name), folder / "segments" / name) for name in found if name.endswith(".arrows"))
    known = [(name, path) for name, path in named if name is not None]
    return dict(sorted(known, key=lambda one: (one[0].attempt, one[0].rank, one[0].part, one[0].table)))


def path_of(folder: Path, name: Name) -> Path:
    """Return where a segment lies."""
    return folder / "segments" / f"{name}.arrows"


# ------------------------------------------------------------------ files


def real(path: Path, kind: Callable[[int], bool] = stat.S_ISREG) -> Path:
    """Return a path that is what it must be, and no link: a file, or a folder with ``stat.S_ISDIR``.

    Raises:
        FileNotFoundError: there is nothing.
        RecordingError: something else is there.
    """
    mode = path.lstat().st_mode
    if not kind(mode):
        must = "file" if kind is stat.S_ISREG else "folder"
        other = "link" if stat.S_ISLNK(mode) else "folder" if stat.S_ISDIR(mode) else "file or device of another kind"
        raise RecordingError(
            f"{path} must be a {must}; it is a {other}, which is not followed. Put the {must} itself there."
        )
    return path


def content(path: Path) -> bytes:
    """Return a file's bytes.

    Raises:
        FileNotFoundError: there is none.
        RecordingError: it is a link or no file, or may not be read.
    """
    with opened(path) as file:
        try:
            return file.read()
        except OSError as error:
            raise RecordingError(_unreadable(path, error)) from error


def blocks(path: Path, size: int) -> Iterator[bytes]:
    """Yield a file's bytes, so many at a time; all at once where ``size`` is -1.

    Raises:
        FileNotFoundError: there is none.
        RecordingError: it is a link or no file, or may not be read.
    """
    with opened(path) as file:
        try:
            while block := file.read(size):
                yield block
        except OSError as error:
            raise RecordingError(_unreadable(path, error)) from error


def opened(path: Path) -> BufferedReader:
    """Open a file for reading.

    Raises:
        FileNotFoundError: there is none.
        RecordingError: it is a link or no file, or may not be read.
    """
    try:
        return real(path).open("rb")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RecordingError(_unreadable(path, error)) from error


def _unreadable(path: Path, error: OSError) -> str:
    return f"{path} must be readable; it is not: {error.strerror or error}."


def replace(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file of a run folder so that it is always whole.

    Raises:
        RecordingError: the disk refuses it; what was there before is untouched.
    """
    try:
        write_then_rename(path, write)
    except OSError as error:
        raise RecordingError(refused(path, error)) from error


def refused(path: Path, error: OSError) -> str:
    """Say what a disk refused, what is safe, and what to do."""
    if isinstance(error, FileExistsError | NotADirectoryError):
        return f"A run folder must be a folder; {path} is (or lies in) a file. Choose another --out."
    what = f"A run folder must be writable; writing {path} failed: {error.strerror or error}."
    if isinstance(error, FileNotFoundError | PermissionError) or error.errno in (errno.EROFS, errno.ELOOP):
        return f"{what} Choose another --out, where you may make files."
    return f"{what} Everything written before is safe. Free space (or choose another --out) and run the same again."


# ------------------------------------------------------------------ the manifest


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a manifest, sealed.

    Raises:
        RecordingError: the disk refuses it, or it cannot be JSON; what was there before is untouched.
    """
    try:
        text = json.dumps(sealed(value), indent=2, ensure_ascii=False, default=str) + "\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise RecordingError(
            f"Metadata must be JSON values with names that are text; {path} was not: {error}."
        ) from error
    # Half a surrogate pair, as of a file name that is no UTF-8, is written as JSON escapes it.
    replace(path, lambda file: file.write(text.encode("utf-8", "backslashreplace")))


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read and check a run folder's manifest; the one place where its types and ranges are.

    Raises:
        RecordingError: no folder, no manifest, not gradlens', damaged, edited, or written by a newer schema.
    """
    path = folder / "manifest.json"
    if not folder.exists():
        raise RecordingError(f"A run folder must exist; there is none at {folder}. Check the path.")
    try:
        manifest = json.loads(content(path).decode("utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RecordingError(f"A run folder holds a manifest.json; {folder} does not. Is it a gradlens run?") from error
    except (ValueError, RecursionError) as error:
        raise RecordingError(_damaged(path, str(error))) from error
    version = manifest.get("schema") if isinstance(manifest, dict) else None
    if isinstance(version, int) and SCHEMA_VERSION < version < 10**6:
        raise RecordingError(
            f"{path} was written with schema {version}; this gradlens reads up to {SCHEMA_VERSION}. "
            "Read it with the newer gradlens that wrote it."
        )
    if said := fault(manifest):
        raise RecordingError(_damaged(path, said))
    if not is_whole(manifest):
        raise RecordingError(_damaged(path, "it was changed since gradlens wrote it"))
    manifest.pop(SEAL, None)
    return dict(all_printable(manifest))


def _damaged(path: Path, why: str) -> str:
    return (
        f"{path} must be a gradlens manifest; it cannot be read as one: {printable(why)[:200]}. "
        "If it was written by gradlens, restore it from a copy; the tables beside it are untouched."
    )


def agreed_run(folder: Path) -> str:
    """Return the number of the run, the same for all its processes: the first that comes gives it.

    Raises:
        OSError: the disk refuses it.
    """
    path = folder / "segments" / "run"
    path.parent.mkdir(exist_ok=True)
    with contextlib.suppress(FileExistsError), path.open("x") as file:
        file.write(uuid.uuid4().hex)
    for _ in range(100):  # whoever made the file has not yet written to it
        if given := content(path).decode("ascii", "replace").strip():
            return given
        time.sleep(0.01)
    return ""
