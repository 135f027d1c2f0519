"""The trainer: a model, a task and settings in; a recording out. It attaches the lens as any user would."""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import gradlens
from gradlens.errors import GradlensError, ModelError, RecordingError
from gradlens.lab.tasks.task import Task
from gradlens.lab.training.checkpoint import load_checkpoint, remove_checkpoint, save_checkpoint
from gradlens.lab.training.config import TrainingConfig
from gradlens.lab.training.earlier import finished_run
from gradlens.lab.training.loop import Loop
from gradlens.lab.training.seeding import fan_out, isolated_rng
from gradlens.recording import Recording


@dataclass(frozen=True)
class Progress:
    """How far a run is, after a step.

    Attributes:
        step: steps done, from 1.
        steps: steps in all.
        loss: of the step, in the task's unit.
        steps_per_second: over the last steps of this attempt.
        seconds_left: at that speed.
    """

    step: int
    steps: int
    loss: float
    steps_per_second: float
    seconds_left: float


def train(
    model_fn: Callable[[], nn.Module],
    task: Task,
    config: TrainingConfig,
    *,
    out: Path | None = None,
    label: str,
    meta: Mapping[str, Any] | None = None,
    watch: Sequence[str] = ("norms", "blocks", "params"),
    on_step: Callable[[Progress], None] | None = None,
) -> Recording:
    """Train one model under the lens, and return its recording.

    The numbers are a function of the arguments alone (bit for bit on a CPU with the same number of threads).
    A run that was killed goes on from its checkpoint and ends in the same numbers; a finished run at ``out``
    with the same settings is returned as it is. Divergence is a result, status "diverged", and no error.

    Args:
        model_fn: builds the model; torch is seeded just before.
        task: what it is trained on.
        config: how.
        out: the run folder; None keeps the recording in memory, and nothing can be resumed.
        label: the name the run goes by in tables and legends.
        meta: further metadata, such as ``variant``; it goes before what is known here.
        watch: what the lens records, as in ``gradlens.attach``.
        on_step: called after every step.

    Raises:
        ModelError: no module is built, it has nothing to train, or it cannot take the task's batches.
        RecordingError: the folder holds something else, a run with other settings, or is being written.
        GradlensError: there is no such device.
    """
    device = choose_device(config.device)
    seeds = fan_out(config.seed)
    with isolated_rng(device):
        torch.manual_seed(seeds.model)
        model = _build(model_fn).to(device)
        settings = _settings(model, task, config, device) | dict(meta or {})
        earlier = finished_run(out, settings) if out else None
        if earlier is None:
            loop = Loop(model, task, config, seeds, device)
            # The optimizer shows the lens the gradient after clipping, which costs a second look at it.
            clipped = None if config.clip is None else loop.optimizer
            with gradlens.attach(
                model, out=out, every=config.every, watch=watch, optimizer=clipped, label=label, strict=True
            ) as lens:
                lens.annotate(**settings)
                _resume(loop, out)
                lens.start_at(loop.step)
                _run(loop, lens, out, on_step)
                lens.annotate(diverged_at=loop.step - 1 if loop.diverged else None, **_samples(loop))
                lens.finish("diverged" if loop.diverged else "complete")
            earlier = lens.recording
    if out:
        remove_checkpoint(out)
    return earlier


def choose_device(name: str) -> torch.device:
    """Return the device of a name; ``"auto"`` is CUDA where there is one, else Apple's MPS, else the CPU.

    Raises:
        GradlensError: torch knows no such device, or this machine has none.
    """
    if name == "auto":
        mps = torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch has one of each
        raise GradlensError(
            f"The device must be one that torch can use here; {name!r} is not: {str(error).splitlines()[0]}. "
            f"Use 'auto' or 'cpu'."
        ) from error
    return device


def _build(model_fn: Callable[[], nn.Module]) -> nn.Module:
    model = model_fn()
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"The function that builds the model must return an nn.Module; it returned a "
            f"{type(model).__name__}. Return the model itself."
        )
    return model


def _settings(model: nn.Module, task: Task, config: TrainingConfig, device: torch.device) -> dict[str, Any]:
    """Return what is known here of the run's metadata, as the manifest keeps it."""
    return {
        "kind": "training",
        "variant": None,
        "schedule": config.schedule,
        "model": _describe(model),
        "task": task.describe(),
        "training": config.to_dict(),
        "seeds": [config.seed],
        "device": str(device),
    }


def _describe(model: nn.Module) -> dict[str, Any]:
    describe = getattr(model, "describe", None)
    if callable(describe):
        return dict(describe())
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"family": type(model).__name__, "parameters": parameters}


def _resume(loop: Loop, out: Path | None) -> None:
    checkpoint = load_checkpoint(out, loop.device) if out else None
    if checkpoint is None:
        return
    try:
        loop.load_state_dict(checkpoint)
    except (RuntimeError, ValueError, KeyError) as error:
        raise RecordingError(
            f"A checkpoint must fit the model it continues; the one in {out} does not: {error}. "
            f"The model was changed since: choose another folder, or delete this one."
        ) from error


def _run(loop: Loop, lens: Any, out: Path | None, on_step: Callable[[Progress], None] | None) -> None:
    """Advance the loop to its end, each step recorded before a checkpoint claims it."""
    ends = deque([time.perf_counter()], maxlen=33)
    while not loop.finished:
        scalars = loop.advance()
        lens.step(**scalars)
        if out and loop.checkpoint_due:
            save_checkpoint(loop.state_dict(), out)
        ends.append(time.perf_counter())
        if on_step is not None:
            on_step(_progress(loop, scalars["loss"], ends))


def _samples(loop: Loop) -> dict[str, Any]:
    """Return a few of the trained model's answers, where its task has any to show."""
    samples = getattr(loop.task, "samples", None)
    return {"samples": samples(loop.model, loop.device)} if samples and not loop.diverged else {}


def _progress(loop: Loop, loss: float, ends: deque[float]) -> Progress:
    speed = (len(ends) - 1) / max(ends[-1] - ends[0], 1e-9)
    steps = loop.config.steps
    return Progress(loop.step, steps, loss, speed, (steps - loop.step) / speed)
