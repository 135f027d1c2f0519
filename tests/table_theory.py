"""How well the theory predicts whole networks at initialization: a table of relative errors. Run: ``make theory``.

Each cell is one kind of network, measured over seeds: the mean norm of each gradient and second moment of the stream,
block by block. What was measured is kept, a JSON line a cell, so that a run goes on where it was stopped and a changed
theory is judged at once. The first run takes about an hour on one core; with ``--quick`` a minute.
"""

import argparse
import json
import platform
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gradlens.theory.arrangements import ARRANGEMENTS
from gradlens.theory.network import KINDS, Network
from gradlens.theory.transformer import predict
from tests.theory.measured import Measured, Table, errors, measure, network, predicted

SEEDS, QUICK_SEEDS = 10, 3
#: d and f. In Post-LN the gradients of one seed are off by some √(blocks/width), in all the first blocks alike: at a
#: width of 256 the mean of ten seeds of 64 blocks is uncertain by 14 %, too much to tell a prediction's error.
WIDTHS = defaultdict(lambda: 256, {"post-ln": 1024})
DEPTHS = (4, 8, 16, 32, 64)
FULL = ("pre-ln", "post-ln")
AIM = {"median": 0.05, "p95": 0.15}
STREAM = "stream"
VARIED = ("arrangement", "kind", "width", "blocks", "activation", "dropout")


def cells(quick: bool) -> Iterator[Network]:
    """Yield networks in the order of the table."""
    for arrangement in ARRANGEMENTS:
        width = WIDTHS[arrangement]
        for blocks in DEPTHS[: 2 if quick else None]:
            for kind, activation, dropout in _settings(arrangement, blocks, quick):
                more = {"activation": activation, "dropout": dropout, "width": width, "ffn": width}
                yield network(arrangement, kind, blocks, **more)


def _settings(arrangement: str, blocks: int, quick: bool) -> Iterator[tuple[str, str, float]]:
    """Pre-LN and Post-LN in all settings, the others as decoders and in three more."""
    yield "decoder", "relu", 0.0
    if quick:
        return
    if arrangement in FULL:
        for kind in KINDS:
            for activation in ("relu", "gelu"):
                for dropout in (0.0, 0.1):
                    if (kind, activation, dropout) != ("decoder", "relu", 0.0):
                        yield kind, activation, dropout
    elif blocks == 8:
        yield "encoder-decoder", "relu", 0.0
    elif blocks == 16:
        yield "encoder", "relu", 0.0
        yield "decoder", "gelu", 0.1


class Kept:
    """What was measured, a line a cell.

    Args:
        path: of the file; where a cell has several lines, that of most seeds counts.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
        self._lines = {_key(line["network"]): line for line in sorted(lines, key=lambda line: int(line["seeds"]))}

    def get(self, cell: Network, seeds: int) -> tuple[Measured, int]:
        """Return what is kept of a network, and of how many seeds; measures it where too few seeds are kept."""
        varied = {name: getattr(cell, name) for name in VARIED}
        line = self._lines.get(_key(varied))
        if line is None or line["seeds"] < seeds:
            found = measure(cell, seeds)
            line = {"network": varied, "seeds": seeds}
            line |= {"mean": _lists(found.mean), "deviation": _lists(found.deviation)}
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        return Measured(_arrays(line["mean"]), _arrays(line["deviation"])), line["seeds"]


def _key(network: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(network[name] for name in VARIED)


def _lists(table: Table) -> dict[str, dict[str, list[float]]]:
    return {stack: {name: values.tolist() for name, values in rows.items()} for stack, rows in table.items()}


def _arrays(table: dict[str, dict[str, list[float]]]) -> Table:
    return {stack: {name: np.array(values) for name, values in rows.items()} for stack, rows in table.items()}


def accuracy(cell: Network, kept: Kept, seeds: int) -> dict[str, Any]:
    """Return the errors of one cell by quantity, and the standard errors of the means they are relative to."""
    measured, seeds = kept.get(cell, seeds)
    expected = predicted(cell)
    off_by_one_error = {
        stack: {name: measured.mean[stack][name] + measured.deviation[stack][name] / seeds**0.5 for name in rows}
        for stack, rows in expected.items()
    }
    return {
        "cell": {name: getattr(cell, name) for name in VARIED} | {"seeds": seeds},
        "errors": errors(expected, measured.mean),
        "uncertainty": errors(off_by_one_error, measured.mean),
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the quantiles of the errors of some cells, and the median uncertainty of what was measured."""
    names = list(dict.fromkeys(name for row in rows for name in row["errors"] if name != STREAM))

    def gathered(what: str, wanted: list[str]) -> np.ndarray:
        return np.concatenate([row[what][name] for row in rows for name in wanted if name in row[what]])

    return {
        "cells": len(rows),
        "gradients": _quantiles(gathered("errors", names)),
        "stream": _quantiles(gathered("errors", [STREAM])),
        "uncertainty": round(float(np.median(gathered("uncertainty", names))), 4),
        "by_parameter": {name: _quantiles(gathered("errors", [name])) for name in names},
    }


