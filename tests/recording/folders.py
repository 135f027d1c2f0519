"""Run folders to be damaged: rows as a lens writes them, from a seed."""

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from pyarrow import parquet

from gradlens.recording import RunWriter, thinning
from gradlens.recording.schema import STORED

STEPS = 8
_SITES = [f"layers.{index}.norm" for index in range(3)]
_PARAMETERS = [f"layers.{index}.{kind}" for index in range(3) for kind in ("weight", "bias")]
_AUDIT = {"norms": _SITES, "fired": _SITES, "steps": 1, "calls": {"most": 1, "sites": {}}, "problems": []}


def meta(label: str, world: int = 1) -> dict[str, Any]:
    """Return metadata as ``attach`` gives them."""
    several = {"processes": {"world": world, "data": world, "recorded": 1}} if world > 1 else {}
    model = {"family": "Net", "parameters": 1234}
    return {"kind": "attached", "label": label, "model": model, "every": 1, "watch": ["norms", "params"], **several}


def begin(writer: RunWriter) -> None:
    """Write the sites, as a lens does when it is attached."""
    told = {
        "site": _SITES, "module_class": ["torch.nn.LayerNorm"] * 3, "kind": ["norm"] * 3, "norm": ["layernorm"] * 3,
        "placement": ["pre_branch"] * 3, "block": [0, 1, None], "order": [0, 1, 2], "width": [16] * 3,
        "eps": [1e-5] * 3, "affine": [True] * 3, "centered": [True] * 3,
    }  # fmt: skip
    writer.append("sites", told)


def record(writer: RunWriter, step: int, numbers: np.random.Generator, *, counted: bool = True) -> None:
    """Write one step, its row of ``steps`` last."""
    for table, names in (("norms", _SITES), ("activations", _SITES), ("params", _PARAMETERS)):
        rows: dict[str, Any] = {c.name: numbers.uniform(0.1, 1.0, len(names)) for c in STORED[table]}
        whole = {c.name: numbers.integers(8, 64, len(names)) for c in STORED[table] if c.dtype == "int"}
        keys = {"step": np.full(len(names), step), "call": [0] * 3, "rank": [writer.rank] * 3, "site": names}
        keys |= {"name": names, "tensor": ["input"] * 3}
        writer.append(table, rows | whole | {name: value for name, value in keys.items() if name in rows})
    if counted:
        told = {c.name: numbers.uniform(0.1, 1.0, 1) for c in STORED["steps"]}
        told |= {"step": [step], "nan_loss": [False], "reason": [None]}
        writer.append("steps", told | {"extra": [{"accuracy": float(numbers.uniform())}]})


def probe(writer: RunWriter, step: int) -> None:
    """Write what a probe read."""
    numbers = {"value": [1.5], "low": [1.0], "high": [2.0]}
    writer.append("probes", {"step": [step], "probe": ["p"], "site": [""], "name": ["n"], "unit": [""], **numbers})


def _finished(folder: Path, seed: int) -> None:
    writer, numbers = RunWriter(folder, meta(f"run {seed}")), np.random.default_rng(seed)
    begin(writer)
    for step in range(STEPS):
        record(writer, step, numbers)
        probe(writer, step)
    writer.annotate({"audit": _AUDIT})
    writer.close("complete")


def _killed(folder: Path, seed: int) -> None:
    """Two attempts, of which the second was killed in a step."""
    numbers = np.random.default_rng(seed)
    first = RunWriter(folder, meta(f"run {seed}"))
    begin(first)
    for step in range(5):
        record(first, step, numbers)
    first.close("interrupted")
    second = RunWriter(folder, meta(f"run {seed}"))
    begin(second)
    for step in range(3, STEPS + 1):
        record(second, step, numbers, counted=step < STEPS)


def _two(folder: Path, seed: int) -> list[RunWriter]:
    writers = [RunWriter(folder, meta(f"run {seed}", world=2), rank) for rank in (0, 1)]
    for writer in writers:
        begin(writer)
        numbers = np.random.default_rng([seed, writer.rank])
        for step in range(STEPS):
            record(writer, step, numbers)
    return writers


def _two_killed(folder: Path, seed: int) -> None:
    _two(folder, seed)


def _two_finished(folder: Path, seed: int) -> None:
    for writer in _two(folder, seed):
        writer.close("complete")


def _thinned(folder: Path, seed: int) -> None:
    """A killed run of parts of two steps, of which all but the last were thinned: the first steps, which stay."""
    with patch.object(thinning, "WHOLE", 2), patch.object(thinning, "_GROUP", 2):
        writer, numbers = RunWriter(folder, meta(f"run {seed}") | {"keep": "thinned"}), np.random.default_rng(seed)
        begin(writer)
        for step in range(STEPS):
            record(writer, step, numbers)
        writer.close("interrupted")
        thinning.thin(folder, writer.run, 0, (1, 0))


#: Kinds of folders: of one process that ended, of one that was killed, of two that were killed, of two that ended, of
#: one that is thinned.
FOLDERS: dict[str, Callable[[Path, int], None]] = {
    "finished": _finished,
    "killed": _killed,
    "two killed": _two_killed,
    "two finished": _two_finished,
    "thinned": _thinned,
}


def make(kind: str, folder: Path, *, other: bool = False) -> Path:
    """Make a run folder.

    Args:
        kind: of ``FOLDERS``.
        folder: where.
        other: another run of the same kind.
    """
    with tempfile.TemporaryDirectory() as held:
        FOLDERS[kind](Path(held) / "run", int(other))
        # A copy: whoever wrote a killed run still holds its locks.
        shutil.copytree(Path(held) / "run", folder)
    return folder


def without_digests(folder: Path) -> Path:
    """Make of a closed run one of before there were digests; return its folder."""
    file = folder / "manifest.json"
    told = {key: value for key, value in json.loads(file.read_text()).items() if key not in ("run", "seal")}
    file.write_text(json.dumps(told | {"tables": list(told["tables"])}))
    for table in folder.glob("*.parquet"):
        data = parquet.read_table(table)
        parquet.write_table(data.replace_schema_metadata(None), table)
    return folder
