"""``gradlens watch``: what a run shows while it is written, and that nobody notices."""

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import gradlens as api
from gradlens.lens import Lens
from gradlens.reporting.live import sparkline
from tests.interrupts import TAKES_CTRL_C


def train(lens: Lens, model: nn.Module, steps: int, scale: float = 1.0) -> None:
    for _ in range(steps):
        model.zero_grad()
        loss = scale * model(torch.ones(4, 8)).square().mean()
        loss.backward()
        lens.step(loss=loss.item())


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 1))


def files(run: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in run.rglob("*")}


def test_a_run_is_shown_while_it_is_written_and_left_as_it_is(gradlens, network):
    with api.attach(network, out="run", label="mine") as lens:
        train(lens, network, 9)
        before = files(Path("run"))
        shown = gradlens("watch", "run", "--once").stdout
        assert files(Path("run")) == before
        train(lens, network, 3)
    assert "mine  running  step 8  9 recorded" in shown
    assert f"{api.load('run').steps['loss'][8]:.3g}" in shown
    assert "gradient norm" in shown
    assert "mine  complete  step 11  12 recorded" in gradlens("watch", "run").stdout


def test_of_a_recording_at_initialization_the_seeds_are_counted_as_seeds(gradlens):
    def build():
        return nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8))

    api.at_init(build, [torch.ones(4, 8)], seeds=3, out="run")
    shown = gradlens("watch", "run", "--once").stdout.splitlines()[0]
    assert "complete  3 seeds" in shown
    assert "step" not in shown


def test_what_is_wrong_is_told_with_the_step_from_which_on_it_is(gradlens, network):
    with api.attach(network, out="run") as lens:
        train(lens, network, 20)
        train(lens, network, 5, scale=float("nan"))
    shown = gradlens("watch", "run", "--once").stdout
    assert "✗ fail" in shown
    assert "from step 20" in shown


def test_a_run_that_ended_and_was_not_closed_is_read_and_left_to_its_own_process(gradlens, network):
    with api.attach(network, out="run") as lens:
        train(lens, network, 3)
        lens.annotate(status="complete")  # as between the last step and the Parquet files
        before = files(Path("run"))
        assert "complete  step 2" in gradlens("watch", "run", "--once").stdout
        assert files(Path("run")) == before


def test_a_folder_of_runs_stands_for_all_of_them(gradlens, network):
    for name in ("first", "second"):
        with api.attach(network, out=Path("all") / name) as lens:
            train(lens, network, 2)
    with api.attach(network, out="all/third"):
        shown = gradlens("watch", "all", "--once").stdout
    assert shown.index("first  complete") < shown.index("second  complete") < shown.index("third  running")
    assert "no step is recorded yet" in shown


def test_a_folder_without_a_run_is_a_mistake_of_the_user(gradlens, folder):
    (folder / "empty").mkdir()
    result = gradlens("watch", "empty")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "empty has none" in result.stderr


def test_on_a_terminal_it_goes_on_and_ctrl_c_is_its_end(network):
    master, slave = pty.openpty()
    program = f"{TAKES_CTRL_C}; from gradlens.cli.main import main; main(['watch', 'run', '--interval', '0.1'])"
    with api.attach(network, out="run") as lens:
        train(lens, network, 2)
        with subprocess.Popen([sys.executable, "-c", program], stdout=slave, stderr=slave) as watching:
            seen, until = "", time.monotonic() + 60
            while "step 4" not in seen and time.monotonic() < until:
                if "step 1" in seen and lens.recording.last_step == 1:
                    train(lens, network, 3)
                seen += os.read(master, 4096).decode(errors="replace")
            watching.send_signal(signal.SIGINT)
            assert watching.wait(30) == 0
    assert "step 4" in seen
    assert "Traceback" not in seen


def test_a_sparkline_goes_from_the_lowest_to_the_highest():
    assert sparkline(np.arange(8.0), 8) == "▁▂▃▄▅▆▇█"
    assert sparkline(np.arange(800.0), 8) == "▁▂▃▄▅▆▇█"
    assert sparkline(10.0 ** np.arange(8.0), 8) == "▁▂▃▄▅▆▇█"  # by its logarithm
    assert sparkline([1.0, 1.0], 8) == "▁▁"
    assert sparkline([1.0, np.inf, np.nan, 2.0], 4) == "▁× █"
    assert sparkline([], 8) == ""
