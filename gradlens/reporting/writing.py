"""Files appear whole or not at all."""

import os
import tempfile
from pathlib import Path

from gradlens.errors import GradlensError


def write_whole(path: Path, content: bytes) -> None:
    """Write a file by a temporary neighbour and a rename; what stood there before stays until then.

    Args:
        path: file to write; folders above it are made.
        content: all of it.

    Raises:
        GradlensError: the folder cannot be made or written, the disk is full, or the path is a folder.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name[:100]}-", suffix=".tmp", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
        raise GradlensError(
            f"{path} cannot be written: {error.strerror or error}. Nothing was changed there. "
            "Free some space or name another path."
        ) from error


def _umask() -> int:
    """Return the process' umask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
