"""How much of a paper's experiment is run: what is trained how long on each task."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gradlens.training.config import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How one task is trained in one budget; the same for every norm.

    Attributes:
        arrangement: of the model.
        size: keyword arguments of the model.
        training: fields of ``TrainingConfig``, without seed and device.
        seconds: what one run takes on one core of the machine the budget was made on; only the time left
            is estimated from it, until runs of the task have finished here.
    """

    arrangement: str
    size: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any]
    seconds: float

    def config(self, seed: int, device: str) -> TrainingConfig:
        """Return the settings of one run."""
        return TrainingConfig(**self.training, seed=seed, device=device)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """One size of a study.

    Attributes:
        about: what it is for and how long it takes.
        seeds: runs of each norm on each task, unless another number is asked for.
        settings: task to how it is trained.
    """

    about: str
    seeds: int
    settings: Mapping[str, Setting]
