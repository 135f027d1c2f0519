"""The progress of a grid of runs: a line for each that ended and, on a terminal, what is running and the time left."""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from gradlens.cli import terminal
from gradlens.cli.state import state

if TYPE_CHECKING:
    from gradlens.training.grid import Event, Run


class GridDisplay:
    """Shows the events of ``run_grid``.

    Args:
        runs: all of the grid.
        seconds: task to what one of its runs is expected to take, until some have ended here.
    """

    def __init__(self, runs: "Sequence[Run]", seconds: Mapping[str, float]) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._shown = self._console.is_terminal and not state().quiet
        self._total, self._ended, self._reused = len(runs), 0, 0
        self._left = TimeLeft(runs, seconds)
        self._bars: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[facts]}"),
            console=self._console,
            transient=True,
        )
        self._all = self._progress.add_task("runs", total=len(runs), facts="")

    def __enter__(self) -> Self:
        if self._shown:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown:
            self._progress.stop()

    def tell(self, event: "Event") -> None:
        """Show one event."""
        self._left.note(event)
        if event.what == "reused":
            self._ended, self._reused = self._ended + 1, self._reused + 1
        else:
            if self._reused:
                self._say(f"{self._reused} of {self._total} runs were finished before.")
                self._reused = 0
            if event.what == "finished":
                self._end(event)
            elif self._shown:
                self._go_on(event)
        left = duration(self._left.seconds())
        self._progress.update(self._all, completed=self._ended, facts=f"{left} left" if left else "")

    def _end(self, event: "Event") -> None:
        self._ended += 1
        bar = self._bars.pop(event.run.key, None)
        if bar is not None:
            self._progress.remove_task(bar)
        ended = "" if event.status == "complete" else f", {event.status}"
        left = duration(self._left.seconds())
        later = f"; about {left} left" if left and not self._shown else ""
        self._say(f"{self._ended}/{self._total}  {event.run.label}: {duration(event.seconds)}{ended}{later}")

    def _go_on(self, event: "Event") -> None:
        key, steps = event.run.key, event.run.config.steps
        if key not in self._bars:
            self._bars[key] = self._progress.add_task(event.run.label, total=steps, facts="")
        if event.progress is not None:
            facts = f"loss {event.progress.loss:.2f}  {event.progress.steps_per_second:.1f} steps/s"
            self._progress.update(self._bars[key], completed=event.progress.step, facts=facts)

    def _say(self, text: str) -> None:
        if self._shown:
            self._console.print(Text(text), soft_wrap=True)
        else:
            terminal.note(text)


class TimeLeft:
    """Estimates when a grid ends: what its runs are expected to take, corrected by those that have ended here.

    Args:
        runs: all of the grid.
        seconds: task to what one of its runs is expected to take.
    """

    def __init__(self, runs: "Sequence[Run]", seconds: Mapping[str, float]) -> None:
        self._expected = dict(seconds)
        self._open = {run.key: (run.task, 1.0) for run in runs}
        self._took: dict[str, list[float]] = {}
        self._running: set[str] = set()

    def note(self, event: "Event") -> None:
        """Take an event into account."""
        key, task = event.run.key, event.run.task
        if event.what in ("reused", "finished"):
            self._open.pop(key, None)
            self._running.discard(key)
            if event.what == "finished" and event.status == "complete":
                self._took.setdefault(task, []).append(event.seconds)
        else:
            self._running.add(key)
            if event.progress is not None:
                self._open[key] = (task, 1 - event.progress.step / event.progress.steps)

    def seconds(self) -> float:
        """Return the seconds left with as many runs at a time as are in progress now; 0 where nothing is open."""
        speed = self._speed()
        work = sum(share * self._of(task, speed) for task, share in self._open.values())
        return work / max(1, len(self._running))

    def _of(self, task: str, speed: float) -> float:
        took = self._took.get(task)
        return sum(took) / len(took) if took else self._expected[task] * speed

    def _speed(self) -> float:
        """Return how much longer runs take here than was expected."""
        took = sum(sum(seconds) for seconds in self._took.values())
        expected = sum(len(seconds) * self._expected[task] for task, seconds in self._took.items())
        return took / expected if expected else 1.0


def duration(seconds: float) -> str:
    """Write a time as ``1:02:03`` or ``2:03``; nothing for no time."""
    whole = round(seconds)
    if whole <= 0:
        return ""
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
