"""A report's files appear whole or not at all."""

import os
from pathlib import Path

from gradlens.errors import GradlensError
from gradlens.recording.whole import write_then_rename


def write_whole(path: Path, content: bytes) -> None:
    """Write a file; what stood there before stays until all of it is there.

    Args:
        path: file to write; folders above it are made.
        content: all of it.

    Raises:
        GradlensError: the folder cannot be made or written, the disk is full, or the path is a folder.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_then_rename(path, lambda file: file.write(content), suffix=f".{os.getpid()}.tmp")
    except OSError as error:
        raise GradlensError(
            f"{path} cannot be written: {error.strerror or error}. Nothing was changed there. "
            "Free some space or name another path."
        ) from error