def _quantiles(values: np.ndarray) -> dict[str, float]:
    return {"median": round(float(np.median(values)), 4), "p95": round(float(np.quantile(values, 0.95)), 4)}


def table(by_arrangement: dict[str, dict[str, Any]]) -> str:
    """Return the summaries as a Markdown table, errors in per cent."""
    lines = [
        "| arrangement | cells | gradients: median | 95 of 100 | stream: median | 95 of 100 | uncertainty | aim |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for name, found in by_arrangement.items():
        numbers = [found[what][which] for what in ("gradients", "stream") for which in ("median", "p95")]
        cells = " | ".join(f"{100 * number:.1f}" for number in [*numbers, found["uncertainty"]])
        lines.append(f"| {name} | {found['cells']} | {cells} | {'met' if meets(found) else 'missed'} |")
    return "\n".join(lines)


def meets(found: dict[str, Any]) -> bool:
    """Whether gradients and stream are within the aim."""
    return all(found[what][which] <= AIM[which] for what in ("gradients", "stream") for which in AIM)


def milliseconds(kind: str, blocks: int, times: int = 5) -> float:
    """Return the processor time of a prediction for Pre-LN, the least of several."""
    cell, taken = network("pre-ln", kind, blocks), []
    for _ in range(times):
        start = time.process_time()
        predict(cell)
        taken.append(time.process_time() - start)
    return 1e3 * min(taken)


def main() -> None:
    """Measure what is missing, print the table, write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="decoders of two depths, three seeds; writes no JSON")
    parser.add_argument("--measured", type=Path, default=Path("reports/build/theory/measured.jsonl"))
    parser.add_argument("--out", type=Path, default=Path("reports/theory/accuracy.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    kept = Kept(options.measured)
    rows: dict[str, list[dict[str, Any]]] = {}
    for cell in cells(options.quick):
        found = accuracy(cell, kept, QUICK_SEEDS if options.quick else SEEDS)
        rows.setdefault(cell.arrangement, []).append(found)
        print(".", end="", flush=True)
    by_arrangement = {name: summary(found) for name, found in rows.items()}
    print(f"\n{table(by_arrangement)}")
    for kind in KINDS:
        taken = " and ".join(f"{milliseconds(kind, blocks):.0f}" for blocks in (64, 1000))
        print(f"{kind}: a prediction for 64 and for 1,000 blocks takes {taken} ms")
    if options.quick:
        return
    singly = [row["cell"] | summary([row]) for found in rows.values() for row in found]
    for row in singly:
        del row["cells"], row["by_parameter"]
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    document = {"environment": versions, "aim": AIM, "arrangements": by_arrangement, "cells": singly}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
