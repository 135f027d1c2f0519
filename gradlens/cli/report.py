"""``gradlens report``: a PDF on recorded runs, or a page for a browser."""

from pathlib import Path

import click

from gradlens.cli import options, terminal
from gradlens.cli.results import read, read_reference
from gradlens.cli.state import state


@click.command("report")
@options.runs
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="PDF to write; one that is there is replaced.  [default: report.pdf; none with --html]",
)
@options.html
@options.reference
@options.verbosity
def command(runs: tuple[Path, ...], out: Path | None, html: Path | None, reference: Path | None) -> None:
    """Write a PDF on one or more RUN folders; the folder of a comparison stands for all its runs.

    With --html FILE a page for a browser, which needs no network: figures that zoom and tell their values, every place
    of the model at every step, tables that sort.
    """
    if out is None and html is None:
        out = Path("report.pdf")
    if out is not None:
        options.refuse_other(out, "--out", "a PDF", ".pdf", b"%pdf-")
    recordings, good = read(runs), read_reference(reference)
    from gradlens.analysis import compare
    from gradlens.reporting import report

    comparison = compare(recordings, reference=good)
    for path in filter(None, (out, html)):
        report(comparison, path, command=state().command)
        terminal.note(f"Report: {path}", even_quiet=True)
