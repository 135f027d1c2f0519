"""``gradlens watch``: runs while they are written."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gradlens.cli import options, terminal
from gradlens.errors import GradlensError, RecordingError
from gradlens.text import printable_lines

if TYPE_CHECKING:
    from gradlens.analysis import Finding
    from gradlens.recording import Recording

#: Findings may take this share of the time; to find them costs more than to draw.
_SHARE = 0.2


@click.command("watch")
@options.runs
@click.option("--once", is_flag=True, help="Print what there is now, and end; in a pipe that is all it does.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1),
    default=2.0,
    show_default=True,
    help="Seconds between two looks.",
)
@options.verbosity
def command(runs: tuple[Path, ...], once: bool, interval: float) -> None:
    """Show one or more RUN folders while they are written: loss, gradient norm, and what is found so far.

    A folder of runs stands for all of them, as they come. It ends when all of them have ended, and with Ctrl-C;
    the runs do not notice that they are watched.
    """
    view = _View()
    text, running = view.look(runs)
    if once or not sys.stdout.isatty():
        terminal.result(text)
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    try:
        with Live(Text(printable_lines(text)), console=Console(highlight=False), auto_refresh=False) as live:
            while running:
                time.sleep(interval)
                text, running = view.look(runs)
                live.update(Text(printable_lines(text)), refresh=True)
    except KeyboardInterrupt:
        return  # the way to end it


class _View:
    """Looks at runs again and again; looks for findings as often as that is cheap."""

    def __init__(self) -> None:
        self._found: dict[Path, list[Finding]] = {}
        self._next: dict[Path, float] = {}

    def look(self, folders: Sequence[Path]) -> tuple[str, bool]:
        """Return what all runs show now, and whether one of them goes on."""
        from gradlens.recording.reading import peek
        from gradlens.reporting.live import frame

        found = [run for folder in folders for run in _runs(folder)]
        texts, running = [], False
        for run in found:
            try:
                recording = peek(run)
            except RecordingError as error:
                if len(found) == 1:
                    raise
                texts.append(f"{run}\n  {error}")
                continue
            running = running or recording.meta.get("status") == "running"
            most = 3 if len(found) == 1 else 1
            texts.append(frame(recording, self._findings(run, recording), width=terminal.width(), most=most))
        return "\n\n".join(texts), running

    def _findings(self, run: Path, recording: "Recording") -> "list[Finding]":
        began = time.monotonic()
        if began >= self._next.get(run, 0.0) and not recording.steps.empty:
            from gradlens.analysis import compare

            self._found[run] = list(compare([recording]).findings)
            ended = time.monotonic()
            self._next[run] = ended + (ended - began) / _SHARE
        return self._found.get(run, [])


def _runs(folder: Path) -> list[Path]:
    """Return the runs that a folder is, stands for, or holds."""
    from gradlens.lab.operands import runs_in

    if (folder / "manifest.json").exists():
        return runs_in(folder)
    held = sorted(path.parent for path in folder.glob("**/manifest.json") if _is_run(path.parent))
    if not held:
        raise GradlensError(f"A run folder holds a manifest.json; {folder} has none, nor a folder in it. Is it begun?")
    return held


def _is_run(folder: Path) -> bool:
    from gradlens.recording.folder import FOLDERS_OF_RUNS, read_manifest

    return read_manifest(folder).get("kind") not in FOLDERS_OF_RUNS
