"""The progress of many jobs: a line for each that ended and, on a terminal, what is running and the time left."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.progress import TaskID

from gradlens.cli.terminal import Live

if TYPE_CHECKING:
    from gradlens.lab.runs.jobs import Job
    from gradlens.lab.runs.runner import Event
    from gradlens.recording import Recording


#: So many runs that were finished before are named.
_NAMED = 12


class JobsDisplay(Live):
    """Shows the events of ``run_jobs``.

    Args:
        jobs: all of them.
    """

    def __init__(self, jobs: "Sequence[Job]") -> None:
        super().__init__()
        self._total, self._ended = len(jobs), 0
        self._reused: list[Event] = []
        self._left = TimeLeft(jobs)
        self._tasks: dict[str, TaskID] = {}
        self._all = self._bars.add_task("runs", total=len(jobs), facts="")

    def tell(self, event: "Event") -> None:
        """Show one event."""
        if not self._left.is_open(event.job):
            return
        self._left.note(event)
        if event.what == "reused":
            self._reused.append(event)
        else:
            self._say_reused()
            if event.what == "finished":
                self._end(event)
            elif self._shown:
                self._go_on(event)
        left = duration(self._left.seconds())
        self._bars.update(self._all, completed=self._ended, facts=f"{left} left" if left else "")

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._say_reused()
        super().__exit__(kind, error, trace)

    def _say_reused(self) -> None:
        """Name what was finished before; of many, say how many."""
        reused, self._reused = self._reused, []
        for event in reused:
            self._ended += 1
            if len(reused) <= _NAMED and event.recording is not None:
                told = outcome(event.recording)
                self.line(f"{self._ended}/{self._total}  {event.job.label}: {told}, recorded before")
        if len(reused) > _NAMED:
            self.line(f"{len(reused)} of {self._total} runs were finished before.")

    def _end(self, event: "Event") -> None:
        self._ended += 1
        bar = self._tasks.pop(event.job.key, None)
        if bar is not None:
            self._bars.remove_task(bar)
        assert event.recording is not None
        left = duration(self._left.seconds())
        later = f"; about {left} left" if left and not self._shown else ""
        took = duration(event.seconds) or "0:00"
        self.line(f"{self._ended}/{self._total}  {event.job.label}: {outcome(event.recording)}, {took}{later}")

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
            status = None if event.recording is None else event.recording.meta.get("status")
            if event.what == "finished" and status == "complete":
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


def outcome(recording: "Recording") -> str:
    """Say in a few words how a recording ended."""
    from gradlens.analysis.ending import at_the_end

    steps, status = recording.steps, str(recording.meta.get("status"))
    unit = "seeds" if recording.meta.get("kind") == "init" else "steps"
    words = [f"{len(steps)} {unit}"]
    if unit == "steps" and len(steps):
        losses = steps.set_index("step")["loss"].dropna()
        words.append(f"loss {at_the_end(losses).mean():.3f}" if len(losses) else "loss not recorded")
    words += [status] if status != "complete" else []
    return ", ".join(words)


def duration(seconds: float) -> str:
    """Write a time as ``1:02:03`` or ``2:03``; nothing for no time."""
    whole = round(seconds)
    if whole <= 0:
        return ""
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
