"""The settings of a comparison: what is the same for everything in it. Torch is not needed to make them."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from gradlens.lab.training.config import TrainingConfig, refused

if TYPE_CHECKING:
    from gradlens.lab.tasks.task import Batch, Task


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the models of a comparison are measured and trained.

    The defaults finish two variants within three minutes on two cores without a GPU, and are large enough to
    show what is known of them: Post-LN stalls where Adam starts at its full learning rate, Pre-LN does not
    (Xiong et al. 2020, section 3.1).

    Attributes:
        task: name in ``TASKS``.
        layers: blocks of a zoo model.
        width: length of a token's vector in it.
        heads: of its attention.
        seeds: how many models are measured at initialization: seed, seed + 1, ...
        init_only: measure at initialization, train nothing.
        train_seeds: training runs of each variant and schedule.
        steps: optimizer steps of a training run.
        lr: the highest learning rate.
        warmup: steps of the warm-up, in the runs that have one; a third of the steps where it is None; with 0
            there is no such run.
        batch_size: sequences in a batch, also at initialization.
        length: tokens in a sequence, also at initialization.
        seed: the first seed.
        device: ``"auto"`` or a name that torch knows.

    Raises:
        GradlensError: a setting is impossible; the message says what must hold.
    """

    task: str = "lm"
    layers: int = 6
    width: int = 96
    heads: int = 4
    seeds: int = 10
    init_only: bool = False
    train_seeds: int = 1
    steps: int = 240
    lr: float = 2e-3
    warmup: int | None = None
    batch_size: int = 16
    length: int = 64
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in ("layers", "width", "heads", "seeds", "train_seeds"):
            if getattr(self, name) < 1:
                raise refused(self, name, "1 or more")
        # What a training would refuse, it would refuse in words of its own settings, and with their defaults.
        if not 0 < self.lr < math.inf:
            raise refused(self, "lr", "a finite number above 0")
        if self.warmup is not None and self.warmup > self.steps:
            raise refused(self, "warmup", f"no longer than a run's {self.steps} steps")
        for schedule in self.schedules:
            self.training(schedule)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON; the warm-up in steps."""
        return asdict(self) | {"warmup": self.warmup_steps}

    @property
    def warmup_steps(self) -> int:
        """The length of the warm-up in the runs that have one, in steps."""
        return self.steps // 3 if self.warmup is None else self.warmup

    @property
    def schedules(self) -> tuple[str, ...]:
        """The schedules each variant is trained with."""
        return ("no warm-up", "warm-up") if self.warmup_steps else ("no warm-up",)

    @property
    def size(self) -> dict[str, int]:
        """The keyword arguments that size a zoo model."""
        return {"width": self.width, "blocks": self.layers, "heads": self.heads}

    def batch(self, task: "Task", seed: int) -> "Batch":
        """Return the task's batch that a seed is measured on at initialization."""
        return task.batch(0, seed=seed, batch_size=self.batch_size, length=self.length)

    def training(self, schedule: str, seed_index: int = 0) -> TrainingConfig:
        """Return the settings of one training run.

        Runs with and without warm-up share the decay, lr sqrt(warmup / step) after the warm-up's end, so that
        the first steps are all in which they differ.

        Args:
            schedule: ``"warm-up"`` or ``"no warm-up"``.
            seed_index: which of the ``train_seeds`` runs.
        """
        warmup = self.warmup_steps
        return TrainingConfig(
            steps=self.steps,
            batch_size=self.batch_size,
            length=self.length,
            lr=self.lr,
            warmup=warmup if schedule == "warm-up" else 0,
            decay="inverse-sqrt" if warmup else "constant",
            decay_from=warmup or None,
            seed=self.seed + seed_index,
            device=self.device,
            evaluate_every=max(1, self.steps // 6),
            checkpoint_every=max(1, self.steps // 8),
        )


#: Settings that change where or how fast something is computed, and not what comes out up to rounding.
FREE = frozenset({"device"})


def changes(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Return a phrase for each setting that differs, such as ``steps (was 100, now 200)``."""
    names = dict.fromkeys([*there, *here])
    return [
        f"{name} (was {there.get(name)!r}, now {here.get(name)!r})"
        for name in names
        if name not in FREE and there.get(name) != here.get(name)
    ]
