"""``gradlens compare``: measure, train, report."""

import contextlib
import sys
from pathlib import Path
from typing import Any

import click

from gradlens.cli import completion, options, terminal
from gradlens.cli.progress import JobsDisplay
from gradlens.cli.results import leave, show
from gradlens.cli.state import state
from gradlens.errors import GradlensError
from gradlens.lab.operands import RunFolder, parse
from gradlens.lab.training.settings import Settings


@click.command("compare")
@click.argument("operands", nargs=-1, required=True, metavar="OPERAND...", shell_complete=completion.variant)
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
@options.jobs
@options.users_model
@options.out("Folder of the comparison.  [default: runs/compare-OPERANDS]")
@options.html
@options.margin
@options.same_weights
@options.fail_on
@options.as_json
@options.verbosity
def command(
    operands: tuple[str, ...],
    arguments: tuple[str, ...],
    batch: str | None,
    out: Path | None,
    html: Path | None,
    jobs: int | None,
    executor: str,
    margin: float | None,
    same_weights: bool,
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

    Two run folders are held against each other step by step: where they part, and whether the second, the one
    after a change, is worse; in CI: --fail-on warn --margin 5%. With --same-weights two models are built once,
    and the first module whose output or gradient is not the same is named; nothing is trained.

    The folder gets compare.pdf, findings.json, tables/ and a recording for each run. The same command again
    reuses what is finished and goes on with what is not. --html FILE also writes the report as a page for a browser.
    """
    chosen = Settings(**settings)
    with contextlib.redirect_stdout(sys.stderr):  # what a model of the user's prints is no result
        parsed = parse(operands, arguments, batch)
        if margin is not None and [type(operand) for operand in parsed] != [RunFolder, RunFolder]:
            raise GradlensError(
                "--margin holds the second of two runs against the first; got "
                f"{', '.join(operand.label for operand in parsed)}. Name two run folders."
            )
        import gradlens
        from gradlens.analysis.discover import discover
        from gradlens.lab.runs import comparison as comparing
        from gradlens.lab.runs import implementations
        from gradlens.lab.runs.executors import named
        from gradlens.lab.runs.runner import run_jobs
        from gradlens.reporting import write_folder

        folder = out or comparing.default_out(parsed, *(["same-weights"] * same_weights))
        state().when_interrupted = f"What was recorded is safe in {folder}; the same command again goes on from there."
        plan = (implementations if same_weights else comparing).plan(parsed, chosen, folder)
        for note in plan.notes:
            terminal.note(note)
        with JobsDisplay(plan.jobs) as display:
            recordings = run_jobs(
                plan.jobs,
                folder,
                plan.manifest,
                changed=comparing.changed,
                at_a_time=jobs,
                executor=named(executor, folder, jobs),
                on_event=display.tell,
            )
        terminal.note("Writing the report ...")
        asked = [question for question in discover() if "GL323" in question.codes] if same_weights else None
        comparison = gradlens.compare(recordings, asked, margin=margin)
        pdf = write_folder(comparison, folder, "compare.pdf", command=state().command, html=html)
    terminal.note("")
    show(comparison, as_json=as_json, out=str(folder), pdf=str(pdf))
    terminal.note(f"\nReport: {pdf}" + (f"\nReport: {html}" if html else ""), even_quiet=not as_json)
    leave(comparison, fail_on, margin)
