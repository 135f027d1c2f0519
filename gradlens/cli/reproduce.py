"""``gradlens reproduce``: a paper's experiment run again, and its claims tested."""

import contextlib
import sys
from pathlib import Path
from typing import Any

import click

from gradlens.cli import completion, options, terminal
from gradlens.cli.progress import JobsDisplay
from gradlens.cli.results import leave, show
from gradlens.cli.state import state
from gradlens.errors import UnknownNameError
from gradlens.lab.studies import STUDIES


def _names(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (value or "").split(",") if name.strip())


@click.command("reproduce")
@click.argument("paper", metavar="PAPER", shell_complete=completion.paper)
@click.option("--budget", default="small", show_default=True, help="How long to train: small, medium, paper.")
@click.option(
    "--parts",
    "--tasks",
    callback=_names,
    metavar="A,B",
    help="Some parts of the experiment; those of xu2019 are its tasks.  [default: all]",
)
@click.option(
    "--seeds",
    type=options.COUNT,
    help="Training runs that differ in the seed alone; measurements at initialization keep their own number.  "
    "[default: the budget's]",
)
@options.jobs
@options.device
@options.out("Folder of the reproduction.  [default: runs/PAPER-BUDGET]")
@options.fail_on
@options.as_json
@options.verbosity
def command(
    paper: str,
    budget: str,
    parts: tuple[str, ...],
    seeds: int | None,
    jobs: int | None,
    executor: str,
    device: str,
    out: Path | None,
    fail_on: str | None,
    as_json: bool,
) -> None:
    """Run the experiment of PAPER again, and say of each claim whether it was reproduced: ba2016, xu2019, xiong2020.

    Its models are measured at initialization or trained under the lens, each with the same batches in the same
    order. The folder gets PAPER.pdf with the paper's tables beside ours, findings.json, tables/ and a recording for
    each run. The same command again reuses what is finished and goes on with what is not; more seeds or parts add to
    it.
    """
    if paper not in STUDIES:
        raise UnknownNameError("study", paper, STUDIES)
    with contextlib.redirect_stdout(sys.stderr):
        from gradlens.analysis import compare
        from gradlens.analysis.discover import of_paper
        from gradlens.lab.runs.executors import named
        from gradlens.lab.runs.runner import run_jobs
        from gradlens.reporting import Cover, write_folder

        study: Any = STUDIES[paper]
        planned = study.jobs(budget, parts, seeds, device)
        questions = of_paper(paper)
        study.check(planned)
        folder = out or Path("runs") / f"{paper}-{budget}"
        state().when_interrupted = f"What was recorded is safe in {folder}; the same command again goes on from there."
        settings = {"paper": paper, "budget": budget, "tasks": list(dict.fromkeys(job.task for job in planned))}
        manifest = {"kind": "reproduce", "label": f"{paper}, {budget}", "settings": settings}
        with JobsDisplay(planned) as display:
            recordings = run_jobs(
                planned,
                folder,
                manifest,
                at_a_time=jobs,
                executor=named(executor, folder, jobs),
                on_event=display.tell,
            )
        terminal.note("Writing the report ...")
        comparison = compare(recordings, questions)
        about = f"{budget} ({study.budget(budget).about})"
        cover = Cover.of_study(paper, study.title, study.reference, about, comparison)
        pdf = write_folder(comparison, folder, f"{paper}.pdf", command=state().command, cover=cover)
    show(comparison, as_json=as_json, cover=cover, out=str(folder), pdf=str(pdf))
    terminal.note(f"\nReport: {pdf}", even_quiet=not as_json)
    leave(comparison, fail_on)
