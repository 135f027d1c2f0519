"""Files appear whole or not at all: the one way in which gradlens writes a file that may be there already."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO


def write_then_rename(path: Path, write: Callable[[IO[bytes]], object], *, suffix: str = ".tmp") -> None:
    """Write a new file beside the old one, and let it take its place once the disk has it.

    Args:
        path: file to write; what stands there stays until then, and where anything is raised.
        write: is given the new file.
        suffix: of the new file's name until then. It is the same for all writers, so that one that was killed leaves at
            most one file behind; where several may write at once, each needs its own.

    Raises:
        OSError: the disk refuses it.
    """
    temporary = path.with_name(path.name[:100] + suffix)
    temporary.unlink(missing_ok=True)  # a killed process', or a link that somebody put there
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
