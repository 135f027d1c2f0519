"""What the lens costs: the median ratio of interleaved training steps with and without it. Run: ``make bench``.

Equal models take turns on the same batches in one process, so that the machine's drift cancels: without a lens, with
the floor, and with the lens. The floor is one read of every gradient that a norm sees, of its output and of its input:
no tool that looks at these gradients can cost less. With Transformers other tools take turns, too (`bench_peers`).
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

import gradlens
from gradlens.batches import run_model
from gradlens.recognition import recognise
from tests.bench_peers import PEERS, Peer, installed
from tests.bench_subjects import Case, cases, loss_of
from tests.operations import of_a_norm, of_a_parameter, on_device_of_parameters, without_native_core

KINDS = ("plain", "floor", "lens")
WARM = 5


def read_gradients(model: nn.Module) -> None:
    """The floor: read the gradients of each norm's output and input once, and keep one number of each."""

    def before(module: nn.Module, args: tuple, kwargs: dict) -> Any:
        if args and args[0].requires_grad:
            alias = args[0].view_as(args[0])
            alias.register_hook(lambda grad: torch.linalg.vector_norm(grad) and None)
            return (alias, *args[1:]), kwargs
        return None

    def after(module: nn.Module, args: tuple, output: Any) -> None:
        if isinstance(output, torch.Tensor) and output.requires_grad:
            output.register_hook(lambda grad: torch.linalg.vector_norm(grad) and None)

    for module in model.modules():
        taken = recognise(module)
        if taken is not None and taken.kind is not None:
            module.register_forward_pre_hook(before, with_kwargs=True)
            module.register_forward_hook(after)


class Run:
    """One model with its optimizer: plain, with the floor's hooks, with a lens, or with another tool."""

    def __init__(self, case: Case, kind: str, folder: Path) -> None:
        torch.manual_seed(0)
        self.model = case.build().train()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-4)
        self.lens, self.peer = None, Peer()
        if kind in PEERS:
            self.peer = PEERS[kind](self.model, self.optimizer, folder.parent / kind)
        elif kind == "lens":
            self.lens = gradlens.attach(self.model, out=folder, every=case.every)
        elif kind == "floor":
            read_gradients(self.model)
        self.forward = torch.compile(self.model) if case.compiled else self.model

    def step(self, batch: Any) -> float:
        start = time.perf_counter()
        self.optimizer.zero_grad()
        loss = loss_of(run_model(self.forward, batch))
        loss.backward()
        self.peer.before_optimizer(loss)
        self.optimizer.step()
        value = loss.item()
        self.peer.step(value)
        if self.lens is not None:
            self.lens.step(loss=value, lr=1e-4)
        return time.perf_counter() - start


