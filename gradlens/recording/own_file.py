"""A file that this process made, and that is written to only while it is still that file.

A program may close descriptors that it did not open (a daemon does), and the number then stands for another file, of
the user's; a folder may be renamed, deleted, or replaced by another one of its name. Neither must be written to.
"""

import contextlib
import errno
import os
from pathlib import Path


class OwnFile:
    """A new file at a path, unbuffered.

    Args:
        path: where nothing is yet.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL
        self._descriptor: int = os.open(path, flags | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0), 0o666)
        self._was = os.fstat(self._descriptor)

    def write(self, rest: memoryview) -> None:
        """Append all of it: on a disk that is nearly full a write may be short, and only the next one fails.

        Raises:
            OSError: the disk refused it, or the file is not there any more.
        """
        if not self._is_ours():
            raise OSError(errno.EBADF, "its descriptor was closed by another part of this program", self._path)
        self._check_place()
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def close(self) -> None:
        """Close it.

        Raises:
            OSError: it is not there any more.
        """
        descriptor, self._descriptor = (self._descriptor if self._is_ours() else -1), -1
        if descriptor >= 0:
            os.close(descriptor)
        self._check_place()

    def _check_place(self) -> None:
        if not os.path.samestat(os.stat(self._path), self._was):
            raise FileNotFoundError(errno.ENOENT, "another file has taken its place", self._path)

    def _is_ours(self) -> bool:
        try:
            return self._descriptor >= 0 and os.path.samestat(os.fstat(self._descriptor), self._was)
        except OSError:
            return False

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()
