"""Measuring a model at initialization: a subject of a comparison, or one of the zoo as a job."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gradlens.lab.operands.subject import Subject
from gradlens.lab.runs.jobs import OnProgress, ZooJob, load_task
from gradlens.lab.runs.probing import probed
from gradlens.lab.tasks.task import Task
from gradlens.lab.training.earlier import finished_run, is_finished
from gradlens.lab.training.settings import Settings
from gradlens.lab.training.trainer import choose_device
from gradlens.lens.initialization import Probe, at_init, describe
from gradlens.recording import Recording


def measure(
    subject: Subject,
    settings: Settings,
    out: Path | None,
    on_seed: Callable[[int, int], None] | None = None,
    *,
    without_norms: bool = False,
    probe: Probe | None = None,
    meta: Mapping[str, Any] | None = None,
) -> Recording:
    """Record a model at initialization, with other weights and another batch for each seed.

    Args:
        subject: what to measure.
        settings: seeds, batch and device.
        out: run folder; None keeps the recording in memory.
        on_seed: called with (seeds done, seeds).
        without_norms: whether a model without normalizations is measured too.
        probe: reads more of each seed's model, as in ``at_init``.
        meta: further metadata.

    Raises:
        ModelError: the model cannot take the batch.
        NothingFoundError: it has no normalization.
    """
    facts: dict[str, Any] = {"variant": subject.variant, "schedule": None, "operand": dict(subject.facts)}
    if subject.at_init.loss_fn == subject.task.loss:
        facts |= on_task(subject.task, settings.batch_size, settings.length)
    return at_init(
        *subject.at_init,
        range(settings.seed, settings.seed + settings.seeds),
        out=out,
        label=subject.label,
        device=choose_device(settings.device),
        meta={**facts, **(meta or {})},
        on_seed=on_seed,
        without_norms=without_norms,
        probe=probe,
    )


@dataclass(frozen=True, kw_only=True)
class Measurement(ZooJob):
    """A model measured at initialization: other weights and another batch for each seed, no training.

    Attributes:
        seeds: which, one forward and one backward pass each.
        batch_size: sequences in a batch.
        length: tokens in a sequence.
        device: ``"auto"`` or a name that torch knows.
        probes: names in ``gradlens.probes.PROBES``; what they read is the recording's table ``probes``.
    """

    seeds: tuple[int, ...]
    batch_size: int
    length: int
    device: str
    probes: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """Seeds in all."""
        return len(self.seeds)

    @property
    def runs_on(self) -> str:
        """The device's name, or ``"auto"``."""
        return self.device

    def record(self, folder: Path, on_progress: OnProgress) -> Recording:
        """Measure, from the first seed where it was cut off, or read what is finished."""
        task = load_task(self.task)
        build = partial(task.model, self.variant, **self.size)
        facts = {
            "variant": self.variant,
            "schedule": None,
            "probes": list(self.probes),
            **on_task(task, self.batch_size, self.length),
        }
        if is_finished(folder):
            wanted = {"kind": "init", "seeds": list(self.seeds), "model": describe(build()), **facts}
            finished = finished_run(folder, wanted)
            assert finished is not None
            return finished
        return at_init(
            build,
            lambda seed: task.batch(0, seed=seed, batch_size=self.batch_size, length=self.length),
            task.loss,
            self.seeds,
            out=folder,
            label=self.label,
            device=choose_device(self.device),
            watch=self.watch,
            meta=facts,
            on_seed=lambda done, total: on_progress(done, None),
            without_norms=True,  # an arrangement without norms is one to compare with
            probe=partial(probed, self.probes) if self.probes else None,
        )


def on_task(task: Task, batch_size: int, length: int) -> dict[str, Any]:
    """Return the metadata that say what a model was measured on, where it is a task's loss and batches."""
    return {"task": task.describe(), "batch": {"size": batch_size, "length": length}}
