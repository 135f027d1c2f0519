"""What a person sees: lines and a progress bar on stderr, results on stdout."""

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from gradlens.cli.state import state
from gradlens.text import printable_lines

if TYPE_CHECKING:
    from gradlens.lab.training.trainer import Progress as Steps

#: Width of text that goes to no terminal, and the most that reads well on one.
WIDTH = 100
#: Lines of text that goes to no terminal, where it is kept to a screen.
HEIGHT = 40
_COLOURS = {r"(?m)^✗ fail": "bold red", r"(?m)^▲ warn": "bold yellow", r"(?m)^✓ pass": "green"}


def width() -> int:
    """Return the columns to write text in."""
    return min(shutil.get_terminal_size((WIDTH, 24)).columns, 120) if sys.stdout.isatty() else WIDTH


def height() -> int:
    """Return the lines of a screen."""
    return shutil.get_terminal_size((WIDTH, HEIGHT)).lines if sys.stdout.isatty() else HEIGHT


def note(text: str, *, even_quiet: bool = False) -> None:
    """Say something on stderr, unless ``-q`` was given; where a result was put also then."""
    if even_quiet or not state().quiet:
        click.echo(printable_lines(text), err=True)


def result(text: str) -> None:
    """Print a result on stdout; the marks of findings are coloured on a terminal."""
    coloured = Text(printable_lines(text))
    for pattern, style in _COLOURS.items():
        coloured.highlight_regex(pattern, style)
    Console(highlight=False).print(coloured, soft_wrap=True)


def result_json(value: Mapping[str, Any] | Sequence[Any]) -> None:
    """Print a result as strict JSON on stdout."""
    from gradlens.reporting.document import plain_values

    click.echo(json.dumps(plain_values(value), indent=2, ensure_ascii=False, allow_nan=False))


class Live:
    """Lines on stderr and, on a terminal, bars below them for what is running: a context manager."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._shown = self._console.is_terminal and not state().quiet
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[facts]}"),
            console=self._console,
            transient=True,
        )

    def __enter__(self) -> Self:
        if self._shown:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown:
            self._bars.stop()

    def line(self, text: str) -> None:
        """Print a line above the bars."""
        if self._shown:
            self._console.print(Text(printable_lines(text)), soft_wrap=True)
        else:
            note(text)


class Display(Live):
    """On a terminal, a bar for what is running."""

    def __init__(self) -> None:
        super().__init__()
        self._task: TaskID | None = None

    def clear(self) -> None:
        """Take the bar away."""
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None

    def running(self, what: str, done: int, total: int, steps: "Steps | None" = None) -> None:
        """Show how far something is.

        Args:
            what: its name.
            done: of ``total``.
            total: of them.
            steps: loss and speed, in training.
        """
        if not self._shown:
            return
        if self._task is None:
            self._task = self._bars.add_task(what, total=total, facts="")
        facts = ""
        if steps is not None:
            minutes, seconds = divmod(round(steps.seconds_left), 60)
            facts = f"loss {steps.loss:.2f}  {steps.steps_per_second:.1f} steps/s  {minutes}:{seconds:02} left"
        self._bars.update(self._task, description=what, completed=done, total=total, facts=facts)
