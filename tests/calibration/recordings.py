"""Every case and set-up by its name, and how each is recorded once."""

import logging
import shutil
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

import gradlens
from tests.calibration.faults import cases
from tests.calibration.healthy import HEALTHY
from tests.calibration.run import Run, train

#: In front of the name of a healthy set-up.
HEALTHY_IS = "healthy--"
SEED = 7


def everything() -> dict[str, Callable[[], Run]]:
    """Return what makes each run, by the name of its folder."""
    sick: dict[str, Callable[[], Run]] = {case.name: (lambda case=case: case.planted().run) for case in cases()}
    well: dict[str, Callable[[], Run]] = {
        HEALTHY_IS + name.replace(" ", "_").replace("/", "_"): (lambda make=make: make(SEED))
        for name, make in HEALTHY.items()
    }
    return well | sick


def record(name: str, folder: Path) -> str:
    """Record one run as ``folder/name``, whole or not at all; return why it could not be, or nothing."""
    torch.set_num_threads(1)
    logging.getLogger("gradlens").setLevel(logging.ERROR)
    part = folder / f".{name}"
    shutil.rmtree(part, ignore_errors=True)
    try:
        run = everything()[name]()
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
