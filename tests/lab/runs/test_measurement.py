"""Measurements at initialization in a grid: beside training runs, the same as a comparison's, reused, and probed."""

import dataclasses

import pandas as pd
import pytest

from gradlens.errors import NothingFoundError, RecordingError
from gradlens.lab.operands import Variant
from gradlens.lab.runs.measurement import Measurement, measure
from gradlens.lab.runs.runner import run_jobs
from gradlens.lab.tasks import TASKS
from gradlens.lab.training.settings import Settings
from gradlens.lens.initialization import at_init
from gradlens.recording import load
from tests.lab.runs.test_runner import MANIFEST, heard, planned

SIZE = {"width": 16, "blocks": 2, "heads": 2}
MEASURED = Measurement(
    key="init/pre-ln",
    label="pre-ln, at initialization",
    task="lm",
    variant="pre-ln",
    size=SIZE,
    seeds=(0, 1, 2),
    batch_size=2,
    length=16,
    device="cpu",
)
ENCODER = dataclasses.replace(MEASURED, key="init/encoder", label="encoder", size={**SIZE, "kind": "encoder"})


def grid(jobs, out, **options):
    return run_jobs(jobs, out, MANIFEST, **{"at_a_time": 1, **options})


def test_models_are_measured_beside_others_that_are_trained(tmp_path):
    jobs = [MEASURED, ENCODER, *planned(seeds=(0,))]
    events = []
    recordings = grid(jobs, tmp_path / "g", at_a_time=2, on_event=events.append)
    assert [recording.meta["kind"] for recording in recordings] == ["init"] * 2 + ["training"] * 2
    assert sorted(heard(events)) == sorted((what, job.key) for job in jobs for what in ("started", "finished"))
    assert [recording.meta["model"]["kind"] for recording in recordings[:2]] == ["decoder", "encoder"]
    assert list(recordings[0].steps["seed"]) == [0, 1, 2]


def test_a_measurement_is_that_of_a_comparison(tmp_path):
    settings = Settings(layers=2, width=16, heads=2, seeds=3, batch_size=2, length=16, device="cpu")
    subject = Variant("pre-ln").subject(TASKS["lm"](), settings)
    compared, (alone,) = measure(subject, settings, None), grid([MEASURED], tmp_path / "g")
    columns = ["step", "name", "grad_norm"]
    pd.testing.assert_frame_equal(compared.params[columns], alone.params[columns])
    same = ("variant", "schedule", "task", "batch", "model", "seeds")
    assert {name: compared.meta[name] for name in same} == {name: alone.meta[name] for name in same}


def test_how_far_a_measurement_is_is_told_in_seeds(tmp_path):
    events = []
    grid([MEASURED], tmp_path / "g", on_event=events.append)
    assert [event.done for event in events if event.what == "progress"] == [1, 2, 3]
    assert events[0].job.total == 3


def test_a_finished_measurement_is_reused(tmp_path):
    grid([MEASURED], tmp_path / "g")
    before = (tmp_path / "g/runs/init/pre-ln/params.parquet").stat().st_mtime_ns
    events = []
    grid([MEASURED, ENCODER], tmp_path / "g", on_event=events.append)
    assert heard(events)[0] == ("reused", "init/pre-ln")
    assert (tmp_path / "g/runs/init/pre-ln/params.parquet").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"size": {**SIZE, "width": 32}}, r"model\.width is 16, not 32"),
        ({"seeds": (0, 1)}, r"seeds is \[0, 1, 2\], not \[0, 1\]"),
        ({"length": 8}, r"batch\.length is 16, not 8"),
        ({"probes": ("sharpness",)}, r"probes is \[\], not \['sharpness'\]"),
        ({"variant": "post-ln"}, "variant is 'pre-ln', not 'post-ln'"),
    ],
)
def test_a_measurement_of_other_settings_is_refused(tmp_path, change, said):
    grid([MEASURED], tmp_path / "g")
    with pytest.raises(RecordingError, match=said):
        grid([dataclasses.replace(MEASURED, **change)], tmp_path / "g")


def test_one_that_was_cut_off_is_measured_again(tmp_path):
    def interrupt(event):
        if event.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        grid([MEASURED], tmp_path / "g", on_event=interrupt)
    assert load(tmp_path / "g/runs/init/pre-ln").meta["status"] == "interrupted"
    (again,), (alone,) = grid([MEASURED], tmp_path / "g"), grid([MEASURED], tmp_path / "h")
    pd.testing.assert_frame_equal(again.params, alone.params)
    pd.testing.assert_frame_equal(again.sites, alone.sites)


@pytest.mark.parametrize(("probe", "rows"), [("sharpness", 1), ("amplification", 1), ("concentration", 2 * 3)])
def test_what_a_probe_reads_is_in_the_recording_seed_by_seed(tmp_path, probe, rows):
    (recording,) = grid([dataclasses.replace(MEASURED, probes=(probe,))], tmp_path / "g")
    probes = recording.probes
    assert list(probes.groupby("step").size()) == [rows] * 3
    assert set(probes["probe"]) == {probe}
    assert probes["value"].nunique() > 1  # each seed has weights and a batch of its own
    (plain,) = grid([MEASURED], tmp_path / "h")
    pd.testing.assert_frame_equal(recording.params, plain.params)  # the probe comes after, and changes nothing


def test_a_probe_is_given_what_was_measured():
    task, given = TASKS["lm"](), []
    batch = task.batch(0, seed=0, batch_size=2, length=16)

    def probe(model, batch, loss_fn, seed):
        given.append((loss_fn(model(batch), batch).item(), seed))
        return (
            [{"probe": "p", "site": "", "name": "n", "value": 1.0, "low": 0.0, "high": 2.0, "unit": ""}] if seed else []
        )

    recording = at_init(lambda: task.model("pre-ln", **SIZE), batch, task.loss, (0, 5), probe=probe)
    assert [seed for _, seed in given] == [0, 5]
    assert list(recording.steps["loss"]) == pytest.approx([loss for loss, _ in given])
    assert list(recording.probes["step"]) == [1]


def test_a_model_without_norms_is_one_to_compare_with(tmp_path):
    (recording,) = grid([dataclasses.replace(MEASURED, variant="pre-ln/none")], tmp_path / "g")
    assert recording.norms.empty
    with pytest.raises(NothingFoundError):
        at_init(
            lambda: TASKS["lm"]().model("pre-ln/none", **SIZE), TASKS["lm"]().batch(0, seed=0, batch_size=2, length=8)
        )
