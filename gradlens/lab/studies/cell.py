"""The cells of a study: what is trained, or measured at initialization, how."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gradlens.lab.runs.jobs import Run, ZooJob
from gradlens.lab.runs.limit import LimitRun, Predictor
from gradlens.lab.runs.measurement import Measurement
from gradlens.lab.training.config import TrainingConfig

WATCH = ("norms", "blocks", "params")


@dataclass(frozen=True, kw_only=True)
class Cell(ABC):
    """One model of a study and what is done with it.

    Attributes:
        key: its folder below ``runs``.
        label: the name in tables and legends.
        part: of the study.
        task: name in ``TASKS``.
        variant: of the task's model.
        size: keyword arguments of the model.
        watch: what the lens records.
        seconds: what one job takes on one core of the machine the budget was made on; only the time left
            is estimated from it, until jobs of the task have finished here.
    """

    key: str
    label: str
    part: str
    task: str
    variant: str
    size: Mapping[str, Any] = field(default_factory=dict)
    watch: tuple[str, ...] = WATCH
    seconds: float

    @abstractmethod
    def jobs(self, seeds: int | None, device: str) -> Sequence[ZooJob]:
        """List the cell's jobs.

        Args:
            seeds: training runs; by default the cell's.
            device: ``"auto"`` or a name that torch knows.
        """

    def _of_jobs(self) -> dict[str, Any]:
        """Return what all jobs of the cell share."""
        names = ("task", "variant", "size", "watch", "seconds")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, kw_only=True)
class Trained(Cell):
    """A model that is trained, one run a seed.

    Attributes:
        training: fields of ``TrainingConfig``, without seed and device.
        seeds: runs, unless another number is asked for.
    """

    training: Mapping[str, Any]
    seeds: int

    def jobs(self, seeds: int | None, device: str) -> Sequence[ZooJob]:
        """List one training run a seed."""
        return [self._run(seed, device) for seed in range(seeds or self.seeds)]

    def _run(self, seed: int, device: str) -> Run:
        return Run(**self._of_run(seed, device))

    def _of_run(self, seed: int, device: str) -> dict[str, Any]:
        """Return what makes one run."""
        return {
            **self._of_jobs(),
            "key": f"{self.key}/seed-{seed}",
            "label": f"{self.label}, seed {seed}",
            "config": TrainingConfig(**self.training, seed=seed, device=device),
        }


@dataclass(frozen=True, kw_only=True)
class TrainedAtLimit(Trained):
    """A model that is trained at a multiple of the largest stable learning rate that is predicted for each run.

    Attributes:
        by: what predicts, as in ``LimitRun``.
        factor: of the predicted limit; ``training`` has no learning rate.
    """

    by: Predictor
    factor: float

    def _run(self, seed: int, device: str) -> Run:
        return LimitRun(**self._of_run(seed, device), by=self.by, factor=self.factor)


@dataclass(frozen=True, kw_only=True)
class Untrained(Cell):
    """A model that is measured at initialization: one recording with all its seeds.

    Attributes:
        seeds: in the recording.
        batch_size: sequences in a batch.
        length: tokens in a sequence.
        probes: whose readings the recording holds.
    """

    seeds: int
    batch_size: int
    length: int
    probes: tuple[str, ...] = ()

    def jobs(self, seeds: int | None, device: str) -> Sequence[ZooJob]:
        """List the one measurement, whose number of seeds is part of what it is."""
        return [
            Measurement(
                **self._of_jobs(),
                key=self.key,
                label=self.label,
                seeds=tuple(range(self.seeds)),
                batch_size=self.batch_size,
                length=self.length,
                device=device,
                probes=self.probes,
            )
        ]
