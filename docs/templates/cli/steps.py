"""``gradlens steps``: how many steps a run holds."""

from pathlib import Path

import click

from gradlens.cli import options, terminal


@click.command("steps")
@click.argument("run", type=click.Path(path_type=Path))
@options.as_json
@options.verbosity
def command(run: Path, as_json: bool) -> None:
    """Tell how many steps RUN, a run folder, holds."""
    from gradlens.recording import load  # what is heavy is imported where it is used: --help stays quick

    recording = load(run)  # a user's mistake is a GradlensError, which `main` prints: none is caught here
    if as_json:
        terminal.result_json({"label": recording.label, "steps": len(recording.steps)})
    else:
        terminal.result(f"{recording.label}: {len(recording.steps)} steps")
