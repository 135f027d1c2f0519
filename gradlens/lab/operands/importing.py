"""Importing what the user names, ``pkg.mod:name`` or ``file.py:name``, and saying in one line why it fails."""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from gradlens.errors import GradlensError, ModelError, UnknownNameError, one_line


def load_callable(spec: str) -> Callable[..., Any]:
    """Import the function that a spec names.

    Raises:
        GradlensError: it does not import, has no such name, or cannot be called; never the user's own exception.
    """
    where, _, name = spec.rpartition(":")
    if not where or not name:
        raise GradlensError(f"A model is named pkg.mod:build or file.py:build; got {spec!r}.")
    found: Any = _import_file(Path(where), spec) if where.endswith(".py") else _import_module(where, spec)
    for part in name.split("."):
        if not hasattr(found, part):
            public = [known for known in vars(found) if not known.startswith("_")] if hasattr(found, "__dict__") else []
            raise UnknownNameError(f"function of {where}", part, public)
        found = getattr(found, part)
    if isinstance(found, nn.Module):
        raise GradlensError(
            f"{spec} must be a function that builds the model; it is one. Write `def build(): return {name}`."
        )
    if not callable(found):
        raise GradlensError(
            f"{spec} must be a function that returns a model; it is {kind_of(found)}, which cannot be called."
        )
    return found  # type: ignore[no-any-return]


def reloaded(kind: Any, spec: str, pairs: Sequence[str], batch: str | None, whole_label: bool) -> Any:
    """Load an operand of some kind again where it travelled to, as the texts that name it."""
    return replace(kind.load(spec, pairs, batch), whole_label=whole_label)


def called_for_batch(batch_fn: Callable[[], Any], _seed: int = 0) -> Any:
    """Return the batch that a function of the user's makes, whatever the seed.

    Raises:
        ModelError: it raised something.
    """
    try:
        return batch_fn()
    except (Exception, SystemExit) as error:
        raise ModelError(f"--batch must return a batch; its function raised {one_line(error)}.") from error


def _import_module(name: str, spec: str) -> ModuleType:
    _first_on_path(Path.cwd())
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # whatever a module of the user's raises while it is imported
        raise GradlensError(
            f"{spec} must import; {name} raised {one_line(error)}. "
            "Run gradlens where the module can be imported, or name its file: path/to/file.py:build."
        ) from error


def _import_file(path: Path, spec: str) -> ModuleType:
    if not path.is_file():
        raise GradlensError(f"{spec} must name a file; there is none at {path}. Check the path.")
    _first_on_path(path.resolve().parent)
    name = path.stem if path.stem not in sys.modules else f"{path.stem}_{len(sys.modules)}"
    found = importlib.util.spec_from_file_location(name, path.resolve())
    assert found is not None  # it ends in .py
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    try:
        found.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise GradlensError(
            f"{spec} must import; it raised {one_line(error)}. Mend the file, then try again."
        ) from error
    return module


def _first_on_path(folder: Path) -> None:
    """Let the user's module import its neighbours, as it could if Python ran it."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def kind_of(value: Any) -> str:
    """Return a value's type with its article, for a message."""
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
