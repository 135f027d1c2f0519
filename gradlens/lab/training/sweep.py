"""The sweep of a comparison: each cell is a recording; finished ones are reused, those cut off go on.

OUT/
  manifest.json                 kind "compare", settings, operands, runs, status
  lock                          held by the process that runs the sweep
  runs/<operand>/init           run folders
  runs/<operand>/no-warm-up
  runs/<operand>/warm-up
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gradlens.lab.training.comparison_changes import changed
from gradlens.lab.training.comparison_plan import Cell
from gradlens.lab.training.earlier import is_finished
from gradlens.lab.training.folder_of_runs import claimed
from gradlens.lab.training.measurement import measure
from gradlens.lab.training.operands import Variant
from gradlens.lab.training.settings import Settings
from gradlens.lab.training.subject import Subject
from gradlens.lab.training.trainer import Progress, train
from gradlens.lens.provenance import provenance
from gradlens.recording import Recording, load


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


def run(
    cells: Sequence[Cell],
    out: Path,
    settings: Settings,
    on_event: Callable[[Event], None] | None = None,
) -> list[Recording]:
    """Make the recordings of a comparison, cell by cell.

    Args:
        cells: from ``comparison_plan.plan``.
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
