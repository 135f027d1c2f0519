"""Which recordings a comparison consists of, and the names of their folders."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gradlens.lab.tasks import TASKS
from gradlens.lab.training.operands import Operand, RunFolder
from gradlens.lab.training.settings import Settings
from gradlens.lab.training.subject import Subject
from gradlens.lab.training.trainer import choose_device


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One recording of a comparison.

    Attributes:
        key: its folder below ``runs``, such as ``post-ln/warm-up``; the path of a recording that exists.
        kind: ``"init"``, ``"training"``, or ``"recorded"`` for one that exists already.
        label: such as ``post-ln, no warm-up``.
        operand: what it is of.
        subject: the model, where there is something to do.
        schedule: ``"warm-up"`` or ``"no warm-up"`` in training.
        seed_index: which of the training seeds.
    """

    key: str
    kind: Literal["init", "training", "recorded"]
    label: str
    operand: Operand
    subject: Subject | None = None
    schedule: str | None = None
    seed_index: int = 0


def plan(operands: Sequence[Operand], settings: Settings) -> tuple[Cell, ...]:
    """List the recordings that a comparison consists of: first all at initialization, then the training runs.

    Args:
        operands: variants, models and recordings.
        settings: of the comparison.

    Raises:
        GradlensError: a model cannot be built, or the task or device does not exist.
    """
    choose_device(settings.device)
    task = TASKS[settings.task]()
    subjects = {i: o.subject(task, settings) for i, o in enumerate(operands) if not isinstance(o, RunFolder)}
    slugs = _slugs([operand.label for operand in operands])
    cells = []
    for index, operand in enumerate(operands):
        if isinstance(operand, RunFolder):
            cells.append(Cell(key=str(operand.path), kind="recorded", label=operand.label, operand=operand))
        else:
            label = f"{operand.label}, at initialization"
            subject = subjects[index]
            cells.append(Cell(key=f"{slugs[index]}/init", kind="init", label=label, operand=operand, subject=subject))
    for index, subject in subjects.items():
        if subject.trainable and not settings.init_only:
            cells += _training_cells(operands[index], subject, slugs[index], settings)
    return tuple(cells)


def _training_cells(operand: Operand, subject: Subject, folder: str, settings: Settings) -> list[Cell]:
    cells = []
    for schedule in settings.schedules:
        for seed_index in range(settings.train_seeds):
            seed = f"seed {settings.seed + seed_index}" if settings.train_seeds > 1 else ""
            cells.append(
                Cell(
                    key=f"{folder}/{slug(f'{schedule} {seed}')}",
                    kind="training",
                    label=", ".join(filter(None, (operand.label, schedule, seed))),
                    operand=operand,
                    subject=subject,
                    schedule=schedule,
                    seed_index=seed_index,
                )
            )
    return cells


def default_out(operands: Sequence[Operand]) -> Path:
    """Return the folder of a comparison whose user named none: the same operands, the same folder."""
    return Path("runs") / ("compare-" + "-".join(_slugs([operand.label for operand in operands])))[:100]


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
