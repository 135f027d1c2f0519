"""Who writes a run folder: a lock for every process, freed by the system when the process ends, however it ends."""

import errno
import os
import re
import stat
import time
from pathlib import Path

import filelock

from gradlens.errors import RecordingError
from gradlens.recording.folder import refused

Lock = filelock.BaseFileLock

#: What a process of several may have made before the first one writes the manifest.
_EARLY = re.compile(r"lock(-r\d+)?|segments|manifest\.json\.tmp")
_LOCK = re.compile(r"lock(-r\d+)?")
#: Seconds in which to take a lock: somebody who looks whether it is held holds it for a moment.
_PATIENCE = 0.1
_LOOKS = 3


def claim(folder: Path, rank: int = 0) -> Lock:
    """Create the folder and take a process's lock.

    Args:
        folder: the run folder.
        rank: of the process, where several write one run.

    Raises:
        RecordingError: it holds something else, another process writes it, or the disk refuses it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        foreign = [p.name for p in folder.iterdir() if not _EARLY.fullmatch(p.name)]
        if foreign and not (folder / "manifest.json").exists():
            raise RecordingError(
                f"A run folder must be empty or hold a gradlens run; {folder} holds {', '.join(sorted(foreign)[:3])}. "
                "Choose another folder."
            )
        # Not thread_local: a lens may be closed by another thread than attached it. The file is kept, and where the
        # system has no locks that end with a process there is an error, not a marker file that would outlive it.
        path = folder / (f"lock-r{rank}" if rank else "lock")
        lock = filelock.FileLock(
            path, timeout=_PATIENCE, poll_interval=0.02, thread_local=False, preserve_lock_file=True
        )
        lock.acquire()
    except filelock.Timeout as error:
        raise RecordingError(
            f"One process writes a run folder at a time; another one is writing {folder} now. "
            "Wait for it, stop it, or choose another folder."
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
            raise RecordingError(
                f"A run folder must lie where files can be locked; {folder} does not: {error.strerror}. "
                "Choose another --out, on a local disk say."
            ) from error
        raise RecordingError(refused(folder, error)) from error
    return lock


def release(lock: Lock) -> None:
    """Give a lock back."""
    lock.release(force=True)


def locks(folder: Path) -> list[Path]:
    """Return the locks of the processes that wrote or write a folder."""
    return [path for path in folder.iterdir() if _LOCK.fullmatch(path.name)]


def being_written(folder: Path) -> bool:
    """Whether some process holds a lock of the folder now."""
    return any(_held(path) for path in locks(folder))


def _held(path: Path) -> bool:
    """Try the lock on a descriptor of our own, for reading: the folder may be one that we may not write."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return False  # a link, or gone: no process of ours made it
    try:
        return stat.S_ISREG(os.fstat(descriptor).st_mode) and not _taken(descriptor)
    except OSError:
        return False
    finally:
        os.close(descriptor)  # which gives the lock back


def _taken(descriptor: int) -> bool:
    """Try to take a lock; another one who only looks holds it for a moment."""
    for _ in range(_LOOKS):
        if filelock.lock_descriptor(descriptor, blocking=False):
            return True
        time.sleep(0.005)
    return False
