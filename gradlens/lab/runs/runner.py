"""Making recordings, several at a time: what is finished is reused, what was cut off goes on.

OUT/
  manifest.json        kind "compare" or "reproduce", settings, runs, status
  lock                 held by the process that makes the recordings
  runs/<key>           run folders, which whoever works on a job must see
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from gradlens.lab.runs.executors import Executor, Local, Promise, cores
from gradlens.lab.runs.folder_of_runs import claimed
from gradlens.lab.runs.jobs import Job
from gradlens.lab.runs.work import Stage, Work, do
from gradlens.lab.training.earlier import is_finished
from gradlens.lab.training.trainer import Progress, choose_device
from gradlens.lens.provenance import provenance
from gradlens.recording import Recording, load

#: Seconds between two looks at the workers.
_LOOK = 0.2
#: How often a job is begun whose worker was killed.
_TRIES = 3


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something happened to a job.

    Attributes:
        what: it was finished before, began, went on, or finished.
        job: which.
        done: of ``job.total``, when it went on.
        progress: loss and speed, when a training went on.
        recording: the finished one.
        seconds: it took, when it finished.
    """

    what: Literal["reused", "started", "progress", "finished"]
    job: Job
    done: int = 0
    progress: Progress | None = None
    recording: Recording | None = None
    seconds: float = 0.0


Tell = Callable[[Event], None]
Manifest = Mapping[str, Any]


def run_jobs(
    jobs: Sequence[Job],
    out: Path,
    manifest: Manifest,
    *,
    changed: Callable[[Manifest, Manifest], list[str]] = lambda there, here: [],
    at_a_time: int | None = None,
    executor: Executor | None = None,
    on_event: Tell | None = None,
) -> list[Recording]:
    """Make every recording that is not finished yet.

    Args:
        jobs: in the order in which they are begun.
        out: the folder; one that was begun for the same goes on, also with other jobs in it.
        manifest: what it says of itself: ``kind``, ``label``, ``settings``.
        changed: from the manifest that is there and this one, a phrase for everything that decides the numbers and
            differs. By default each job sees to its own settings.
        at_a_time: how many. Default: one a core, or one where they share an accelerator.
        executor: who works. Default: processes of this machine, each with its share of the threads; with one at a time,
            this process.
        on_event: called in this process as things happen.

    Returns:
        One recording a job, in the same order.

    Raises:
        RecordingError: the folder holds something else or is being written, or a recording in it is of other
            settings; then nothing is begun.
        GradlensError: a recording cannot be made; the others that were in progress can be gone on with.
    """
    tell = on_event or (lambda event: None)
    wanted = {"runs": [f"runs/{job.key}" for job in jobs], **manifest, **provenance()}
    with claimed(out, wanted, changed):
        made = _finished_before(jobs, out, tell)
        missing = [job for job in jobs if job.key not in made]
        number = min(at_a_time or _default_number(missing), len(missing))
        if executor is None and number > 1:
            executor = Local(number)
        if executor is None:
            made |= _one_by_one(missing, out, tell)
        else:
            # The stage is left first: without it those who work stop, and the executor waits for them.
            with executor, Stage(out) as stage:
                made |= _side_by_side(missing, out, executor, stage, tell)
        return [made[job.key] for job in jobs]


def _finished_before(jobs: Sequence[Job], out: Path, tell: Tell) -> dict[str, Recording]:
    """Read what is finished, or say in what its settings differ, before hours of training."""
    finished = {}
    for job in jobs:
        if is_finished(job.folder(out)):
            recording = finished[job.key] = job.record(job.folder(out), lambda done, progress: None)
            tell(Event(what="reused", job=job, recording=recording))
    return finished


def _default_number(jobs: Sequence[Job]) -> int:
    return cores() if all(choose_device(job.runs_on).type == "cpu" for job in jobs) else 1


def _one_by_one(jobs: Sequence[Job], out: Path, tell: Tell) -> dict[str, Recording]:
    made = {}
    for job in jobs:
        tell(Event(what="started", job=job))
        begun = time.monotonic()
        made[job.key] = job.record(job.folder(out), partial(_tell_progress, tell, job))
        tell(Event(what="finished", job=job, recording=made[job.key], seconds=time.monotonic() - begun))
    return made


def _tell_progress(tell: Tell, job: Job, done: int, progress: Progress | None) -> None:
    tell(Event(what="progress", job=job, done=done, progress=progress))


def _side_by_side(jobs: Sequence[Job], out: Path, executor: Executor, stage: Stage, tell: Tell) -> dict[str, Recording]:
    """Have others work; where one job fails, or this process is interrupted or killed, they soon stop."""
    made: dict[str, Recording] = {}
    tries = dict.fromkeys((job.key for job in jobs), 1)

    def submitted(job: Job) -> Promise:
        return executor.submit(do, Work.of(job, out, executor.threads, stage))

    waiting = {job.key: (job, submitted(job)) for job in jobs}
    started: set[str] = set()
    while waiting:
        time.sleep(_LOOK)
        for key, (job, future) in list(waiting.items()):
            word = stage.heard(job)
            if word is not None:
                if key not in started:
                    started.add(key)
                    tell(Event(what="started", job=job))
                _tell_progress(tell, job, *word)
            if not future.done():
                continue
            try:
                outcome = future.result()
            except Exception as error:  # not the job's own, which it returns: its worker is gone
                if tries[key] == _TRIES:
                    raise executor.lost(job.label, _TRIES) from error
                tries[key] += 1
                waiting[key] = (job, submitted(job))
                continue
            del waiting[key]
            if outcome.error is not None:
                raise outcome.error
            if key not in started:
                tell(Event(what="started", job=job))
            made[key] = load(job.folder(out))
            tell(Event(what="finished", job=job, recording=made[key], seconds=outcome.seconds))
    return made
