"""What it takes to read and judge large recordings: seconds, peak memory, size of the PDF. Run: ``make bench-judge``.

Each command is a process of its own, as for whoever types it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gradlens.recording import RunWriter
from gradlens.recording.schema import STORED

_LOAD = "import sys, gradlens; gradlens.load(sys.argv[1])"


class Subject(NamedTuple):
    """A recording to be judged, and what it may take at most.

    Attributes:
        make: writes the run folder.
        aims: command to (seconds, MiB of memory, MiB of PDF), those that there are.
    """

    make: Callable[[Path], None]
    aims: dict[str, tuple[float | None, float | None, float | None]]


def _columns(table: str, rows: int, numbers: np.random.Generator, /, **known: Any) -> dict[str, Any]:
    """Return stored columns, as if nothing were odd: floats near one, whole numbers of 64."""
    made: dict[str, Any] = {}
    for column in STORED[table]:
        if column.dtype == "float":
            made[column.name] = numbers.lognormal(0.0, 0.1, rows)
        elif column.dtype == "int":
            made[column.name] = np.full(rows, 64)
        else:
            made[column.name] = [False if column.dtype == "bool" else ""] * rows
    return made | known


def _sites(writer: RunWriter, blocks: int, norms: int) -> tuple[list[str], list[str]]:
    """Write the sites of so many blocks, each with some norms, and return the names of both."""
    inside = [f"blocks.{block}.norm{norm}" for block in range(blocks) for norm in range(norms)]
    outside = [f"blocks.{block}" for block in range(blocks)]
    sites = [*inside, *outside]
    kinds = ["norm"] * len(inside) + ["block"] * len(outside)
    place = [int(site.split(".")[1]) for site in sites]
    told = {
        "site": sites, "module_class": ["Net"] * len(sites), "kind": kinds, "block": place, "width": [64] * len(sites),
        "norm": ["layernorm" if kind == "norm" else None for kind in kinds],
        "placement": ["pre_branch" if kind == "norm" else None for kind in kinds],
        "order": np.argsort(np.argsort(place, kind="stable")), "eps": [1e-5] * len(sites),
        "affine": [True] * len(sites), "centered": [True] * len(sites),
    }  # fmt: skip
    writer.append("sites", told)
    return inside, outside


def _of_norms(step: Any, sites: list[str], rank: int, numbers: np.random.Generator) -> dict[str, Any]:
    rows = len(sites)
    keys = {"step": step, "site": sites, "call": np.zeros(rows, int), "rank": np.full(rows, rank)}
    removed = numbers.uniform(0.01, 0.03, (2, rows))
    energies = {"energy_g": np.ones(rows), "energy_recentering": removed[0], "energy_mean": removed[0]}
    counts = dict.fromkeys(("n_input", "n_grad_output", "n_grad_input"), np.full(rows, 64.0))
    return _columns("norms", rows, numbers, **keys, **energies, energy_kept=1.0 - removed.sum(axis=0), **counts)


def _of_activations(
    step: Any, sites: list[str], tensor: str, rank: int, numbers: np.random.Generator
) -> dict[str, Any]:
    rows = len(sites)
    keys = {"step": step, "site": sites, "call": np.zeros(rows, int), "rank": np.full(rows, rank)}
    sums = {"n": np.full(rows, 64.0), "squares": numbers.lognormal(8.3, 0.1, rows), "tensor": [tensor] * rows}
    return _columns("activations", rows, numbers, **keys, **sums)


def _of_params(step: Any, names: list[str], numbers: np.random.Generator) -> dict[str, Any]:
    rows, entries = len(names), 64.0
    sums = {"nonfinite": np.zeros(rows, int), "numel": np.full(rows, int(entries)), "rows": np.full(rows, 8.0)}
    sums |= {"sampled": np.full(rows, entries), "active": np.full(rows, entries), "still": np.zeros(rows)}
    sums |= {"dead_rows": np.zeros(rows), "idle_rows": np.zeros(rows), "change_squares": np.full(rows, 1e-6)}
    return _columns("params", rows, numbers, step=step, name=names, **sums)


def _of_steps(step: Any, numbers: np.random.Generator) -> dict[str, Any]:
    rows = len(step)
    loss = 1.0 + 3.0 * np.exp(-np.asarray(step) / 300) + numbers.normal(0.0, 0.1, rows)
    told = {"step": step, "loss": loss, "lr": np.full(rows, 1e-3), "nan_loss": [False] * rows, "extra": [{}] * rows}
    return _columns("steps", rows, numbers, **told, clip_coef=np.ones(rows), loss_scale=np.full(rows, np.nan))


def _whole(folder: Path, steps: int, blocks: int, norms: int, matrices: int = 0) -> None:
    """Write a finished run at once: norms alone, or activations and parameters too."""
    writer, numbers = RunWriter(folder, _told(folder)), np.random.default_rng(0)
    inside, outside = _sites(writer, blocks, norms)
    at = np.arange(steps)
    writer.append("norms", _of_norms(np.repeat(at, len(inside)), inside * steps, 0, numbers))
    if matrices:
        for tensor, sites in (("input", inside), ("output", outside)):
            writer.append("activations", _of_activations(np.repeat(at, len(sites)), sites * steps, tensor, 0, numbers))
        names = [f"{site}.weight" for site in inside]
        names += [f"{block}.w{matrix}.weight" for block in outside for matrix in range(matrices)]
        writer.append("params", _of_params(np.repeat(at, len(names)), names * steps, numbers))
    writer.append("steps", _of_steps(at, numbers))
    writer.close("complete")


def _told(folder: Path, world: int = 1) -> dict[str, Any]:
    several = {"processes": {"world": world, "data": world, "recorded": 1}} if world > 1 else {}
    return {"kind": "attached", "label": folder.name, "model": {"family": "Net"}, "every": 1, **several}


def _killed(folder: Path, steps: int, world: int, blocks: int) -> None:
    """Write a run step by step that never ends, as one that was killed, or goes on."""
    for rank in range(world):
        writer, numbers = RunWriter(folder, _told(folder, world), rank), np.random.default_rng(rank)
        inside, outside = _sites(writer, blocks, 1)
        rows = {
            "norms": _of_norms(np.zeros(len(inside), int), inside, rank, numbers),
            "activations": _of_activations(np.zeros(len(outside), int), outside, "output", rank, numbers),
            "params": _of_params(np.zeros(len(inside), int), inside, numbers),
        }
        step_rows = _of_steps(np.arange(1), numbers)
        for step in range(steps):
            for table, columns in rows.items():
                writer.append(table, columns | {"step": np.full(len(columns["step"]), step)})
            writer.append("steps", step_rows | {"step": np.array([step])})
        writer.close("interrupted")


SUBJECTS: dict[str, Subject] = {
    "50 norms, 20,000 steps": Subject(
        lambda folder: _whole(folder, 20_000, 25, 2), {"diagnose": (3, 400, None), "report": (6, 400, 1)}
    ),
    "96 norms, 386 parameters, 2,000 steps": Subject(
        lambda folder: _whole(folder, 2_000, 48, 2, 6), dict.fromkeys(("diagnose", "report"), (None, None, None))
    ),
    "2,000 norms, 12,000 parameters, 20 steps": Subject(
        lambda folder: _whole(folder, 20, 1_000, 2, 10), {"diagnose": (2, None, None), "report": (10, None, None)}
    ),
    "512 processes, 10 steps": Subject(lambda folder: _killed(folder, 10, 512, 20), {"load": (2, None, None)}),
    "100,000 steps in segments": Subject(lambda folder: _killed(folder, 100_000, 1, 2), {"load": (4, None, None)}),
}


def measure(command: str, run: Path, out: Path) -> dict[str, float]:
    """Run one command in a process of its own.

    Returns:
        ``seconds``; ``memory``, its peak in MiB; of a report ``pdf``, its size in MiB.
    """
    words = {
        "load": ["-c", _LOAD, str(run)],
        "diagnose": ["-m", "gradlens", "diagnose", str(run), "--format", "json"],
        "report": ["-m", "gradlens", "report", str(run), "--out", str(out)],
    }[command]
    start = time.perf_counter()
    with subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    told = {"seconds": time.perf_counter() - start, "memory": usage.ru_maxrss / 1024}
    return told | ({"pdf": out.stat().st_size / 2**20} if command == "report" else {})


def main() -> None:
    """Print the table; write it as JSON where one is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="subjects whose name holds this")
    parser.add_argument("--runs", type=Path, help="where the recordings lie, or are made and stay; else they go")
    parser.add_argument("--out", type=Path, help="JSON to write")
    options = parser.parse_args()
    results: dict[str, Any] = {}
    print(f"{'recording':42} {'command':9} {'seconds':>8} {'aim':>4} {'MiB':>6} {'aim':>4} {'PDF':>5} {'aim':>3}")
    with tempfile.TemporaryDirectory() as held:
        for name, subject in SUBJECTS.items():
            if options.only not in name:
                continue
            run = (options.runs or Path(held)) / name.replace(",", "").replace(" ", "-")
            if not run.exists():
                subject.make(run)
            for command, aims in subject.aims.items():
                row = measure(command, run, Path(held) / "report.pdf")
                results.setdefault(name, {})[command] = row
                cells = zip((row["seconds"], row["memory"], row.get("pdf")), aims, (8, 6, 5), (4, 4, 3), strict=True)
                shown = " ".join(f"{_number(value):>{a}} {_number(aim):>{b}}" for value, aim, a, b in cells)
                print(f"{name:42} {command:9} {shown}", flush=True)
    if options.out:
        options.out.write_text(json.dumps(results, indent=2) + "\n")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


if __name__ == "__main__":
    main()
