"""A grid of training runs, several at a time: finished ones are reused, those cut off go on.

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
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch

from gradlens.errors import GradlensError
from gradlens.lens.provenance import provenance
from gradlens.recording import Recording, load
from gradlens.tasks import TASKS
from gradlens.training.config import TrainingConfig
from gradlens.training.earlier import is_finished
from gradlens.training.folder_of_runs import claimed
from gradlens.training.trainer import Progress, choose_device, train

#: Seconds between two looks at the workers, and between two words of one of them, when it also asks whether to go on.
_LOOK, _WORD = 0.2, 0.5


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training run of a grid, as plain values: it is sent to another process.

    Attributes:
        key: its folder below ``runs``, such as ``lm/adanorm/seed-0``.
        label: the name in tables and legends.
        task: name in ``TASKS``.
        variant: of the task's model.
        size: keyword arguments of the model.
        config: how it is trained.
        watch: what the lens records.
    """

    key: str
    label: str
    task: str
    variant: str
    size: Mapping[str, Any]
    config: TrainingConfig
    watch: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something happened to a run.

    Attributes:
        what: it was finished before, began, went on, or finished.
        run: which.
        progress: where it is, when it went on.
        status: how it ended, ``"complete"`` or ``"diverged"``.
        seconds: it took, when it finished.
    """

    what: Literal["reused", "started", "progress", "finished"]
    run: Run
    progress: Progress | None = None
    status: str = ""
    seconds: float = 0.0


#: What a worker says: the index of its run, and how far it is; None when it begins.
_Word: TypeAlias = tuple[int, Progress | None]


def run_grid(
    runs: Sequence[Run],
    out: Path,
    manifest: Mapping[str, Any],
    *,
    jobs: int | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> list[Recording]:
    """Train every run that is not finished yet.

    Args:
        runs: in the order in which they are begun.
        out: the folder; one that was begun for the same goes on, also with other runs in it.
        manifest: what it says of itself: ``kind``, ``label``, ``settings``.
        jobs: runs at a time, each in a process and with its share of the threads. Default: one a core, or one
            where the runs share an accelerator.
        on_event: called in this process as things happen.

    Returns:
        One recording a run, in the same order.

    Raises:
        RecordingError: the folder holds something else or is being written, or a run in it is of other settings.
        GradlensError: a run cannot be made; the others that were in progress can be gone on with.
    """
    tell = on_event or (lambda event: None)
    wanted = {**manifest, "runs": [f"runs/{run.key}" for run in runs], **provenance()}
    with claimed(out, wanted, lambda there, here: []):  # each run sees to its own settings
        finished = {run.key for run in runs if is_finished(out / "runs" / run.key)}
        for run in runs:
            if run.key in finished:
                tell(Event(what="reused", run=run))
        missing = [run for run in runs if run.key not in finished]
        most = jobs or _default_jobs(missing)
        if most == 1 or len(missing) <= 1:
            _one_by_one(missing, out, tell)
        else:
            _side_by_side(missing, out, min(most, len(missing)), tell)
        return [load(out / "runs" / run.key) if run.key not in finished else _checked(run, out) for run in runs]


def _default_jobs(runs: Sequence[Run]) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores if all(choose_device(run.config.device).type == "cpu" for run in runs) else 1


def _one_by_one(runs: Sequence[Run], out: Path, tell: Callable[[Event], None]) -> None:
    for run in runs:
        tell(Event(what="started", run=run))
        begun = time.monotonic()
        recording = _train(run, out, partial(_tell_progress, tell, run))
        tell(_finished(run, str(recording.meta["status"]), time.monotonic() - begun))


def _tell_progress(tell: Callable[[Event], None], run: Run, progress: Progress) -> None:
    tell(Event(what="progress", run=run, progress=progress))


def _side_by_side(runs: Sequence[Run], out: Path, jobs: int, tell: Callable[[Event], None]) -> None:
    """Train in ``jobs`` processes; where one fails, or this one is interrupted or killed, the others soon stop."""
    context = multiprocessing.get_context("spawn")
    words, stop = context.Queue(), context.Event()
    threads = max(1, torch.get_num_threads() // jobs)
    with ProcessPoolExecutor(jobs, context, initializer=_begin_worker, initargs=(words, stop, threads)) as pool:
        futures = {pool.submit(_work, index, run, out): run for index, run in enumerate(runs)}
        try:
            for future in _as_they_finish(futures, lambda: _listen(words, runs, tell)):
                status, seconds = future.result()
                tell(_finished(futures[future], status, seconds))
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _as_they_finish(futures: Mapping[Future[Any], Run], listen: Callable[[], None]) -> Iterator[Future[Any]]:
    waiting = set(futures)
    while waiting:
        done, waiting = wait(waiting, timeout=_LOOK, return_when=FIRST_COMPLETED)
        listen()
        yield from done


def _listen(words: Any, runs: Sequence[Run], tell: Callable[[Event], None]) -> None:
    """Pass on what the workers said since the last time."""
    with suppress(queue.Empty):
        while True:
            index, progress = words.get_nowait()
            tell(Event(what="started" if progress is None else "progress", run=runs[index], progress=progress))


def _finished(run: Run, status: str, seconds: float) -> Event:
    return Event(what="finished", run=run, status=status, seconds=seconds)


# ---------------------------------------------------------------------- in the worker

_words: Any = None
_stop: Any = None


def _begin_worker(words: Any, stop: Any, threads: int) -> None:
    global _words, _stop
    _words, _stop = words, stop
    torch.set_num_threads(threads)


def _work(index: int, run: Run, out: Path) -> tuple[str, float]:
    """Train one run in a worker; return how it ended and the seconds it took."""
    _words.put((index, None))
    begun = said = time.monotonic()
    parent = multiprocessing.parent_process()
    assert parent is not None

    def on_step(progress: Progress) -> None:
        nonlocal said
        if time.monotonic() - said > _WORD:
            said = time.monotonic()
            _words.put((index, progress))
            if _stop.is_set() or not parent.is_alive():
                raise KeyboardInterrupt

    try:
        recording = _train(run, out, on_step)
    except GradlensError as error:
        raise GradlensError(f"{run.label}: {error}") from None  # the plain kind can be sent to another process
    return str(recording.meta["status"]), time.monotonic() - begun


# ---------------------------------------------------------------------- in either


@cache
def _task(name: str) -> Any:
    """Load a task once in a process."""
    return TASKS[name]()


def _train(run: Run, out: Path, on_step: Callable[[Progress], None] | None = None) -> Recording:
    """Train a run, go on with it, or read it where it is finished with the same settings."""
    task = _task(run.task)
    return train(
        partial(task.model, run.variant, **run.size),
        task,
        run.config,
        out=out / "runs" / run.key,
        label=run.label,
        meta={"variant": run.variant},
        watch=run.watch,
        on_step=on_step,
    )


def _checked(run: Run, out: Path) -> Recording:
    """Read a finished run, or say in what its settings differ; nothing is trained."""
    return _train(run, out)
