"""What happens where a job is done, in this process or on another machine, and how the two sides speak: by files.

OUT/stage-<attempt>/
  <job>.json           how far it is; where the folder is gone, all shall stop
"""

import hashlib
import json
import os
import secrets
import shutil
import sys
import threading
import time
from contextlib import redirect_stdout, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import torch

from gradlens.errors import GradlensError, UnknownNameError
from gradlens.lab.runs.jobs import Job
from gradlens.lab.training.trainer import Progress

#: Seconds between two words of a worker, when it also asks whether to go on.
_WORD = 0.5
#: Seconds between two looks at whether the parent lives.
_WATCH = 0.1


class Stage:
    """The files by which workers are heard: a context manager. When it is left, all that work stop after their step.

    Args:
        out: the folder of all runs.
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        self.folder = out / f"stage-{secrets.token_hex(4)}"
        self._heard: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._clear()  # of an attempt that was killed, too
        self.folder.mkdir()
        return self

    def __exit__(self, *error: object) -> None:
        self._clear()

    def _clear(self) -> None:
        for stage in self._out.glob("stage-*"):
            gone = stage.with_name(f"left-{stage.name}")  # at once: a word may be written meanwhile
            with suppress(OSError):
                stage.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)

    def word(self, job: Job) -> Path:
        """Return where a job says how far it is."""
        return self.folder / f"{hashlib.sha256(job.key.encode()).hexdigest()[:16]}.json"

    def heard(self, job: Job) -> tuple[int, Progress | None] | None:
        """Return what a job has said since the last time."""
        with suppress(OSError, ValueError):
            path = self.word(job)
            at = path.stat().st_mtime_ns
            if at != self._heard.get(job.key):
                self._heard[job.key] = at
                told = json.loads(path.read_text("utf-8"))
                return told["done"], None if told["progress"] is None else Progress(**told["progress"])
        return None


@dataclass(frozen=True)
class Work:
    """A job with what its worker must know, as plain values.

    Attributes:
        job: what is to be done.
        out: the folder of all runs.
        threads: of torch, for it alone.
        word: where it says how far it is.
    """

    job: Job
    out: Path
    threads: int
    word: Path

    @classmethod
    def of(cls, job: Job, out: Path, threads: int, stage: Stage) -> Self:
        """Return the work of a job; its paths hold on other machines and in other folders."""
        out = out.resolve()
        return cls(job, out, threads, out / stage.folder.name / stage.word(job).name)


@dataclass(frozen=True)
class Outcome:
    """How a job ended: in so many seconds, or with an error of its own."""

    seconds: float = 0.0
    error: BaseException | None = None


def do(work: Work) -> Outcome:
    """Do one job, wherever this is."""
    torch.set_num_threads(work.threads)
    begun = time.monotonic()
    said = -1.0

    def on_progress(done: int, progress: Progress | None) -> None:
        nonlocal said
        if time.monotonic() - said > _WORD:
            said = time.monotonic()
            if not work.word.parent.exists():
                raise KeyboardInterrupt
            _say(work.word, {"done": done, "progress": None if progress is None else asdict(progress)})

    try:
        on_progress(0, None)
        with redirect_stdout(sys.stderr):  # what a model of the user's prints is no result
            work.job.record(work.job.folder(work.out), on_progress)
    except GradlensError as error:
        plain = GradlensError if isinstance(error, UnknownNameError) else type(error)  # which can be sent
        return Outcome(error=plain(f"{work.job.label}: {error}"))
    except (Exception, KeyboardInterrupt) as error:
        return Outcome(error=error)
    return Outcome(time.monotonic() - begun)


def _say(path: Path, word: dict[str, Any]) -> None:
    """Write a word whole; where the folder is gone nobody listens."""
    with suppress(OSError):
        whole = path.with_suffix(".part")
        whole.write_text(json.dumps(word), "utf-8")
        os.replace(whole, path)


def watch_parent(parent: int) -> None:
    """End this process with the one that began it, for workers on the same machine: no recording loses a step by it."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
