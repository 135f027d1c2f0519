"""A training run whose learning rate is a multiple of the largest stable one that was predicted for it."""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import torch

from gradlens.batches import to_device
from gradlens.errors import GradlensError, ModelError, UnknownNameError
from gradlens.lab.runs.jobs import OnProgress, Run, load_task
from gradlens.lab.training.config import TrainingConfig
from gradlens.lab.training.earlier import finished_run
from gradlens.lab.training.seeding import fan_out, isolated_rng
from gradlens.lab.training.trainer import choose_device
from gradlens.lens.provenance import provenance
from gradlens.lens.sinks import open_sink
from gradlens.recording import Recording
from gradlens.recording.folder import read_manifest

if TYPE_CHECKING:
    from gradlens.probes.optimizers import OptimizerKind

#: How the limit is predicted: the edge of stability at initialization, or the most that a few steps from there survive.
Predictor: TypeAlias = Literal["edge", "trial"]
#: Batches that the limit is predicted from: the first of the training.
_BATCHES = 4


class _NoLimitError(GradlensError):
    """No learning rate can be predicted for this model."""


@dataclass(frozen=True, kw_only=True)
class LimitRun(Run):
    """A training run at ``factor`` times the learning rate that was predicted to be the largest stable one.

    The prediction is made at the run's own initialization, on the batches it begins with. It is kept in the run's
    metadata as ``limit``, and a run that goes on or is reused has it from there: it is not predicted twice, which
    another number of threads would do with another last digit. ``config.lr`` is not used.

    Where nothing can be predicted (no direction curves upwards, or no trial is survived) there is nothing to train at.
    The recording then is complete, without steps, of the kind ``unpredicted`` that no analysis takes; its metadata say
    why under ``no_limit``.

    Attributes:
        by: what predicts: ``edge``, ``gradlens.probes.learning_rate``, or ``trial``, ``gradlens.probes.trial``.
        factor: of the predicted limit.
    """

    by: Predictor
    factor: float

    def record(self, folder: Path, on_progress: OnProgress) -> Recording:
        """Predict the limit, or read it, and train."""
        manifest = read_manifest(folder) if (folder / "manifest.json").exists() else {}
        begun = manifest.get("limit")
        if "no_limit" in manifest:
            return self._unpredicted(folder, manifest["no_limit"])
        try:
            predicted = begun if begun and begun.get("by", "edge") == self.by else self._predict()
        except _NoLimitError as error:
            return self._unpredicted(folder, str(error))
        limit = {**predicted, "by": self.by, "factor": self.factor, "optimizer": _optimizer(self.config)}
        config = dataclasses.replace(self.config, lr=self.factor * limit["predicted"])
        return self.train(folder, on_progress, config, {"limit": limit})

    def _unpredicted(self, folder: Path, reason: str) -> Recording:
        """Record that there is no limit, or read it where that was recorded."""
        facts = {
            "kind": "unpredicted",
            "variant": self.variant,
            "operand": {"by": self.by, "factor": self.factor, **self.size},
            "task": load_task(self.task).describe(),
            "training": self.config.to_dict(),
            "seeds": [self.config.seed],
        }
        earlier = finished_run(folder, facts)
        if earlier is not None:
            return earlier
        sink = open_sink(folder, {**facts, "label": self.label, "no_limit": reason, **provenance()}, rank=0)
        sink.close("complete")
        return sink.recording()

    def _predict(self) -> dict[str, Any]:
        """Return the predicted limit and what was read for it; raises ``_NoLimitError`` where there is none."""
        from gradlens.probes.learning_rate import learning_rate_limit
        from gradlens.probes.trial import trial

        task, config, seeds = load_task(self.task), self.config, fan_out(self.config.seed)
        device = choose_device(config.device)
        with isolated_rng(device):
            torch.manual_seed(seeds.model)  # as the trainer does
            model = task.model(self.variant, **self.size).to(device).train()
            batches = [to_device(self._batch(index, seeds.data), device) for index in range(_BATCHES)]
            plan: dict[str, Any] = {
                "optimizer": _optimizer(config),
                "betas": config.betas,
                "momentum": config.momentum,
                "seed": config.seed,
            }
            try:
                readings = [learning_rate_limit(model, batches, task.loss, **plan)]
                if not math.isfinite(readings[0].value):
                    raise _NoLimitError("no direction curves upwards at initialization")
                if self.by == "trial":
                    readings.append(trial(model, batches, task.loss, start=readings[0].value, **plan))
            except (ModelError, UnknownNameError, _NoLimitError):
                raise  # of the first two the plan is wrong, and all its runs
            except GradlensError as error:
                raise _NoLimitError(str(error)) from error
        return {"predicted": readings[-1].value, "readings": [reading.row() for reading in readings]}

    def _batch(self, index: int, seed: int) -> Any:
        config = self.config
        return load_task(self.task).batch(index, seed=seed, batch_size=config.batch_size, length=config.length)


def _optimizer(config: TrainingConfig) -> "OptimizerKind":
    """Return the optimizer's name in the field: SGD with momentum is one of its own."""
    name = "momentum" if config.optimizer == "sgd" and config.momentum else config.optimizer
    return cast("OptimizerKind", name)  # of another one the probe says that its limit is not known
