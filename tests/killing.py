"""Processes that write runs, and are killed in the middle of it."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

#: End of a program that defines ``write(folder)``, which notes in FOLDER.ack each step that is safe: a fork of it
#: writes for every folder named on stdin, and its number is printed.
_FORKS = """
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        write(line.strip())
    print(child, flush=True)
    os.waitpid(child, 0)
    print("ended", flush=True)
"""


@contextmanager
def launched(program: str) -> Iterator["subprocess.Popen[str]"]:
    """Start the process that forks the others: a program that imports os and sys, and defines ``write``."""
    command = [sys.executable, "-c", textwrap.dedent(program) + _FORKS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as launcher:
        yield launcher
        assert launcher.stdin is not None
        launcher.stdin.close()


def killed(
    launcher: "subprocess.Popen[str]", folder: Path, after: float, begun: Callable[[], bool] = lambda: True
) -> list[int]:
    """Let a run be written, and kill it.

    Args:
        launcher: of ``launched``.
        folder: the run's.
        after: seconds from the first step that is safe, and begun, on.
        begun: what must be true besides.

    Returns:
        The steps that were safe.
    """
    assert launcher.stdin is not None
    assert launcher.stdout is not None
    launcher.stdin.write(f"{folder}\n")
    launcher.stdin.flush()
    child, told = int(launcher.stdout.readline()), Path(f"{folder}.ack")
    while not (told.exists() and begun()):
        time.sleep(0.005)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    assert launcher.stdout.readline() == "ended\n"
    return [int(line) for line in told.read_text().splitlines()]
