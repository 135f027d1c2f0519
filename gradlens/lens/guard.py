"""Between a lens and the training that it watches: what goes wrong in the lens stays there.

One site's trouble silences that site (``Tap.failed``). Trouble with a whole step, or with the disk, ends the recording:
it is said once, nothing more is recorded, and the training goes on. With ``strict`` both are raised instead.
"""

import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import ParamSpec, TypeVar

import numpy as np
from torch.utils import checkpoint

from gradlens.errors import GradlensError, one_line

_P = ParamSpec("_P")
_T = TypeVar("_T")

#: What a hook must let pass: with it a checkpoint's second pass ends when it has all it needs.
PASSES = checkpoint._StopRecomputationError


class Guard:
    """Catches what the lens' own code raises.

    Args:
        strict: raise it on instead.
    """

    def __init__(self, strict: bool = False) -> None:
        self.strict = strict
        #: What ended the recording, in one sentence; empty while it goes on.
        self.ended = ""
        #: Called when that is known.
        self.on_end: Callable[[], None] = lambda: None

    def around(self, function: Callable[_P, _T]) -> Callable[_P, _T | None]:
        """Return a function that does the same, raises nothing, and does nothing once the recording has ended."""

        def run(*args: _P.args, **kwargs: _P.kwargs) -> _T | None:
            if self.ended:
                return None
            try:
                # Whatever the user has set: that a value is missing is no error here.
                with np.errstate(all="ignore"):
                    return function(*args, **kwargs)
            except PASSES:
                raise
            except Exception as error:
                self.end(error)
                return None

        return run

    def end(self, error: Exception) -> None:
        """End the recording because of an error."""
        if self.strict:
            raise error
        if not self.ended:
            self.ended = str(error) if isinstance(error, GradlensError) else f"The lens failed: {one_line(error)}."
            self.on_end()


def warn(message: str) -> None:
    """Say something in the log; on stderr too, where the log does not go to the terminal."""
    log = logging.getLogger("gradlens")
    log.warning(message)
    # Without any handler logging itself writes to stderr.
    shown = not log.hasHandlers() or any(map(_on_terminal, _handlers(log)))
    if not (shown and log.isEnabledFor(logging.WARNING)):
        with suppress(Exception):  # it may be closed, or a file on the disk that is full
            print(message, file=sys.stderr)


def _handlers(log: logging.Logger | None) -> list[logging.Handler]:
    found: list[logging.Handler] = []
    while log is not None:
        found += log.handlers
        log = log.parent if log.propagate else None
    return found


def _on_terminal(handler: logging.Handler) -> bool:
    streams = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    return getattr(handler, "stream", None) in streams or hasattr(handler, "console")  # rich has one
