"""The settings of one training run, checked when they are made; torch is not needed to make them."""

import math
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, get_args

from gradlens.errors import GradlensError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Decay = Literal["constant", "inverse-sqrt", "linear"]
Optimizer = Literal["adam", "adamw", "sgd"]


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How one model is trained.

    Attributes:
        steps: optimizer steps.
        batch_size: sequences in one micro-batch.
        length: tokens in one sequence.
        lr: the highest learning rate.
        warmup: steps in which the learning rate rises linearly to ``lr``; 0 for none.
        decay: what it does then: stays, falls like 1/sqrt(step), or falls linearly to 0 after the last step.
        decay_from: step count at which the decay starts; by default the end of the warm-up. A run without
            warm-up that is compared with one that has it takes that one's, so that only the warm-up differs.
        optimizer: ``"adam"``, ``"adamw"`` or ``"sgd"``.
        betas: Adam's and AdamW's decay rates of the two moments.
        weight_decay: on every parameter, decoupled in AdamW, a gradient term in the others.
        momentum: of SGD.
        accumulation: micro-batches in one step; their mean loss is the step's.
        clip: largest L2 norm of the whole gradient; None leaves it as it is.
        seed: of the weights, the data order and dropout together.
        device: ``"auto"`` (CUDA, else Apple's MPS, else the CPU) or a name that torch knows.
        every: the lens records each ``every``-th step; ``"auto"``: as often as its budget of time allows.
        evaluate_every: steps between evaluations on held-out data, and one after the last step; 0 for none.
        evaluation_batches: batches in one evaluation.
        checkpoint_every: steps between checkpoints, from which a killed run goes on; 0 for none.
    """

    steps: int = 200
    batch_size: int = 16
    length: int = 64
    lr: float = 1e-3
    warmup: int = 0
    decay: Decay = "constant"
    decay_from: int | None = None
    optimizer: Optimizer = "adam"
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.0
    momentum: float = 0.0
    accumulation: int = 1
    clip: float | None = None
    seed: int = 0
    device: str = "auto"
    every: int | Literal["auto"] = 1
    evaluate_every: int = 50
    evaluation_batches: int = 8
    checkpoint_every: int = 50

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulation", "evaluation_batches"):
            self._require(name, _is_count(getattr(self, name), 1), "a whole number from 1 up")
        self._require("every", self.every == "auto" or _is_count(self.every, 1), "a whole number from 1 up, or 'auto'")
        for name in ("warmup", "seed", "evaluate_every", "checkpoint_every"):
            self._require(name, _is_count(getattr(self, name), 0), "a whole number from 0 up")
        self._require("length", _is_count(self.length, 2), "a whole number from 2 up")
        self._require("warmup", self.warmup <= self.steps, f"no longer than the run's {self.steps} steps")
        self._require("lr", math.isfinite(self.lr) and self.lr > 0, "a finite number above 0")
        self._require("decay", self.decay in get_args(Decay), f"one of {', '.join(get_args(Decay))}")
        self._require("optimizer", self.optimizer in get_args(Optimizer), f"one of {', '.join(get_args(Optimizer))}")
        self._require("betas", _are_betas(self.betas), "two numbers in [0, 1)")
        for name in ("weight_decay", "momentum"):
            value = getattr(self, name)
            self._require(name, math.isfinite(value) and value >= 0, "a finite number from 0 up")
        self._require("clip", self.clip is None or self.clip > 0, "a number above 0, or None")
        self._require_decay_from()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return asdict(self) | {"betas": list(self.betas)}

    @property
    def decay_start(self) -> int:
        """The step count at which the decay starts."""
        return self.warmup if self.decay_from is None else self.decay_from

    @property
    def schedule(self) -> str:
        """The schedule in the recording's words: ``"warm-up"`` or ``"no warm-up"``."""
        return "warm-up" if self.warmup else "no warm-up"

    def _require_decay_from(self) -> None:
        if self.decay_from is not None:
            self._require(
                "decay_from",
                _is_count(self.decay_from, self.warmup) and self.decay_from <= self.steps,
                f"from the end of the warm-up ({self.warmup}) to the last step ({self.steps})",
            )
        if self.decay == "inverse-sqrt":
            needs = "at least 1 for an inverse-sqrt decay, which is lr * sqrt(decay_from / step)"
            self._require("decay_from", self.decay_start >= 1, needs)

    def _require(self, name: str, holds: bool, must: str) -> None:
        if not holds:
            raise refused(self, name, must)


def refused(settings: "DataclassInstance", name: str, must: str) -> GradlensError:
    """Return the error that says what a setting must be, what it is, and its default among those it was given with."""
    default = next(field.default for field in fields(settings) if field.name == name)
    usual = "" if default is None else f"; its default is {default!r}"
    return GradlensError(f"The setting {name!r} must be {must}; it is {getattr(settings, name)!r}. Change it{usual}.")


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _are_betas(betas: tuple[float, ...]) -> bool:
    return len(betas) == 2 and all(0 <= beta < 1 for beta in betas)
