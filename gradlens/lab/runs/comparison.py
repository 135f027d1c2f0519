"""What a comparison consists of: which recordings, in which folders, and in what two comparisons differ.

OUT/
  manifest.json                 kind "compare", settings, operands, runs, status
  runs/<operand>/init           run folders
  runs/<operand>/no-warm-up
  runs/<operand>/warm-up
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from gradlens.lab.operands import Operand, RunFolder, Variant
from gradlens.lab.operands.subject import Subject
from gradlens.lab.runs.jobs import Job, OnProgress, load_task
from gradlens.lab.runs.measurement import measure
from gradlens.lab.training.config import TrainingConfig
from gradlens.lab.training.earlier import is_finished
from gradlens.lab.training.settings import Settings, changes
from gradlens.lab.training.trainer import choose_device, train
from gradlens.recording import Recording, load

#: What a step of a training and a seed at initialization are expected to take, in seconds.
_STEP, _SEED = 0.1, 0.35


@dataclass(frozen=True, kw_only=True)
class Recorded(Job):
    """A recording that exists already.

    Attributes:
        path: its folder.
    """

    path: Path

    @property
    def total(self) -> int:
        """Nothing is to be done."""
        return 1

    @property
    def runs_on(self) -> str:
        """No device is needed."""
        return "cpu"

    def folder(self, out: Path) -> Path:
        """Return where it lies."""
        return self.path

    def record(self, folder: Path, on_progress: OnProgress) -> Recording:
        """Read it."""
        return load(folder)


@dataclass(frozen=True, kw_only=True)
class _OfOperand(Job):
    """A job with an operand of a comparison.

    Attributes:
        operand: a variant or a model; it travels as the text that names it.
        settings: of the comparison.
    """

    operand: Operand
    settings: Settings

    @property
    def runs_on(self) -> str:
        """The device's name, or ``"auto"``."""
        return self.settings.device

    @cached_property
    def subject(self) -> Subject:
        """The operand, prepared for the task."""
        assert not isinstance(self.operand, RunFolder)
        return self.operand.subject(load_task(self.task), self.settings)


@dataclass(frozen=True, kw_only=True)
class MeasuredOperand(_OfOperand):
    """An operand measured at initialization."""

    @property
    def total(self) -> int:
        """Seeds in all."""
        return self.settings.seeds

    def record(self, folder: Path, on_progress: OnProgress) -> Recording:
        """Measure, or read what is finished."""
        if is_finished(folder):
            return load(folder)
        return measure(
            self.subject,
            self.settings,
            folder,
            lambda done, total: on_progress(done, None),
            without_norms=isinstance(self.operand, Variant),  # "none" is a variant to compare with
        )


