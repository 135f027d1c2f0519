"""The progress of a grid of runs: a line for each that ended and, on a terminal, what is running and the time left."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.progress import TaskID

from gradlens.cli.terminal import Live

if TYPE_CHECKING:
    from gradlens.lab.training.grid import Event
    from gradlens.lab.training.jobs import Job


class GridDisplay(Live):
    """Shows the events of ``run_grid``.

    Args:
        jobs: all of the grid.
    """

    def __init__(self, jobs: "Sequence[Job]") -> None:
        super().__init__()
        self._total, self._ended, self._reused = len(jobs), 0, 0
        self._left = TimeLeft(jobs)
        self._tasks: dict[str, TaskID] = {}
        self._all = self._bars.add_task("runs", total=len(jobs), facts="")

    def tell(self, event: "Event") -> None:
        """Show one event."""
        if not self._left.is_open(event.job):
            return
        self._left.note(event)
        if event.what == "reused":
            self._ended, self._reused = self._ended + 1, self._reused + 1
        else:
            if self._reused:
                self.line(f"{self._reused} of {self._total} runs were finished before.")
                self._reused = 0
            if event.what == "finished":
                self._end(event)
            elif self._shown:
                self._go_on(event)
        left = duration(self._left.seconds())
        self._bars.update(self._all, completed=self._ended, facts=f"{left} left" if left else "")

    def _end(self, event: "Event") -> None:
        self._ended += 1
        bar = self._tasks.pop(event.job.key, None)
        if bar is not None:
            self._bars.remove_task(bar)
        ended = "" if event.status == "complete" else f", {event.status}"
        left = duration(self._left.seconds())
        later = f"; about {left} left" if left and not self._shown else ""
        took = duration(event.seconds) or "0:00"
        self.line(f"{self._ended}/{self._total}  {event.job.label}: {took}{ended}{later}")

    def _go_on(self, event: "Event") -> None:
        job, progress = event.job, event.progress
        if job.key not in self._tasks:
            self._tasks[job.key] = self._bars.add_task(job.label, total=job.total, facts="")
        facts = f"loss {progress.loss:.2f}  {progress.steps_per_second:.1f} steps/s" if progress else ""
        self._bars.update(self._tasks[job.key], completed=event.done, facts=facts)


class TimeLeft:
    """Estimates when a grid ends: what its jobs are expected to take, corrected by those that have ended here.

    Args:
        jobs: all of the grid.
    """

    def __init__(self, jobs: "Sequence[Job]") -> None:
        self._open = {job.key: (job, 1.0) for job in jobs}
        self._took: list[tuple[Job, float]] = []
        self._running: set[str] = set()
        self._at_a_time = 1
        #: The plan is believed as if one job more had ended that took what it says: the first says little.
        self._belief = sum(job.seconds for job in jobs) / max(1, len(jobs)) or 1.0

    def is_open(self, job: "Job") -> bool:
        """Whether a job has not ended; what a worker says of one can come later than its end."""
        return job.key in self._open

    def note(self, event: "Event") -> None:
        """Take an event into account."""
        job = event.job
        if event.what in ("reused", "finished"):
            self._open.pop(job.key, None)
            self._running.discard(job.key)
            if event.what == "finished" and event.status == "complete":
                self._took.append((job, event.seconds))
        elif self.is_open(job):
            self._running.add(job.key)
            self._open[job.key] = (job, 1 - event.done / job.total)
            self._at_a_time = max(self._at_a_time, len(self._running))

    def seconds(self) -> float:
        """Return the seconds left with as many jobs at a time as there were at most; 0 where nothing is open.

        Not as many as there are now: between the end of one and the beginning of the next there is one less.
        """
        slower = self._slower(self._took, 1.0)
        alike = {
            kind: self._slower([(j, s) for j, s in self._took if _kind(j) == kind], slower) for kind in self._kinds
        }
        work = sum(share * job.seconds * alike[_kind(job)] for job, share in self._open.values())
        return work / max(1, min(self._at_a_time, len(self._open)))

    @property
    def _kinds(self) -> set[tuple[str, type]]:
        return {_kind(job) for job, _ in self._open.values()}

    def _slower(self, ended: "Sequence[tuple[Job, float]]", expected: float) -> float:
        """Return how much longer than planned jobs take here, where ``expected`` was thought before they ended."""
        planned = sum(job.seconds for job, _ in ended) + self._belief
        return (sum(took for _, took in ended) + expected * self._belief) / planned


def _kind(job: "Job") -> tuple[str, type]:
    """Return what jobs have in common that are all as much slower than planned as one of them."""
    return job.task, type(job)


def duration(seconds: float) -> str:
    """Write a time as ``1:02:03`` or ``2:03``; nothing for no time."""
    whole = round(seconds)
    if whole <= 0:
        return ""
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
