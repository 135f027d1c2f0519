"""``gradlens compare``: measure, train, report."""

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gradlens.cli import options, terminal
from gradlens.cli.results import leave, show
from gradlens.cli.state import state
from gradlens.lab.training.operands import parse
from gradlens.lab.training.settings import Settings

if TYPE_CHECKING:
    from gradlens.lab.training.sweep import Event


@click.command("compare")
@click.argument("operands", nargs=-1, required=True, metavar="OPERAND...")
@options.training
@click.option(
    "--warmup",
    type=click.IntRange(min=0),
    help="Steps of the warm-up.  [default: a third of --steps; 0: no such runs]",
)
@click.option(
    "--train-seeds",
    type=options.COUNT,
    default=1,
    show_default=True,
    help="Training runs of each variant and schedule.",
)
@click.option("--init-only", is_flag=True, help="Measure at initialization, train nothing.")
@options.size
@options.seeds
@options.batches
@options.seed
@options.device
@options.users_model
@options.out("Folder of the comparison.  [default: runs/compare-OPERANDS]")
@options.fail_on
@options.as_json
@options.verbosity
def command(
    operands: tuple[str, ...],
    arguments: tuple[str, ...],
    batch: str | None,
    out: Path | None,
    fail_on: str | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Measure models side by side at initialization, train them, and write a report.

    An OPERAND is a variant of the zoo (pre-ln, post-ln/adanorm; see `gradlens list`), a run folder, or a
    model of yours: pkg.mod:build or file.py:build, a function that returns a module, (module, batch) or
    (module, batch, loss_fn), where loss_fn(output, batch) takes what the module returned and what its forward
    took, and returns one number; or one of Hugging Face transformers: hf:gpt2 (any model type), hf:FOLDER or
    hf:config.json. A type has the library's default sizes; -m num_hidden_layers=4 -m hidden_size=128 and
    the like set them. A causal language model with -m vocab_size=256 is trained on the task lm too.

    The folder gets compare.pdf, findings.json, tables/ and a recording for each run. The same command again
    reuses what is finished and goes on with what is not.
    """
    chosen = Settings(**settings)
    with contextlib.redirect_stdout(sys.stderr):  # what a model of the user's prints is no result
        parsed = parse(operands, arguments, batch)
        import gradlens
        from gradlens.lab.training import comparison_plan, sweep
        from gradlens.reporting import write_folder

        folder = out or comparison_plan.default_out(parsed)
        state().when_interrupted = f"What was recorded is safe in {folder}; the same command again goes on from there."
        cells = comparison_plan.plan(parsed, chosen)
        for cell in cells:
            if cell.kind == "init" and cell.subject and cell.subject.note:
                terminal.note(cell.subject.note)
        with terminal.Display() as display:
            recordings = sweep.run(cells, folder, chosen, lambda event: _tell(display, event))
            display.running("writing the report", 0, 1)
            comparison = gradlens.compare(recordings)
            pdf = write_folder(comparison, folder, "compare.pdf", command=state().command)
            display.clear()
    terminal.note("")
    show(comparison, as_json=as_json, out=str(folder), pdf=str(pdf))
    terminal.note(f"\nReport: {pdf}")
    leave(comparison, fail_on)


def _tell(display: terminal.Display, event: "Event") -> None:
    """Show an event of the sweep."""
    head = f"{event.index + 1}/{event.cells}  {event.cell.label}"
    if event.what == "progress":
        step = event.progress
        waiting = event.cells - event.index - 1 if step is not None else 0
        later = waiting * step.steps / step.steps_per_second if step is not None else 0.0
        display.running(head, event.done, event.total, step, later)
    elif event.recording is not None:
        display.line(f"{head}: {_outcome(event)}")


def _outcome(event: "Event") -> str:
    """Say in a few words how a cell ended."""
    from gradlens.analysis.ending import at_the_end

    recording = event.recording
    assert recording is not None
    steps, status = recording.steps, str(recording.meta.get("status"))
    unit = "seeds" if recording.meta.get("kind") == "init" else "steps"
    words = [f"{len(steps)} {unit}"]
    if unit == "steps" and len(steps):
        losses = steps.set_index("step")["loss"].dropna()
        words.append(f"loss {at_the_end(losses).mean():.3f}" if len(losses) else "loss not recorded")
    words += [status] if status != "complete" else []
    words += ["recorded before"] if event.what == "reused" else []
    return ", ".join(words)
