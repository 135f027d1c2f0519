"""A model of the user's, named ``pkg.mod:build`` or ``file.py:build``: imported, called, and checked."""

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gradlens.batches import run_model
from gradlens.errors import ModelError, one_line
from gradlens.lab.operands.importing import called_for_batch, kind_of, load_callable, reloaded
from gradlens.lab.operands.keywords import keywords, missing, parameters
from gradlens.lab.operands.subject import AtInit, Subject
from gradlens.lab.tasks.task import Task
from gradlens.lab.training.settings import Settings

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
        given: the texts of its arguments and of its batch, by which it travels to another process.
        whole_label: whether the label is the whole spec, for another operand has the same short one.
    """

    spec: str
    build: Callable[..., Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    batch_fn: Callable[[], Any] | None = None
    given: tuple[tuple[str, ...], str | None] = ((), None)
    whole_label: bool = False

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
        build = load_callable(spec)
        arguments = keywords(build, spec, pairs)
        return cls(spec, build, arguments, None if batch is None else load_callable(batch), (tuple(pairs), batch))

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return reloaded, (UserModel, self.spec, *self.given, self.whole_label)

    @property
    def label(self) -> str:
        """The name in tables and legends: the spec, without the folders of a file."""
        if self.whole_label:
            return self.spec
        where, _, name = self.spec.rpartition(":")
        return f"{Path(where).name}:{name}"

    def in_full(self) -> "UserModel":
        """Return the same with the whole spec as its label, where another operand shares the short one."""
        return replace(self, whole_label=True)

    def subject(self, task: Task, settings: Settings) -> Subject:
        """Prepare it for measuring, and for training where it can be fitted to the task.

        Raises:
            ModelError: it cannot be built, or there is no batch to run it on.
        """
        extra, why_not = self._fit(task, settings)
        if self.batch_fn is None and not why_not:
            at_init = AtInit(lambda: self._parts(extra).module, partial(settings.batch, task), task.loss)
        else:
            draw = _Draw(lambda: self._parts(extra))
            draw.batch(settings.seed)  # what is wrong with the model is said before anything is written
            at_init = AtInit(draw.module, draw.batch, draw.loss_fn)
        note = f"{self.label} is measured at initialization only: {why_not}." if why_not else ""
        return Subject(
            label=self.label,
            variant=self.label,
            task=task,
            build=lambda: self._parts(extra).module,
            at_init=at_init,
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
            key: value if isinstance(value, int | float | bool) else str(value) for key, value in self.arguments.items()
        }
        return {"operand": self.label, "arguments": arguments, "source_sha256": digest}

    def _fit(self, task: Task, settings: Settings) -> tuple[dict[str, Any], str]:
        """Return the keywords that fit build to the task, and why it cannot be trained on it, if so."""
        vocab = task.describe().get("vocab")
        if "vocab" not in parameters(self.build) or vocab is None:
            return {}, f"its function takes no keyword vocab, the number of tokens of the task {task.name!r}"
        extra = {"vocab": vocab} if "vocab" not in self.arguments else {}
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(settings.seed)
            module = self._parts(extra).module
            batch = settings.batch(task, settings.seed)
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
            raise ModelError(f"{self.spec} needs {', '.join(absent)}; got no value. Add {wanted}, or give a default.")
        try:
            returned = self.build(**given)
            parts = Parts(*returned) if isinstance(returned, tuple) and 1 <= len(returned) <= 3 else Parts(returned)
        except (Exception, SystemExit) as error:
            raise ModelError(f"{self.spec} must build a model; it raised {one_line(error)}.") from error
        batch = parts.batch if self.batch_fn is None else called_for_batch(self.batch_fn)
        if not isinstance(parts.module, nn.Module):
            raise ModelError(f"{self.spec} must return {_RETURNS}; it returned {kind_of(returned)}.")
        if parts.loss_fn is not None and not callable(parts.loss_fn):
            raise ModelError(
                f"The third thing {self.spec} returns must be a loss function; got {kind_of(parts.loss_fn)}."
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
                f"A model is run on a batch, and none was returned with {kind_of(self._kept.module)}. "
                "Return (module, batch) from build, where batch is what the module's forward takes: "
                "a tensor, a tuple of arguments or a dict of keywords. Or name a function that returns one: "
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
