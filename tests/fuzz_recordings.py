"""What becomes of a damaged recording: thousands of mutations of run folders, each read where a crash is survived.

    python -m tests.fuzz_recordings --mutations 5000 --seed 0

A read is *same* when all public tables (and those merged over processes) are the undamaged folder's, and *prefix* when
they are its rows up to some step and the recording says so: by the status of a run that did not end, or by
``meta["damage"]``. It is *refused* when one sentence names a file of the folder. All else is a fault: *unnamed* (a
refusal that names no file, or is no plain sentence), *wrong* (other numbers, without a word), *traceback*, *crash*,
*hang*.
"""

import argparse
import contextlib
import multiprocessing
import pickle
import random
import shutil
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pandas as pd

from tests.recording.folders import FOLDERS, make
from tests.recording.mutations import MUTATIONS, mutate

OUTCOMES = ("same", "prefix", "refused", "unnamed", "wrong", "traceback", "crash", "hang")
FAULTS = OUTCOMES[3:]
#: Seconds that one folder may be read for.
_PATIENCE = 60.0


def tables(folder: Path) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """Return all that a reader sees: the public tables, those merged over processes, and the metadata."""
    from gradlens import load
    from gradlens.recording.schema import PUBLIC

    with warnings.catch_warnings(action="ignore"):
        recording = load(folder)
    merged = recording.over_processes()
    seen = {name: recording.table(name) for name in PUBLIC}
    return seen | {f"{name} merged": merged.table(name) for name in ("norms", "activations")}, dict(recording.meta)


def outcome(folder: Path, truth: dict[str, pd.DataFrame], ended: bool) -> tuple[str, str]:
    """Read a folder and judge it: one of ``OUTCOMES`` and what was said."""
    from gradlens.errors import GradlensError

    try:
        seen, meta = tables(folder)
    except GradlensError as error:
        text = str(error)
        names = {path.name for path in folder.rglob("*")} | {folder.name}
        plain = text.isprintable() and any(name in text for name in names)
        return "refused" if plain else "unnamed", text
    except Exception as error:
        return "traceback", f"{type(error).__name__}: {error}"
    said = "; ".join(meta.get("damage") or ())
    if all(seen[name].equals(frame) for name, frame in truth.items()):
        return "same", said
    last = seen["steps"]["step"].max() if len(seen["steps"]) else -1
    stated = bool(said) or (not ended and meta.get("status") in ("interrupted", "running"))
    different = [name for name, frame in truth.items() if not _alike(seen[name], _until(frame, last))]
    if stated and last >= 0 and not different:
        return "prefix", said
    return "wrong", f"{', '.join(different) or 'fewer steps'} (steps up to {last}); said: {said or meta.get('status')}"


def _until(frame: pd.DataFrame, last: float) -> pd.DataFrame:
    return frame[frame["step"] <= last].reset_index(drop=True) if "step" in frame else frame


def _alike(seen: pd.DataFrame, wanted: pd.DataFrame) -> bool:
    """Whether two tables are equal; user columns of later steps are missing from a prefix."""
    later = [name for name in wanted.columns if name not in seen.columns and wanted[name].isna().all()]
    return seen.equals(wanted.drop(columns=later)) or (seen.empty and wanted.empty)


def _read_folders(pipe: Connection, truths: Path) -> None:
    with truths.open("rb") as file:
        known = pickle.load(file)
    while (asked := pipe.recv()) is not None:
        kind, folder = asked
        pipe.send(outcome(folder, *known[kind]))


class Reader:
    """A process that reads folders, started anew where reading one kills it."""

    def __init__(self, truths: Path) -> None:
        self._truths = truths
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("forkserver")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_read_folders, args=(theirs, self._truths), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, kind: str, folder: Path) -> tuple[str, str]:
        """Have a folder read and judged."""
        self._pipe.send((kind, folder))
        with contextlib.suppress(EOFError, ConnectionResetError):
            if self._pipe.poll(_PATIENCE):
                return tuple(self._pipe.recv())  # type: ignore[return-value]
        found = "hang" if self._process.is_alive() and not self._pipe.poll(0) else "crash"
        self.close()
        self._start()
        return found, f"exit code {self._process.exitcode}"

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()
        self._pipe.close()


def fuzz(mutations: int, seed: int, seconds: float = float("inf")) -> Iterator[tuple[str, str, str, str, str]]:
    """Mutate and read folders; yield kind of folder, kind of mutation, outcome, what was done, and what was said.

    Args:
        mutations: how many, dealt over all kinds of folders and mutations in turn.
        seed: decides all of them.
        seconds: no further one is begun after these.
    """
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as held:
        base, work = Path(held) / "base", Path(held) / "work"
        truths = {}
        for kind in FOLDERS:
            make(kind, base / kind)
            make(kind, base / f"{kind} other", other=True)
            shutil.copytree(base / kind, work)  # reading must leave the base as it is
            seen, meta = tables(work)
            truths[kind] = (seen, meta["status"] == "complete")
            shutil.rmtree(work)
        (Path(held) / "truths").write_bytes(pickle.dumps(truths))
        reader = Reader(Path(held) / "truths")
        cells = [(kind, mutation) for kind in FOLDERS for mutation in MUTATIONS]
        for number in range(mutations):
            if time.monotonic() - begun > seconds:
                break
            kind, mutation = cells[number % len(cells)]
            shutil.copytree(base / kind, work)
            done = mutate(mutation, work, base / f"{kind} other", random.Random(f"{seed} {number}"))
            found, said = reader.ask(kind, work) if done else ("same", "nothing to mutate")
            shutil.rmtree(work)
            yield kind, mutation, found, done, said
        reader.close()


def table(rows: list[tuple[str, str, str]]) -> str:
    """Return the counts as Markdown: a row a kind of folder and mutation."""
    counts = Counter(rows)
    lines = ["| folder | mutation | " + " | ".join(OUTCOMES) + " |", "|---|---|" + "--:|" * len(OUTCOMES)]
    for kind in FOLDERS:
        for mutation in MUTATIONS:
            numbers = [counts[kind, mutation, found] for found in OUTCOMES]
            lines.append(f"| {kind} | {mutation} | " + " | ".join(str(n) if n else "" for n in numbers) + " |")
    whole = [sum(found == one for *_, found in rows) for one in OUTCOMES]
    return "\n".join([*lines, f"| all | {len(rows)} | " + " | ".join(map(str, whole)) + " |"])


def main() -> None:
    """Run and print; leave with 1 where there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutations", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no further one after these")
    parser.add_argument("--show", type=int, default=20, help="faults to print in words")
    asked = parser.parse_args()
    rows, faults = [], []
    for kind, mutation, found, done, said in fuzz(asked.mutations, asked.seed, asked.seconds):
        rows.append((kind, mutation, found))
        if found in FAULTS:
            faults.append(f"{found}: {kind}, {mutation}, {done}: {said[:300]}")
    print(table(rows))
    print("\n".join(faults[: asked.show]))
    raise SystemExit(1 if faults else 0)


if __name__ == "__main__":
    main()
