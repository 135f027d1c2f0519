"""What the lens costs: the median ratio of interleaved training steps with and without it. Run: ``make bench``.

Two equal models take turns on the same batches in one process, so that the machine's drift cancels. The floor is the
same training step plus one read of every gradient that a norm sees (its output's and its input's): no tool that looks
at these gradients can cost less.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

import gradlens
from gradlens.models.transformer import Transformer

#: name -> (variant, width, blocks, batch, length, every, limit)
CASES = {
    "width 256, 6 blocks, 8 x 128": ("pre-ln", 256, 6, 8, 128, 1, 1.03),
    "width 128, 4 blocks, 8 x 64": ("pre-ln", 128, 4, 8, 64, 1, 1.08),
    "width 128, 4 blocks, 8 x 64, every=10": ("pre-ln", 128, 4, 8, 64, 10, 1.01),
    "width 256, 6 blocks, 8 x 128, rmsnorm": ("pre-ln/rmsnorm", 256, 6, 8, 128, 1, 1.03),
}


class Run:
    """One model with its optimizer, with or without a lens."""

    def __init__(self, case, lens: bool, folder: Path) -> None:
        variant, width, blocks, batch, length, every, _ = case
        torch.manual_seed(0)
        self.model = Transformer(variant, vocab=256, width=width, blocks=blocks, heads=4, max_length=length)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-4)
        self.shape = (batch, length)
        self.lens = gradlens.attach(self.model, out=folder, every=every) if lens else None

    def step(self, tokens: torch.Tensor) -> float:
        start = time.perf_counter()
        self.optimizer.zero_grad()
        logits = self.model(tokens)
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        self.optimizer.step()
        value = loss.item()
        if self.lens is not None:
            self.lens.step(loss=value, lr=1e-4)
        return time.perf_counter() - start


def ratio(case, steps: int, folder: Path) -> dict:
    """Interleave steps with and without the lens; pairs in alternating order."""
    runs = [Run(case, False, folder), Run(case, True, folder)]
    generator = torch.Generator().manual_seed(0)
    times: tuple[list[float], list[float]] = ([], [])
    warm = 5
    for index in range(steps + warm):
        tokens = torch.randint(0, 256, runs[0].shape, generator=generator)
        order = (0, 1) if index % 2 else (1, 0)
        taken = {which: runs[which].step(tokens) for which in order}
        if index >= warm:
            times[0].append(taken[0])
            times[1].append(taken[1])
    runs[1].lens.detach()
    every = case[5]
    # With a cadence the cost of a step is the mean over a period, so periods are compared.
    without, with_lens = ([sum(t[i : i + every]) for i in range(0, len(t) - every + 1, every)] for t in times)
    ratios = sorted(b / a for a, b in zip(without, with_lens, strict=True))
    return {
        "ratio": statistics.median(ratios),
        "low": ratios[len(ratios) // 4],
        "high": ratios[(3 * len(ratios)) // 4],
        "milliseconds_without": 1e3 * statistics.median(without) / every,
        "milliseconds_with": 1e3 * statistics.median(with_lens) / every,
        "pairs": len(ratios),
        "limit": case[6],
    }


def peak_memory(name: str, lens: bool) -> float:
    """Peak resident memory in MiB of a fresh process that trains 12 steps, above what it holds after importing."""
    command = [sys.executable, __file__, "--one", name, *(["--lens"] if lens else [])]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def one(name: str, lens: bool) -> None:
    """The child of ``peak_memory``."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        run = Run(CASES[name], lens, Path(folder) / "run")
        generator = torch.Generator().manual_seed(0)
        for _ in range(12):
            run.step(torch.randint(0, 256, run.shape, generator=generator))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    """Print the table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--out", type=Path, default=Path("reports/overhead/overhead.json"))
    parser.add_argument("--one")
    parser.add_argument("--lens", action="store_true")
    options = parser.parse_args()
    if options.one:
        one(options.one, options.lens)
        return
    import tempfile

    results = {}
    print(f"{'case':42} {'ratio':>7} {'quartiles':>17} {'limit':>6} {'ms':>8} {'memory':>7}")
    for name, case in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            steps = options.steps * (3 if case[5] > 1 else 1)
            row = ratio(case, steps, Path(folder) / "run")
        memory = [statistics.median(peak_memory(name, lens) for _ in range(3)) for lens in (False, True)]
        row |= {
            "peak_mib_without": memory[0],
            "peak_mib_with": memory[1],
            "memory_ratio": memory[1] / memory[0],
        }
        results[name] = row
        print(
            f"{name:42} {row['ratio']:7.3f} {row['low']:8.3f}-{row['high']:.3f} {row['limit']:9.2f} "
            f"{row['milliseconds_without']:8.1f} {row['memory_ratio']:7.3f}"
        )
    environment = {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"environment": environment, "cases": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
