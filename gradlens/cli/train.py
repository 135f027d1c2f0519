"""``gradlens train``: one recorded training run."""

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gradlens.cli import completion, options, terminal
from gradlens.cli.results import show
from gradlens.cli.state import state
from gradlens.errors import GradlensError
from gradlens.lab.operands import RunFolder, parse
from gradlens.lab.training.config import TrainingConfig
from gradlens.lab.training.settings import Settings

if TYPE_CHECKING:
    from gradlens.recording import Recording


@click.command("train")
@click.argument("model", metavar="MODEL", shell_complete=completion.variant)
@options.training
@click.option("--warmup", type=click.IntRange(min=0), default=0, show_default=True, help="Steps of the warm-up.")
@click.option(
    "--decay",
    type=click.Choice(["constant", "inverse-sqrt", "linear"]),
    default="constant",
    show_default=True,
    help="The learning rate after the warm-up.",
)
@click.option(
    "--optimizer",
    type=click.Choice(["adam", "adamw", "sgd"]),
    default="adam",
    show_default=True,
    help="The optimizer.",
)
@click.option("--weight-decay", type=float, default=0.0, show_default=True, help="Weight decay.")
@click.option("--clip", type=float, help="Largest norm of the whole gradient.  [default: not clipped]")
@click.option("--accumulation", type=options.COUNT, default=1, show_default=True, help="Batches in one step.")
@click.option(
    "--evaluate-every",
    type=click.IntRange(min=0),
    default=50,
    show_default=True,
    help="Steps between evaluations on held-out data; 0 for none.",
)
@click.option(
    "--evaluation-batches", type=options.COUNT, default=8, show_default=True, help="Batches in one evaluation."
)
@click.option(
    "--every",
    type=options.Every(),
    default=1,
    show_default=True,
    help="Record each n-th step; auto: as many as 2 % of the time allows, and what follows an event.",
)
@options.size
@options.batches
@options.seed
@options.device
@options.users_model
@options.out("Run folder.  [default: runs/train-MODEL]")
@options.as_json
@options.verbosity
def command(
    model: str,
    arguments: tuple[str, ...],
    batch: str | None,
    out: Path | None,
    as_json: bool,
    task: str,
    layers: int,
    width: int,
    heads: int,
    **config: Any,
) -> None:
    """Train MODEL on a task under the lens: a variant such as post-ln/adanorm, or your pkg.mod:build.

    The same command again goes on with a run that was cut off, and reuses a finished one.
    """
    same = {name: config[name] for name in ("steps", "lr", "batch_size", "length", "seed", "device")}
    settings = Settings(task=task, layers=layers, width=width, heads=heads, **same)  # whose defaults are the options'
    chosen = TrainingConfig(**config)
    with contextlib.redirect_stdout(sys.stderr):  # what a model of the user's prints is no result
        operand = parse([model], arguments, batch)[0]
        if isinstance(operand, RunFolder):
            raise GradlensError(
                f"train takes a variant or a model; {model} is a recording. Look at it with `gradlens report`."
            )
        import gradlens
        from gradlens.lab.runs.comparison import TrainedOperand, slug

        label = f"{operand.label}, {chosen.schedule}"
        job = TrainedOperand(key="", label=label, task=task, operand=operand, settings=settings, config=chosen)
        subject = job.subject
        if not subject.trainable:
            raise GradlensError(f"{subject.note} Give its function a keyword vocab, and let the model return logits.")
        folder = out or Path("runs") / f"train-{slug(subject.label)}"
        state().when_interrupted = f"What was recorded is safe in {folder}; the same command again goes on from there."
        with terminal.Display() as display:
            recording = job.record(folder, lambda done, p: display.running(subject.label, done, job.total, p))
            display.clear()
        comparison = gradlens.compare([recording])
    found = _held_out(recording)
    show(comparison, as_json=as_json, out=str(folder), held_out=found)
    if found and not as_json:
        from gradlens.reporting.numbers import number

        metrics = ", ".join(
            f"{name.replace('_', ' ')} {number(value)}" for name, value in found.items() if name != "step"
        )
        terminal.result(f"\nHeld-out data, after {found['step'] + 1:.0f} steps: {metrics}")
    terminal.note(f"\nRecording: {folder}", even_quiet=not as_json)


def _held_out(recording: "Recording") -> dict[str, float]:
    """Return the task's metrics of the last evaluation that was recorded, with its step; empty where there is none."""
    from gradlens.recording.schema import PUBLIC, names

    steps = recording.steps
    metrics = [str(name) for name in steps.columns if name not in names(PUBLIC["steps"])]
    evaluated = steps.dropna(subset=metrics, how="all") if metrics else steps.head(0)
    if evaluated.empty:
        return {}
    return {name: float(evaluated[name].iloc[-1]) for name in ("step", *sorted(metrics))}
