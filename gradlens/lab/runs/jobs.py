"""A job makes one recording: of a model at initialization, or of a training run.

Jobs are plain values that travel to other processes, and idempotent: what is finished in their folder is read, what was
cut off goes on.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeAlias

from gradlens.lab.tasks import TASKS
from gradlens.lab.tasks.task import Task
from gradlens.lab.training.config import TrainingConfig
from gradlens.lab.training.trainer import Progress, train
from gradlens.recording import Recording

#: Called with how much of ``Job.total`` is done and, in training, loss and speed.
OnProgress: TypeAlias = Callable[[int, Progress | None], None]


@dataclass(frozen=True, kw_only=True)
class Job(ABC):
    """One recording, as plain values: it is sent to another process.

    Attributes:
        key: its folder below ``runs``, such as ``lm/adanorm/seed-0``.
        label: the name in tables and legends.
        task: name in ``TASKS``.
        seconds: what it is expected to take, until others of its task have ended here.
    """

    key: str
    label: str
    task: str
    seconds: float = 1.0

    @property
    @abstractmethod
    def total(self) -> int:
        """Steps or seeds in all."""

    @property
    @abstractmethod
    def runs_on(self) -> str:
        """The device's name, or ``"auto"``."""

    def folder(self, out: Path) -> Path:
        """Return its run folder in that of all runs."""
        return out / "runs" / self.key

    @abstractmethod
    def record(self, folder: Path, on_progress: OnProgress) -> Recording:
        """Make the recording, go on with it, or read it where it is finished with the same settings.

        Args:
            folder: its run folder.
            on_progress: called as it goes on.

        Raises:
            RecordingError: the folder holds a recording of other settings.
            GradlensError: it cannot be made.
        """


@dataclass(frozen=True, kw_only=True)
class ZooJob(Job):
    """A job with a model of the zoo.

    Attributes:
        variant: of the task's model.
        size: keyword arguments of the model.
        watch: what the lens records.
    """

    variant: str
    size: Mapping[str, Any]
    watch: tuple[str, ...] = ("norms", "blocks", "params")


@dataclass(frozen=True, kw_only=True)
class Run(ZooJob):
    """One training run.

    Attributes:
        config: how it is trained.
    """

    config: TrainingConfig

    @property
    def total(self) -> int:
        """Steps in all."""
        return self.config.steps

    @property
    def runs_on(self) -> str:
        """The device's name, or ``"auto"``."""
        return self.config.device

    def record(self, folder: Path, on_progress: OnProgress) -> Recording:
        """Train, go on with the training, or read it."""
        return self.train(folder, on_progress, self.config, {})

    def train(
        self, folder: Path, on_progress: OnProgress, config: TrainingConfig, meta: Mapping[str, Any]
    ) -> Recording:
        """Train with a configuration and further metadata."""
        task = load_task(self.task)
        return train(
            partial(task.model, self.variant, **self.size),
            task,
            config,
            out=folder,
            label=self.label,
            meta={"variant": self.variant, **meta},
            watch=self.watch,
            on_step=lambda progress: on_progress(progress.step, progress),
        )


@cache
def load_task(name: str) -> Task:
    """Load a task once in a process."""
    task: Task = TASKS[name]()
    return task
