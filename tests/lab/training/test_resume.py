"""A run that is stopped anywhere goes on, and ends in the very numbers of one that never stopped."""

import contextlib
import os
import signal
import subprocess
import sys

import pandas as pd
import pytest
import torch

import gradlens
from gradlens.errors import RecordingError
from gradlens.lab.training.checkpoint import checkpoint_path
from gradlens.recording.folder import read_manifest, write_json
from tests.lab.training.test_trainer import Spy

SETTINGS = {"steps": 13, "checkpoint_every": 4, "evaluate_every": 5, "accumulation": 2, "warmup": 6}


def stop_after(step):
    def on_step(progress):
        if progress.step == step:
            raise KeyboardInterrupt

    return on_step


def without_seconds(recording):
    return recording.steps.drop(columns="seconds")


def same_weights(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("stops", [[2], [4], [6], [12], [5, 7, 11]])
def test_an_interrupted_run_ends_in_the_numbers_of_an_uninterrupted_one(trial, tmp_path, stops):
    whole, weights = trial(**SETTINGS), trial.weights()
    for step in stops:
        with pytest.raises(KeyboardInterrupt):
            trial(out=tmp_path / "run", on_step=stop_after(step), **SETTINGS)
        assert gradlens.load(tmp_path / "run").meta["status"] == "interrupted"
    resumed = trial(out=tmp_path / "run", **SETTINGS)
    assert same_weights(weights, trial.weights())
    pd.testing.assert_frame_equal(without_seconds(resumed), without_seconds(whole))
    for table in ("norms", "activations", "params"):
        pd.testing.assert_frame_equal(resumed.table(table), whole.table(table))
    assert resumed.meta["status"] == "complete"


def test_a_resumed_run_does_only_the_steps_after_its_checkpoint(trial, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        trial(out=tmp_path / "run", on_step=stop_after(6), **SETTINGS)
    done = []
    trial(out=tmp_path / "run", on_step=lambda progress: done.append(progress.step), **SETTINGS)
    assert done == list(range(5, 14))


def test_the_steps_since_the_checkpoint_are_in_the_recording_of_the_interrupted_run(trial, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        trial(out=tmp_path / "run", on_step=stop_after(6), **SETTINGS)
    assert gradlens.load(tmp_path / "run").steps["step"].tolist() == list(range(6))


def test_a_complete_run_is_reused_without_a_step_and_leaves_no_checkpoint(trial, tmp_path):
    first = trial(out=tmp_path / "run", **SETTINGS)
    assert not checkpoint_path(tmp_path / "run").exists()
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    again = trial(out=tmp_path / "run", on_step=stop_after(1), **SETTINGS)
    pd.testing.assert_frame_equal(again.steps, first.steps)
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_a_diverged_run_is_a_result_and_is_reused(trial, tmp_path):
    blow_up = {"optimizer": "sgd", "lr": 1e6, "variant": "pre-ln/none", "out": tmp_path / "run"}
    assert trial(**blow_up).meta["status"] == "diverged"
    assert trial(on_step=stop_after(1), **blow_up).meta["status"] == "diverged"


def test_the_count_of_high_losses_goes_on_where_the_run_was_interrupted(trial, tmp_path):
    high = Spy(trial.task, lambda loss: loss + 4 * trial.task.uniform_loss)
    with pytest.raises(KeyboardInterrupt):
        trial(task=high, out=tmp_path / "run", on_step=stop_after(10), **SETTINGS | {"steps": 40})
    recording = trial(task=high, out=tmp_path / "run", **SETTINGS | {"steps": 40})
    assert (recording.meta["status"], len(recording.steps)) == ("diverged", 20)


@pytest.mark.parametrize(
    ("changed", "named"),
    [({"lr": 1e-4}, "training.lr is 0.003, not 0.0001"), ({"variant": "post-ln"}, "variant is 'pre-ln'")],
)
def test_other_settings_in_the_same_folder_are_refused_by_name(trial, tmp_path, changed, named):
    for stop in (stop_after(2), None):
        with contextlib.suppress(KeyboardInterrupt):
            trial(out=tmp_path / "run", on_step=stop, **SETTINGS)
        with pytest.raises(RecordingError, match=named):
            trial(out=tmp_path / "run", **SETTINGS | changed)


def test_a_damaged_checkpoint_is_named_and_the_recording_survives(trial, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        trial(out=tmp_path / "run", on_step=stop_after(6), **SETTINGS)
    checkpoint_path(tmp_path / "run").write_bytes(b"torn")
    with pytest.raises(RecordingError, match=r"checkpoint\.pt"):
        trial(out=tmp_path / "run", **SETTINGS)
    assert gradlens.load(tmp_path / "run").steps["step"].tolist() == list(range(6))
    checkpoint_path(tmp_path / "run").unlink()
    assert len(trial(out=tmp_path / "run", **SETTINGS).steps) == 13


def test_a_checkpoint_of_another_model_is_refused(trial, tmp_path):
    def of_width(width):
        model = torch.nn.Sequential(torch.nn.Embedding(256, width), torch.nn.LayerNorm(width))
        return torch.nn.Sequential(model, torch.nn.Linear(width, 256))

    with pytest.raises(KeyboardInterrupt):
        trial(out=tmp_path / "run", model_fn=lambda: of_width(8), on_step=stop_after(6), **SETTINGS)
    manifest = read_manifest(tmp_path / "run")
    manifest["model"]["parameters"] = sum(p.numel() for p in of_width(4).parameters())
    write_json(tmp_path / "run" / "manifest.json", manifest)
    with pytest.raises(RecordingError, match="must fit the model"):
        trial(out=tmp_path / "run", model_fn=lambda: of_width(4), **SETTINGS)


CHILD = """
import sys
from pathlib import Path
import torch
from tests.lab.training.conftest import Trial
from tests.lab.training.test_resume import SETTINGS
from gradlens.lab.tasks.stdlib_source import StdlibSource

torch.set_num_threads(1)
trial = Trial(StdlibSource())
trial(out=Path(sys.argv[1]), on_step=lambda p: print(p.step, flush=True), **SETTINGS | {"steps": 100000})
"""


def test_a_killed_run_keeps_every_step_it_reported_and_goes_on(trial, tmp_path):
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path / "run")], stdout=subprocess.PIPE)
    reported = 0
    while reported < 30:
        reported = int(child.stdout.readline())
    os.kill(child.pid, signal.SIGKILL)
    reported = max([reported, *map(int, child.stdout.read().split(b"\n")[:-1])])
    child.wait()
    child.stdout.close()
    recorded = gradlens.load(tmp_path / "run")
    assert recorded.meta["status"] == "interrupted"
    assert recorded.steps["step"].tolist()[:reported] == list(range(reported))
    first = []
    with pytest.raises(KeyboardInterrupt):
        trial(
            out=tmp_path / "run",
            on_step=lambda p: first.append(p.step) or stop_after(first[0])(p),
            **SETTINGS | {"steps": 100000},
        )
    assert first[0] > reported // 4 * 4 - 4
