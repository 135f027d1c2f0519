"""Measures some entries in a process of its own, and prints a JSON line for each; without arguments lists all."""

import json
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from tests.norms_table import stand_ins  # noqa: F401
from tests.norms_table.judge import Verdict
from tests.norms_table.packages import PACKAGES

os.environ["HF_HUB_OFFLINE"] = "1"
warnings.filterwarnings("ignore")

#: Seconds of the processor for one entry.
LIMIT = 45


class LateError(BaseException):
    """An entry took too long."""


def _late(*_: object) -> None:
    raise LateError(f"it took longer than {LIMIT} s")


def measure(package: str, name: str) -> dict[str, Any]:
    """Return what came of an entry, or of a family."""
    if package == "families":
        from tests.norms_table.families import family

        return family(name)
    entry = next(entry for entry in PACKAGES[package] if entry.name == name)
    found = {"norm": entry.norm, "plain": entry.plain, "version": _version(package), "shape": list(entry.shape)}
    verdict = entry.judged()
    found |= {"outcome": verdict.outcome, "said": verdict.said}
    if verdict.outcome in ("named", "silent") and entry.registers:
        found["told"] = _apart(entry.told)
    return found


def _apart(judged: Callable[[], Verdict]) -> str:
    """Return the outcome of what changes the process: what is registered holds for all that follows."""
    reader, writer = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=lambda: writer.send(judged().outcome))
    child.start()
    outcome = str(reader.recv()) if reader.poll(LIMIT) else "not built"
    child.kill()
    return outcome


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def main(package: str, names: list[str]) -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGPROF, _late)
    for name in names:
        signal.setitimer(signal.ITIMER_PROF, LIMIT)
        try:
            found = measure(package, name)
        except (Exception, LateError) as error:
            why = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            found = {"outcome": "not built", "said": why}
        signal.setitimer(signal.ITIMER_PROF, 0)
        print("\n" + json.dumps({"package": package, "name": name, **found}), flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1], sys.argv[2:])
    else:
        from tests.norms_table.small import model_types

        every = {package: [entry.name for entry in entries] for package, entries in PACKAGES.items()}
        print(json.dumps({**every, "families": model_types()}))