def compare(case: Case, seconds: float, folder: Path, peers: Sequence[str] = ()) -> dict[str, Any]:
    """Interleave steps of the runs for some seconds, in alternating order."""
    kinds = [*(kind for kind in KINDS if not (kind == "floor" and case.compiled)), *peers]
    runs = {kind: Run(case, kind, folder) for kind in kinds}
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    start, index = time.monotonic(), 0
    seconds *= len(kinds) / len(KINDS)  # as many pairs whatever else takes turns
    while time.monotonic() - start < seconds or index < WARM + 2 * case.every:
        batch = case.batch(index)
        for kind in kinds if index % 2 else reversed(kinds):
            taken = runs[kind].step(batch)
            if index >= WARM:
                times[kind].append(taken)
        index += 1
        if index == WARM:
            start = time.monotonic()
    lens = runs["lens"].lens
    assert lens is not None
    lens.detach()
    for run in runs.values():
        run.peer.close()
    every = case.every
    # With a cadence the cost of a step is the mean over a period, so periods are compared.
    periods = {
        kind: [sum(taken[i : i + every]) / every for i in range(0, len(taken) - every + 1, every)]
        for kind, taken in times.items()
    }
    ratios = {kind: sorted(b / a for a, b in zip(periods["plain"], periods[kind], strict=True)) for kind in kinds[1:]}
    middle = {kind: statistics.median(taken) for kind, taken in periods.items()}
    row = {
        "ratio": statistics.median(ratios["lens"]),
        "low": ratios["lens"][len(ratios["lens"]) // 4],
        "high": ratios["lens"][3 * len(ratios["lens"]) // 4],
        "limit": case.limit,
        "pairs": len(ratios["lens"]),
        "norms": len(lens.audit().norms),
        "milliseconds_plain": 1e3 * middle["plain"],
        "milliseconds_lens": 1e3 * middle["lens"],
    }
    if "floor" in ratios and every == 1:
        row["floor"] = statistics.median(ratios["floor"])
        row["above_floor"] = (row["ratio"] - 1) / (row["floor"] - 1) if row["floor"] > 1.001 else None
    if peers:
        row["peers"] = {peer: statistics.median(ratios[peer]) for peer in peers}
    return row


def peak_memory(name: str, lens: bool) -> float:
    """Peak resident memory in MiB of a fresh process that trains 12 steps."""
    command = [sys.executable, "-m", "tests.bench_overhead", "--one", name, *(["--lens"] if lens else [])]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def one(name: str, lens: bool) -> None:
    """The child of ``peak_memory``."""
    with tempfile.TemporaryDirectory() as folder:
        case = cases()[name]()
        run = Run(case, "lens" if lens else "plain", Path(folder) / "run")
        for index in range(12):
            run.step(case.batch(index))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def operations() -> dict[str, float]:
    """Count tensor operations of a recorded step without the native core, and print them."""
    with without_native_core():
        found = {"a norm": of_a_norm(), "a parameter": of_a_parameter()}
    found["a parameter on an accelerator"] = (on_device_of_parameters(20, 80) - on_device_of_parameters(10, 80)) / 10
    told = ", ".join(f"{number:.1f} {what}" for what, number in found.items())
    print(f"tensor operations without the native core: {told}; aims: 20 a norm, 2 a parameter\n")
    return found


def main() -> None:
    """Print the table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30, help="for each case")
    parser.add_argument("--only", default="", help="cases whose name holds this; the others stay in the JSON")
    parser.add_argument("--out", type=Path, default=Path("reports/overhead/overhead.json"))
    parser.add_argument("--without-peers", action="store_true", help="measure no other tool")
    parser.add_argument("--one")
    parser.add_argument("--lens", action="store_true")
    options = parser.parse_args()
    if options.one:
        one(options.one, options.lens)
        return
    kept = options.only and options.out.exists()
    results = json.loads(options.out.read_text())["cases"] if kept else {}
    counted = operations()
    others = [] if options.without_peers else installed()
    if missing := [peer for peer in PEERS if peer not in others]:
        print(f"not measured: {', '.join(missing)}\n")
    print(f"{'case':40} {'ratio':>6} {'quartiles':>13} {'aim':>5} {'floor':>6} {'x floor':>7} {'ms':>7} {'memory':>7}")
    for name, make in cases().items():
        if options.only not in name:
            continue
        case = make()
        with tempfile.TemporaryDirectory() as folder:
            row = compare(case, options.seconds, Path(folder) / "run", others if case.peers else ())
        if case.memory:
            without, with_lens = (
                statistics.median(peak_memory(name, lens) for _ in range(3)) for lens in (False, True)
            )
            row |= {"peak_mib_plain": without, "peak_mib_lens": with_lens, "memory_ratio": with_lens / without}
        results[name] = row
        floor, above, memory = (row.get(key) for key in ("floor", "above_floor", "memory_ratio"))
        print(
            f"{name:40} {row['ratio']:6.3f} {row['low']:6.3f}-{row['high']:.3f} {row['limit']:5.2f} "
            f"{_shown(floor, 3):>6} {_shown(above, 1):>7} {row['milliseconds_plain']:7.1f} {_shown(memory, 3):>7}",
            flush=True,
        )
        for peer, ratio in row.get("peers", {}).items():
            print(f"    {peer:36} {ratio:6.3f}", flush=True)
    environment = {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(
        json.dumps({"environment": environment, "operations": counted, "cases": results}, indent=2) + "\n"
    )


def _shown(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    main()
