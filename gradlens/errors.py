"""The errors a user can meet. Each message says what must hold, what was got, and what to do.

They are raised anywhere and caught once, in ``gradlens.cli.main``, which prints the message without a
traceback and leaves with the class's exit code.
"""

import difflib
import importlib
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

#: Files whose frames say nothing of where a user's code failed.
_MACHINERY = ("<", str(Path(__file__).parent), str(Path(importlib.__file__).parent))


class GradlensError(Exception):
    """The base: the request, the model or the file cannot be used as it is."""

    exit_code: ClassVar[int] = 2


class UnknownNameError(GradlensError):
    """A name that no registry holds; the message lists the near ones."""

    def __init__(self, what: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"Known: {', '.join(names)}."
        super().__init__(f"There is no {what} named {name!r}. {hint}")


class ModelError(GradlensError):
    """A model, its batch or its loss cannot be built or run."""


class RecordingError(GradlensError):
    """A run folder or one of its files is missing, foreign, damaged, newer, or in use."""


class NothingFoundError(GradlensError):
    """There is nothing to look at: no normalization in the model, no row in the recording."""

    exit_code = 5


def one_line(error: BaseException) -> str:
    """Return an exception of a user's code as one line: its kind, its message's first line, where it was raised."""
    text = (str(error).strip().splitlines() or [""])[0][:300]
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(_MACHINERY)]
    frames = [f for f in frames if "site-packages/torch/" not in f.filename]  # it calls every model
    frames = [f for f in frames if "site-packages" not in f.filename] or frames
    named = not frames or isinstance(error, SyntaxError)  # whose message names the place itself
    place = "" if named else f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})"
    return f"{type(error).__name__}{f': {text}' if text else ''}{place}"
