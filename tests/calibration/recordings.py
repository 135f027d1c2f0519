"""Every case and set-up by its name, and how each is recorded once."""

import logging
import shutil
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

import gradlens
from tests.calibration import healthy, unseen
from tests.calibration.faults import Case, cases
from tests.calibration.run import Run, train

#: In front of the name of a healthy set-up.
HEALTHY_IS = "healthy--"
SEED = 7


def every_case() -> dict[str, Case]:
    """Return the cases of both sets by their names."""
    return {case.name: case for case in (*cases(), *unseen.CASES)}


def everything(of: str = "own") -> dict[str, Callable[[], Run]]:
    """Return what makes each run of a set, ``own`` or ``unseen``, by the name of its folder."""
    new = of == "unseen"
    sick: dict[str, Callable[[], Run]] = {
        name: (lambda case=case: case.planted().run) for name, case in every_case().items() if new == is_unseen(name)
    }
    made, prefix = (unseen.HEALTHY, unseen.UNSEEN_IS) if new else (healthy.HEALTHY, "")
    well: dict[str, Callable[[], Run]] = {
        HEALTHY_IS + prefix + name.replace(" ", "_").replace("/", "_"): (lambda make=make: make(SEED))
        for name, make in made.items()
    }
    return well | sick


def is_unseen(name: str) -> bool:
    """Whether a run is of the set of unseen networks."""
    return name.removeprefix(HEALTHY_IS).startswith(unseen.UNSEEN_IS)


def record(name: str, folder: Path) -> str:
    """Record one run as ``folder/name``, whole or not at all; return why it could not be, or nothing."""
    torch.set_num_threads(1)
    logging.getLogger("gradlens").setLevel(logging.ERROR)
    part = folder / f".{name}"
    shutil.rmtree(part, ignore_errors=True)
    try:
        run = everything("unseen" if is_unseen(name) else "own")[name]()
        if run.initial:
            _at_init(run, part)
        else:
            train(run, part)
    except Exception:
        return traceback.format_exc(limit=-3)
    shutil.rmtree(folder / name, ignore_errors=True)
    part.rename(folder / name)
    return ""


def _at_init(run: Run, folder: Path) -> None:
    x, y = run.data(0)

    def build() -> nn.Module:
        return run.build(run.wrong)

    label = run.network.name
    gradlens.at_init(build, [(x,)], lambda output, batch: run.loss(output, y), seeds=3, out=folder, label=label)
