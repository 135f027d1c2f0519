"""The sweep of a comparison: each cell is a recording; finished ones are reused, those cut off go on.

OUT/
  manifest.json                 kind "compare", settings, operands, runs, status
  lock                          held by the process that runs the sweep
  runs/<operand>/init           run folders
  runs/<operand>/no-warm-up
  runs/<operand>/warm-up
"""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gradlens.lens.initialization import Probe, at_init
from gradlens.lens.provenance import provenance
from gradlens.recording import Recording, load
from gradlens.tasks import TASKS
from gradlens.training.comparison_changes import changed
from gradlens.training.earlier import is_finished
from gradlens.training.folder_of_runs import claimed
from gradlens.training.measurement import on_task
from gradlens.training.operands import Operand, RunFolder, Variant
from gradlens.training.settings import Settings
from gradlens.training.subject import Subject
from gradlens.training.trainer import Progress, choose_device, train


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


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something happened in a sweep.

    Attributes:
        what: a cell started, went on, or finished; or it was finished before and is reused.
        cell: which.
        index: its place among the cells, from 0.
        cells: how many there are.
        done: steps or seeds done.
        total: steps or seeds in all.
        progress: speed and loss, in training.
        recording: the finished one.
    """

    what: Literal["started", "progress", "finished", "reused"]
    cell: Cell
    index: int
    cells: int
    done: int = 0
    total: int = 0
    progress: Progress | None = None
    recording: Recording | None = None


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


def run(
    cells: Sequence[Cell],
    out: Path,
    settings: Settings,
    on_event: Callable[[Event], None] | None = None,
) -> list[Recording]:
    """Make the recordings of a comparison, cell by cell.

    Args:
        cells: from ``plan``.
        out: folder of the comparison; one that was begun with the same settings goes on.
        settings: as given to ``plan``.
        on_event: called as things happen.

    Returns:
        One recording a cell, in the same order.

    Raises:
        RecordingError: the folder holds something else or is being written, or a recording in it is damaged.
        GradlensError: it was begun with other settings.
        ModelError: a model cannot be run.
    """
    subjects = {cell.operand.label: cell.subject for cell in cells if cell.subject is not None}
    facts = {
        cell.operand.label: dict(cell.subject.facts) if cell.subject else {"operand": cell.label} for cell in cells
    }
    task = next((subject.task.describe() for subject in subjects.values()), None)
    wanted = {
        "kind": "compare",
        "label": out.name,
        "operands": list(facts.values()),
        "settings": settings.to_dict(),
        "task": task,
        "runs": [os.path.relpath(_place(cell, out), out) for cell in cells],
        **provenance(),
    }
    recordings = []
    with claimed(out, wanted, changed):
        for index, cell in enumerate(cells):

            def tell(what: Any, index: int = index, cell: Cell = cell, **facts: Any) -> None:
                if on_event is not None:
                    on_event(Event(what=what, cell=cell, index=index, cells=len(cells), **facts))

            recordings.append(_run_cell(cell, _place(cell, out), settings, tell))
    return recordings


def measure(
    subject: Subject,
    settings: Settings,
    out: Path | None,
    on_seed: Callable[[int, int], None] | None = None,
    *,
    without_norms: bool = False,
    probe: Probe | None = None,
) -> Recording:
    """Record a model at initialization, with other weights and another batch for each seed.

    Args:
        subject: what to measure.
        settings: seeds, batch and device.
        out: run folder; None keeps the recording in memory.
        on_seed: called with (seeds done, seeds).
        without_norms: whether a model without normalizations is measured too.
        probe: reads more of each seed's model, as in ``at_init``.

    Raises:
        ModelError: the model cannot take the batch.
        NothingFoundError: it has no normalization.
    """
    facts: dict[str, Any] = {"variant": subject.variant, "schedule": None, "operand": dict(subject.facts)}
    if subject.measured.loss_fn == subject.task.loss:
        facts |= on_task(subject.task, settings.batch_size, settings.length)
    return at_init(
        *subject.measured,
        range(settings.seed, settings.seed + settings.seeds),
        out=out,
        label=subject.label,
        device=choose_device(settings.device),
        meta=facts,
        on_seed=on_seed,
        without_norms=without_norms,
        probe=probe,
    )


def _run_cell(cell: Cell, folder: Path, settings: Settings, tell: Callable[..., None]) -> Recording:
    """Make one recording, or read it where it is finished."""
    if cell.subject is None:
        recording = load(folder)
        tell("reused", recording=recording)
        return recording
    reused = is_finished(folder)
    if not reused:
        tell("started", total=settings.seeds if cell.kind == "init" else settings.steps)
    if cell.kind == "training":
        recording = _train(cell, cell.subject, folder, settings, tell)
    elif reused:
        recording = load(folder)
    else:
        recording = measure(
            cell.subject,
            settings,
            folder,
            lambda done, total: tell("progress", done=done, total=total),
            without_norms=isinstance(cell.operand, Variant),  # "none" is a variant to compare with
        )
    tell("reused" if reused else "finished", recording=recording)
    return recording


def _train(cell: Cell, subject: Subject, folder: Path, settings: Settings, tell: Callable[..., None]) -> Recording:
    """Train, or go on with a run that was cut off; the trainer checks and reuses a finished one."""
    assert cell.schedule is not None
    return train(
        subject.build,
        subject.task,
        settings.training(cell.schedule, cell.seed_index),
        out=folder,
        label=cell.label,
        meta={"variant": subject.variant, "operand": dict(subject.facts)},
        on_step=lambda p: tell("progress", done=p.step, total=p.steps, progress=p),
    )


def _place(cell: Cell, out: Path) -> Path:
    return Path(cell.key) if cell.kind == "recorded" else out / "runs" / cell.key


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
