"""A loss that is NaN, and one that nobody passed."""

import pandas as pd
import pytest
import torch
from pyarrow import parquet

import gradlens
from gradlens.recording.derive import public
from tests.lens.networks import stack
from tests.recording.folders import without_digests

NAN = float("nan")
GIVEN = [1.0, None, NAN, torch.tensor(NAN), float("inf"), 2.0]


def record(out=None) -> gradlens.Recording:
    with gradlens.attach(stack(), out=out) as lens:
        for loss in GIVEN:
            lens.step(loss=loss)
        if out is None:
            return lens.recording
    return gradlens.load(out)


@pytest.mark.parametrize("where", ["memory", "folder"])
def test_they_are_told_apart(tmp_path, where):
    steps = record(tmp_path / "run" if where == "folder" else None).steps
    assert steps["nan_loss"].tolist() == [False, False, True, True, False, False]
    assert steps["nan_loss"].dtype == bool
    assert steps["loss"].isna().tolist() == [False, True, True, True, False, False]


def test_whoever_reads_the_finished_file_tells_them_apart(tmp_path):
    record(tmp_path / "run")
    file = tmp_path / "run" / "steps.parquet"
    assert pd.read_parquet(file).query("nan_loss")["step"].tolist() == [2, 3]
    assert parquet.read_table(file, filters=[("nan_loss", "=", True)])["step"].to_pylist() == [2, 3]


def test_a_mean_over_processes_of_which_one_has_a_nan_is_nan():
    stored = pd.DataFrame({"step": [0, 0, 1, 1, 2, 2], "loss": [1.0, NAN, 1.0, NAN, 1.0, 3.0]})
    stored["nan_loss"] = [False, True, False, False, False, False]
    for name in ("lr", "grad_norm", "clip_coef", "loss_scale", "seconds"):
        stored[name] = 1.0
    steps = public("steps", stored)
    assert steps["nan_loss"].tolist() == [True, False, False]
    assert steps["loss"].isna().tolist() == [True, False, False], "in step 1 one process passed none"
    assert steps["loss"][2] == 2.0


def test_a_recording_of_an_earlier_gradlens_does_not_say_and_reads(tmp_path):
    record(tmp_path / "run")
    file = without_digests(tmp_path / "run") / "steps.parquet"
    pd.read_parquet(file).drop(columns="nan_loss").to_parquet(file)
    steps = gradlens.load(tmp_path / "run").steps
    assert not steps["nan_loss"].any()
    assert steps["loss"].isna().sum() == 3


def test_the_report_says_from_which_step_on_the_loss_was_nan():
    recording = record()
    found = {finding.code: finding for finding in gradlens.compare([recording]).findings}
    assert found["GL301"].status == "fail"
    assert "its loss is not finite at step 2" in found["GL301"].claim
