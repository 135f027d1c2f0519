"""A grid of jobs, several at a time: what is finished is reused, what was cut off goes on.

OUT/
  manifest.json        kind "reproduce", settings, runs, status
  lock                 held by the process that runs the grid
  runs/<key>           run folders
"""

import multiprocessing
import os
import queue
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch

from gradlens.errors import GradlensError
from gradlens.lab.training.earlier import is_finished
from gradlens.lab.training.folder_of_runs import claimed
from gradlens.lab.training.jobs import Job
from gradlens.lab.training.trainer import Progress, choose_device
from gradlens.lens.provenance import provenance
from gradlens.recording import Recording, load

#: Seconds between two looks at the workers, and between two words of one of them, when it also asks whether to go on.
_LOOK, _WORD = 0.2, 0.5


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something happened to a job.

    Attributes:
        what: it was finished before, began, went on, or finished.
        job: which.
        done: of ``job.total``, when it went on.
        progress: loss and speed, when a training went on.
        status: how it ended, ``"complete"`` or ``"diverged"``.
        seconds: it took, when it finished.
    """

    what: Literal["reused", "started", "progress", "finished"]
    job: Job
    done: int = 0
    progress: Progress | None = None
    status: str = ""
    seconds: float = 0.0


#: What a worker says: the index of its job, and how far it is as in ``OnProgress``; None when it begins.
_Word: TypeAlias = tuple[int, tuple[int, Progress | None] | None]


def run_grid(
    jobs: Sequence[Job],
    out: Path,
    manifest: Mapping[str, Any],
    *,
    at_a_time: int | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> list[Recording]:
    """Make every recording that is not finished yet.

    Args:
        jobs: in the order in which they are begun.
        out: the folder; one that was begun for the same goes on, also with other jobs in it.
        manifest: what it says of itself: ``kind``, ``label``, ``settings``.
        at_a_time: how many, each in a process and with its share of the threads. Default: one a core, or one
            where they share an accelerator.
        on_event: called in this process as things happen.

    Returns:
        One recording a job, in the same order.

    Raises:
        RecordingError: the folder holds something else or is being written, or a recording in it is of other
            settings; then nothing is begun.
        GradlensError: a recording cannot be made; the others that were in progress can be gone on with.
    """
    tell = on_event or (lambda event: None)
    wanted = {**manifest, "runs": [f"runs/{job.key}" for job in jobs], **provenance()}
    with claimed(out, wanted, lambda there, here: []):  # each job sees to its own settings
        finished = _finished_before(jobs, out, tell)
        missing = [job for job in jobs if job.key not in finished]
        most = at_a_time or _default_number(missing)
        if most == 1 or len(missing) <= 1:
            _one_by_one(missing, out, tell)
        else:
            _side_by_side(missing, out, min(most, len(missing)), tell)
        return [finished[job.key] if job.key in finished else load(_folder(job, out)) for job in jobs]


def _folder(job: Job, out: Path) -> Path:
    return out / "runs" / job.key


def _finished_before(jobs: Sequence[Job], out: Path, tell: Callable[[Event], None]) -> dict[str, Recording]:
    """Read what is finished, or say in what its settings differ, before hours of training."""
    finished = {}
    for job in jobs:
        if is_finished(_folder(job, out)):
            finished[job.key] = job.record(_folder(job, out), lambda done, progress: None)
            tell(Event(what="reused", job=job))
    return finished


def _default_number(jobs: Sequence[Job]) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores if all(choose_device(job.runs_on).type == "cpu" for job in jobs) else 1


def _one_by_one(jobs: Sequence[Job], out: Path, tell: Callable[[Event], None]) -> None:
    for job in jobs:
        tell(Event(what="started", job=job))
        begun = time.monotonic()
        recording = job.record(_folder(job, out), partial(_tell_progress, tell, job))
        tell(_finished(job, str(recording.meta["status"]), time.monotonic() - begun))


def _tell_progress(tell: Callable[[Event], None], job: Job, done: int, progress: Progress | None) -> None:
    tell(Event(what="progress", job=job, done=done, progress=progress))


def _side_by_side(jobs: Sequence[Job], out: Path, number: int, tell: Callable[[Event], None]) -> None:
    """Work in ``number`` processes; where one fails, or this one is interrupted or killed, the others soon stop."""
    context = multiprocessing.get_context("spawn")
    words, stop = context.Queue(), context.Event()
    threads = max(1, torch.get_num_threads() // number)
    with ProcessPoolExecutor(number, context, initializer=_begin_worker, initargs=(words, stop, threads)) as pool:
        futures = {pool.submit(_work, index, job, out): job for index, job in enumerate(jobs)}
        try:
            for future in _as_they_finish(futures, lambda: _listen(words, jobs, tell)):
                status, seconds = future.result()
                tell(_finished(futures[future], status, seconds))
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _as_they_finish(futures: Mapping[Future[Any], Job], listen: Callable[[], None]) -> Iterator[Future[Any]]:
    waiting = set(futures)
    while waiting:
        done, waiting = wait(waiting, timeout=_LOOK, return_when=FIRST_COMPLETED)
        listen()
        yield from done


def _listen(words: Any, jobs: Sequence[Job], tell: Callable[[Event], None]) -> None:
    """Pass on what the workers said since the last time."""
    with suppress(queue.Empty):
        while True:
            word: _Word = words.get_nowait()
            index, went_on = word
            if went_on is None:
                tell(Event(what="started", job=jobs[index]))
            else:
                _tell_progress(tell, jobs[index], *went_on)


def _finished(job: Job, status: str, seconds: float) -> Event:
    return Event(what="finished", job=job, status=status, seconds=seconds)


# ---------------------------------------------------------------------- in the worker

_words: Any = None
_stop: Any = None


def _begin_worker(words: Any, stop: Any, threads: int) -> None:
    global _words, _stop
    _words, _stop = words, stop
    torch.set_num_threads(threads)


def _work(index: int, job: Job, out: Path) -> tuple[str, float]:
    """Do one job in a worker; return how it ended and the seconds it took."""
    _words.put((index, None))
    begun = said = time.monotonic()
    parent = multiprocessing.parent_process()
    assert parent is not None

    def on_progress(done: int, progress: Progress | None) -> None:
        nonlocal said
        if time.monotonic() - said > _WORD:
            said = time.monotonic()
            _words.put((index, (done, progress)))
            if _stop.is_set() or not parent.is_alive():
                raise KeyboardInterrupt

    try:
        recording = job.record(_folder(job, out), on_progress)
    except GradlensError as error:
        raise GradlensError(f"{job.label}: {error}") from None  # the plain kind can be sent to another process
    return str(recording.meta["status"]), time.monotonic() - begun
