"""A model of the user's, named ``pkg.mod:build`` or ``file.py:build``: imported, called, and checked."""

import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import gradlens
from gradlens.errors import GradlensError, ModelError, UnknownNameError
from gradlens.tasks.batches import run_model
from gradlens.tasks.task import Task
from gradlens.training.keywords import keywords, missing, parameters
from gradlens.training.settings import Settings
from gradlens.training.subject import Subject

_RETURNS = "a torch.nn.Module, (module, batch) or (module, batch, loss_fn)"


class Parts(NamedTuple):
    """What a build function returned."""

    module: nn.Module
    batch: Any = None
    loss_fn: Callable[[Any, Any], Tensor] | None = None


@dataclass(frozen=True)
class UserModel:
    """One operand that names a function of the user's.

    Attributes:
        spec: as it was given.
        build: the function, or class, that makes the model.
        arguments: its keyword arguments.
        batch_fn: makes a batch; None where build is to return one.
    """

    spec: str
    build: Callable[..., Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    batch_fn: Callable[[], Any] | None = None

    @classmethod
    def load(cls, spec: str, pairs: Sequence[str] = (), batch: str | None = None) -> "UserModel":
        """Import what a spec names.

        Args:
            spec: ``pkg.mod:build`` or ``file.py:build``.
            pairs: ``key=value`` texts for its keyword arguments.
            batch: spec of a function without arguments that returns a batch.

        Raises:
            GradlensError: it does not import, is not callable, or does not take the arguments.
        """
        build = _load_callable(spec)
        arguments = keywords(build, spec, pairs)
        return cls(spec, build, arguments, None if batch is None else _load_callable(batch))

    @property
    def label(self) -> str:
        """The name in tables and legends: the spec, without the folders of a file."""
        where, _, name = self.spec.rpartition(":")
        return f"{Path(where).name}:{name}"

    def subject(self, task: Task, settings: Settings) -> Subject:
        """Prepare it for measuring, and for training where it can be fitted to the task.

        Raises:
            ModelError: it cannot be built, or there is no batch to run it on.
        """
        extra, why_not = self._fit(task, settings)
        own = self.batch_fn is not None or bool(why_not)
        draw = _Draw(lambda: self._parts(extra))
        if own:
            draw.batch(settings.seed)  # what is wrong with the model is said before anything is written
        note = f"{self.label} is measured at initialization only: {why_not}." if why_not else ""
        return Subject(
            label=self.label,
            variant=self.label,
            task=task,
            build=draw.module,
            batches=draw.batch if own else lambda seed: _task_batch(task, settings, seed),
            loss_fn=draw.loss_fn if own else task.loss,
            trainable=not why_not,
            note=note,
            facts=self.facts(),
        )

    def facts(self) -> dict[str, Any]:
        """Return what tells this operand from another, the state of its source file included."""
        try:
            source = inspect.getsourcefile(inspect.unwrap(self.build))
            digest = hashlib.sha256(Path(source).read_bytes()).hexdigest() if source else None
        except (TypeError, OSError):  # no Python function, or typed into an interpreter
            digest = None
        arguments = {
            key: value if isinstance(value, int | float | bool) else str(value)
            for key, value in self.arguments.items()
        }
        return {"operand": self.label, "arguments": arguments, "source_sha256": digest}

    def _fit(self, task: Task, settings: Settings) -> tuple[dict[str, Any], str]:
        """Return the keywords that fit build to the task, and why it cannot be trained on it, if so."""
        vocab = task.describe().get("vocab")
        if "vocab" not in parameters(self.build) or vocab is None:
            why_not = f"its function takes no keyword vocab, and the task {task.name!r} has {vocab} tokens"
            return {}, why_not
        extra = {"vocab": vocab} if "vocab" not in self.arguments else {}
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(settings.seed)
            module = self._parts(extra).module
            batch = _task_batch(task, settings, settings.seed)
            try:
                task.loss(run_model(module, batch), batch)
            except Exception as error:  # whatever the user's forward raises means that it does not fit
                return extra, f"it does not take the batches of the task {task.name!r} ({one_line(error)})"
        return extra, ""

    def _parts(self, extra: Mapping[str, Any]) -> Parts:
        """Call build, and check what it returns."""
        given = {**extra, **self.arguments}
        absent = missing(self.build, given)
        if absent:
            wanted = " ".join(f"-m {name}=VALUE" for name in absent)
            raise ModelError(
                f"{self.spec} needs {', '.join(absent)}; got no value. Add {wanted}, or give a default."
            )
        try:
            returned = self.build(**given)
            parts = (
                Parts(*returned)
                if isinstance(returned, tuple) and 1 <= len(returned) <= 3
                else Parts(returned)
            )
            batch = self.batch_fn() if self.batch_fn is not None else parts.batch
        except (Exception, SystemExit) as error:
            raise ModelError(f"{self.spec} must build a model; it raised {one_line(error)}.") from error
        if not isinstance(parts.module, nn.Module):
            raise ModelError(f"{self.spec} must return {_RETURNS}; it returned {_kind(returned)}.")
        if parts.loss_fn is not None and not callable(parts.loss_fn):
            raise ModelError(
                f"The third thing {self.spec} returns must be a loss function; got {_kind(parts.loss_fn)}."
            )
        return parts._replace(batch=batch)


class _Draw:
    """One build a seed gives both the batch and the model that runs it."""

    def __init__(self, parts: Callable[[], Parts]) -> None:
        self._parts = parts
        self._kept: Parts | None = None

    def batch(self, seed: int) -> Any:
        """Build under a seed, keep the model for ``module``, and return the batch.

        Raises:
            ModelError: there is none.
        """
        torch.manual_seed(seed)
        self._kept = self._parts()
        if self._kept.batch is None:
            raise ModelError(
                f"A model is run on a batch, and none was returned with {_kind(self._kept.module)}. "
                "Return (module, batch) from build, where batch is what the module's forward takes: a tensor, "
                "a tuple of arguments or a dict of keywords. Or name a function that returns one: "
                "--batch pkg.mod:fn."
            )
        return self._kept.batch

    def module(self) -> nn.Module:
        """Return the model that belongs to the last batch, or one built now."""
        kept, self._kept = self._kept or self._parts(), None
        return kept.module

    @property
    def loss_fn(self) -> Callable[[Any, Any], Tensor] | None:
        """The loss that was returned with the last batch."""
        return self._kept.loss_fn if self._kept else None


def _task_batch(task: Task, settings: Settings, seed: int) -> Any:
    return task.batch(0, seed=seed, batch_size=settings.batch_size, length=settings.length)


def _load_callable(spec: str) -> Callable[..., Any]:
    """Import the function that a spec names."""
    where, _, name = spec.rpartition(":")
    if not where or not name:
        raise GradlensError(f"A model is named pkg.mod:build or file.py:build; got {spec!r}.")
    found: Any = _import_file(Path(where), spec) if where.endswith(".py") else _import_module(where, spec)
    for part in name.split("."):
        if not hasattr(found, part):
            public = (
                [known for known in vars(found) if not known.startswith("_")]
                if hasattr(found, "__dict__")
                else []
            )
            raise UnknownNameError(f"function of {where}", part, public)
        found = getattr(found, part)
    if isinstance(found, nn.Module):
        raise GradlensError(
            f"{spec} must be a function that builds the model; it is one. Write `def build(): return {name}`."
        )
    if not callable(found):
        raise GradlensError(
            f"{spec} must be a function that returns a model; it is {_kind(found)}, which cannot be called."
        )
    return found  # type: ignore[no-any-return]


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


def one_line(error: BaseException) -> str:
    """Return an exception as one line: its kind, the first line of its message, and where it was raised."""
    text = (str(error).strip().splitlines() or [""])[0][:300]
    machinery = ("<", str(Path(gradlens.__file__).parent), str(Path(importlib.__file__).parent))
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(machinery)]
    frames = [f for f in frames if "site-packages" not in f.filename] or frames
    named = not frames or isinstance(error, SyntaxError)  # whose message names the place itself
    place = "" if named else f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})"
    return f"{type(error).__name__}{f': {text}' if text else ''}{place}"


def _kind(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"