@dataclass(frozen=True, kw_only=True)
class TrainedOperand(_OfOperand):
    """An operand that is trained.

    Attributes:
        config: how.
    """

    config: TrainingConfig

    @property
    def total(self) -> int:
        """Steps in all."""
        return self.config.steps

    def record(self, folder: Path, on_progress: OnProgress) -> Recording:
        """Train, or go on with a run that was cut off; the trainer checks and reuses a finished one."""
        subject = self.subject
        return train(
            subject.build,
            subject.task,
            self.config,
            out=folder,
            label=self.label,
            meta={"variant": subject.variant, "operand": dict(subject.facts)},
            on_step=lambda progress: on_progress(progress.step, progress),
        )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A comparison.

    Attributes:
        jobs: first all at initialization, then the training runs.
        notes: a sentence for each operand that cannot be trained.
        manifest: what the folder says of itself.
    """

    jobs: tuple[Job, ...]
    notes: tuple[str, ...]
    manifest: Mapping[str, Any]


def plan(operands: Sequence[Operand], settings: Settings, out: Path) -> Plan:
    """List the recordings that a comparison consists of.

    Args:
        operands: variants, models and recordings.
        settings: of the comparison.
        out: its folder.

    Raises:
        GradlensError: a model cannot be built, or the task or device does not exist.
    """
    choose_device(settings.device)
    task = load_task(settings.task)
    subjects = {i: o.subject(task, settings) for i, o in enumerate(operands) if not isinstance(o, RunFolder)}
    slugs = _slugs([operand.label for operand in operands])
    jobs: list[Job] = []
    for operand, name in zip(operands, slugs, strict=True):
        shared: dict[str, Any] = {"task": settings.task, "seconds": _SEED * settings.seeds}
        if isinstance(operand, RunFolder):
            jobs.append(Recorded(key=str(operand.path), label=operand.label, path=operand.path, **shared))
        else:
            label = f"{operand.label}, at initialization"
            jobs.append(MeasuredOperand(key=f"{name}/init", label=label, operand=operand, settings=settings, **shared))
    for index, subject in subjects.items():
        if subject.trainable and not settings.init_only:
            jobs += _trainings(operands[index], slugs[index], settings)
    manifest = {
        "kind": "compare",
        "label": out.name,
        "operands": [
            dict(subjects[index].facts) if index in subjects else {"operand": operand.label}
            for index, operand in enumerate(operands)
        ],
        "settings": settings.to_dict(),
        "task": task.describe() if subjects else None,
        "runs": [os.path.relpath(job.folder(out), out) for job in jobs],
    }
    return Plan(jobs=tuple(jobs), notes=tuple(s.note for s in subjects.values() if s.note), manifest=manifest)


def _trainings(operand: Operand, folder: str, settings: Settings) -> list[Job]:
    jobs: list[Job] = []
    for schedule in settings.schedules:
        for seed_index in range(settings.train_seeds):
            seed = f"seed {settings.seed + seed_index}" if settings.train_seeds > 1 else ""
            jobs.append(
                TrainedOperand(
                    key=f"{folder}/{slug(f'{schedule} {seed}')}",
                    label=", ".join(filter(None, (operand.label, schedule, seed))),
                    task=settings.task,
                    seconds=_STEP * settings.steps,
                    operand=operand,
                    settings=settings,
                    config=settings.training(schedule, seed_index),
                )
            )
    return jobs


def changed(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Return a phrase for everything that decides a comparison's numbers and differs.

    Args:
        there: the manifest of the folder.
        here: the one that is asked for.
    """
    old, new = dict(there.get("settings") or {}), dict(here["settings"])
    if old.get("init_only") and not new["init_only"]:
        old["init_only"] = False  # training is added to what was measured: nothing is lost
    before, now = ({o["operand"]: o for o in manifest.get("operands") or ()} for manifest in (there, here))
    found = changes(old, new)
    if list(before) != list(now):
        found.append(f"operands (were {', '.join(before)}; now {', '.join(now)})")
    for name in before.keys() & now.keys():
        found += [f"{what} of {name}" for what in _operand_changes(before[name], now[name])]
    if (there.get("task") or {}).get("sha256") != (here.get("task") or {}).get("sha256"):
        versions = ((manifest.get("task") or {}).get("version") for manifest in (there, here))
        found.append("the task's data (was {}, now {})".format(*versions))
    return found


def _operand_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    found = changes(before.get("arguments") or {}, now.get("arguments") or {})
    if before.get("source_sha256") != now.get("source_sha256"):
        found.append("the source file, which was edited since,")
    return found


def default_out(operands: Sequence[Operand], *how: str) -> Path:
    """Return the folder of a comparison whose user named none: the same operands, the same folder."""
    return Path("runs") / "-".join(["compare", *how, *_slugs([operand.label for operand in operands])])[:100]


def slug(text: str) -> str:
    """Return a text as the name of a folder."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.") or "model"


def _slugs(labels: Sequence[str]) -> list[str]:
    """Return names for folders, which differ where the labels do."""
    slugs: list[str] = []
    for label in labels:
        wanted = slug(label)
        number, free = 1, wanted
        while free in slugs:
            number += 1
            free = f"{wanted}-{number}"
        slugs.append(free)
    return slugs
