"""Who works: processes of this machine, the nodes of a cluster under Slurm, or the workers of Dask.

Whoever it is sees the folder of all runs, and takes ``submit(function, argument)``; what comes back says ``done()`` and
gives its ``result()``, which fails only where the worker is gone.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import torch

from gradlens.errors import GradlensError
from gradlens.lab.runs.work import watch_parent

#: Seconds that workers have to end their step when they are to stop.
_PATIENCE = 10.0


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Promise(Protocol):
    """What is to come back."""

    def done(self) -> bool:
        """Whether it is there."""

    def result(self) -> Any:
        """Return it."""


class Executor:
    """The base: a context manager that leaves nothing running behind.

    Attributes:
        threads: of torch, for each job.
    """

    threads = 1

    def submit(self, function: Callable[[Any], Any], argument: Any) -> Promise:
        """Have a function called by a worker."""
        raise NotImplementedError

    def lost(self, label: str, tries: int) -> GradlensError:
        """Return the error for a job whose worker is gone once too often."""
        return GradlensError(
            f"A job's worker must live until it has ended; that of {label!r}, or one beside it, was killed {tries} "
            "times. It may need more memory than there is: ask for fewer at a time (--jobs). The same command goes on "
            "from there."
        )

    def close(self, failed: bool) -> None:
        """Let the workers go; where something failed, at once."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(failed=error is not None)


class Local(Executor):
    """Processes of this machine, by loky.

    Args:
        number: of them; they share torch's threads.
    """

    def __init__(self, number: int) -> None:
        self.number, self.threads = number, max(1, torch.get_num_threads() // number)
        self._pool: Any = None

    def submit(self, function: Callable[[Any], Any], argument: Any) -> Promise:
        """Have a function called by a worker; where one was killed they are all begun anew."""
        from loky import ProcessPoolExecutor
        from loky.process_executor import BrokenProcessPool, ShutdownExecutorError

        try:
            if self._pool is not None:
                promise: Promise = self._pool.submit(function, argument)
                return promise
        except (BrokenProcessPool, ShutdownExecutorError):
            self._pool.shutdown(wait=False, kill_workers=True)
        self._pool = ProcessPoolExecutor(self.number, initializer=watch_parent, initargs=(os.getpid(),))
        promise = self._pool.submit(function, argument)
        return promise

    def close(self, failed: bool) -> None:
        """Let the workers go; where something failed, once they have ended their step."""
        if self._pool is None:
            return
        if failed:
            self._pool.shutdown(wait=False)
            _wait(list(self._pool._processes.values()), _PATIENCE)
        self._pool.shutdown(wait=not failed, kill_workers=failed)


def _wait(processes: list[Any], seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and any(process.is_alive() for process in processes):
        time.sleep(0.05)


class Slurm(Executor):
    """Jobs of a cluster under Slurm, by submitit; sbatch's own variables (SBATCH_PARTITION, ...) say where.

    Args:
        folder: for its logs, which all nodes see.
        number: at a time; None for as many as the cluster gives.
        cluster: another of submitit's, such as ``"local"``.
    """

    def __init__(self, folder: Path, number: int | None = None, cluster: str | None = None) -> None:
        submitit = _extra("submitit", "slurm")
        self.threads = 4
        self._executor = submitit.AutoExecutor(folder=folder / "slurm", cluster=cluster)
        self._executor.update_parameters(
            name="gradlens", timeout_min=24 * 60, cpus_per_task=self.threads, slurm_array_parallelism=number or 256
        )
        self._jobs: list[Any] = []

    def submit(self, function: Callable[[Any], Any], argument: Any) -> Promise:
        """Submit a job."""
        self._jobs.append(self._executor.submit(function, argument))
        job: Promise = self._jobs[-1]
        return job

    def close(self, failed: bool) -> None:
        """Cancel what has not ended."""
        for job in self._jobs:
            if not job.done():
                job.cancel()


class Dask(Executor):
    """Workers of Dask.

    Args:
        address: of its scheduler.
    """

    def __init__(self, address: str) -> None:
        distributed = _extra("distributed", "dask")
        try:
            self._client = distributed.Client(address, timeout="10s")
        except OSError as error:
            raise GradlensError(f"--executor dask=ADDRESS needs a scheduler; none answers at {address}.") from error
        self._futures: list[Any] = []

    def submit(self, function: Callable[[Any], Any], argument: Any) -> Promise:
        """Submit a task."""
        self._futures.append(self._client.submit(function, argument, pure=False))
        future: Promise = self._futures[-1]
        return future

    def close(self, failed: bool) -> None:
        """Cancel what has not ended, and leave the scheduler as it was."""
        self._client.cancel([future for future in self._futures if not future.done()])
        self._client.close()


def named(text: str, out: Path, number: int | None) -> Executor | None:
    """Return the executor that ``--executor`` names; None for this machine's processes.

    Args:
        text: ``local``, ``slurm``, or ``dask=ADDRESS``.
        out: the folder of all runs.
        number: at a time.

    Raises:
        GradlensError: there is none of that name, or its library is missing.
    """
    kind, _, address = text.partition("=")
    if kind == "dask" and address:
        return Dask(address)
    if text == "slurm":
        return Slurm(out, number)
    if text != "local":
        raise GradlensError(f"--executor takes local, slurm, or dask=ADDRESS; got {text!r}.")
    return None


def _extra(module: str, extra: str) -> Any:
    try:
        return __import__(module)
    except ImportError as error:
        raise GradlensError(
            f"--executor {extra} needs the package {module}; it is not installed. Install gradlens with its extra "
            f'{extra}: python3 -m pip install -c constraints.txt ".[{extra}]".'
        ) from error
