"""Jobs: the same numbers one by one or side by side, reused, gone on with, and stopped without a loss."""

import dataclasses
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

from gradlens.errors import GradlensError, RecordingError
from gradlens.lab.runs.jobs import Run
from gradlens.lab.runs.runner import run_jobs
from gradlens.lab.training.config import TrainingConfig
from gradlens.recording import load
from tests.interrupts import TAKES_CTRL_C

MANIFEST = {"kind": "reproduce", "label": "tiny", "settings": {"paper": "none"}}
#: With one thread in every process numbers agree bit for bit.
CONFIG = TrainingConfig(steps=6, batch_size=2, length=16, evaluate_every=3, evaluation_batches=1, device="cpu")


def planned(norms=("layernorm", "none"), seeds=(0, 1), **changes):
    return [
        Run(
            key=f"lm/{norm}/seed-{seed}",
            label=f"lm, {norm}, seed {seed}",
            task="lm",
            variant=f"pre-ln/{norm}",
            size={"width": 16, "blocks": 2, "heads": 2},
            config=dataclasses.replace(CONFIG, seed=seed, **changes),
        )
        for norm in norms
        for seed in seeds
    ]


def heard(events):
    return [(event.what, event.job.key) for event in events if event.what != "progress"]


def test_side_by_side_gives_what_one_by_one_gives(tmp_path):
    runs = planned()
    alone = run_jobs(runs, tmp_path / "a", MANIFEST, at_a_time=1)
    events = []
    together = run_jobs(runs, tmp_path / "b", MANIFEST, at_a_time=2, on_event=events.append)
    for one, other in zip(alone, together, strict=True):
        assert one.label == other.label
        pd.testing.assert_frame_equal(
            one.steps.drop(columns="seconds"), other.steps.drop(columns="seconds"), rtol=1e-4, atol=1e-6
        )
    assert sorted(heard(events)) == sorted((what, run.key) for run in runs for what in ("started", "finished"))
    assert all(event.recording.meta["status"] == "complete" for event in events if event.what == "finished")


def test_what_is_finished_is_reused_and_more_runs_can_be_added(tmp_path):
    run_jobs(planned(seeds=(0,)), tmp_path / "g", MANIFEST, at_a_time=1)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
    events = []
    recordings = run_jobs(planned(), tmp_path / "g", MANIFEST, at_a_time=1, on_event=events.append)
    assert len(recordings) == 4
    assert {key for what, key in heard(events) if what == "reused"} == {"lm/layernorm/seed-0", "lm/none/seed-0"}
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())


def test_a_run_of_other_settings_is_refused_and_left_as_it_was(tmp_path):
    run_jobs(planned(seeds=(0,)), tmp_path / "g", MANIFEST, at_a_time=1)
    with pytest.raises(RecordingError, match=r"training\.lr is 0\.001, not 0\.5"):
        run_jobs(planned(seeds=(0,), lr=0.5), tmp_path / "g", MANIFEST, at_a_time=1)
    assert load(tmp_path / "g/runs/lm/none/seed-0").meta["training"]["lr"] == 0.001


def test_other_settings_are_found_before_anything_is_begun(tmp_path):
    run_jobs(planned(seeds=(1,)), tmp_path / "g", MANIFEST, at_a_time=1)
    first, other = planned(seeds=(0,)), planned(seeds=(1,), lr=0.5)
    events = []
    with pytest.raises(RecordingError, match=r"training\.lr is 0\.001, not 0\.5"):
        run_jobs([*first, *other], tmp_path / "g", MANIFEST, at_a_time=1, on_event=events.append)
    assert events == []
    assert not (tmp_path / "g/runs/lm/none/seed-0").exists()


def test_a_folder_of_something_else_is_refused(tmp_path):
    run_jobs(planned(seeds=(0,)), tmp_path / "g", MANIFEST, at_a_time=1)
    with pytest.raises(RecordingError, match="holds a reproduction"):
        run_jobs(planned(), tmp_path / "g", {**MANIFEST, "kind": "compare"}, at_a_time=1)
    with pytest.raises(RecordingError, match="holds a single recording"):
        run_jobs(planned(), tmp_path / "g/runs/lm/none/seed-0", MANIFEST, at_a_time=1)


def test_what_goes_wrong_in_a_worker_is_an_error_that_names_the_run(tmp_path):
    runs = [dataclasses.replace(run, size={**run.size, "heads": 3}) for run in planned()]
    with pytest.raises(GradlensError, match=r"lm, \w+, seed \d: heads must divide width, got width=16"):
        run_jobs(runs, tmp_path / "g", MANIFEST, at_a_time=2)


def test_a_diverged_run_is_a_result_like_any_other(tmp_path):
    events = []
    runs = planned(norms=("none",), seeds=(0, 1), steps=60, lr=1e6, optimizer="sgd")
    recordings = run_jobs(runs, tmp_path / "g", MANIFEST, at_a_time=2, on_event=events.append)
    assert [recording.meta["status"] for recording in recordings] == ["diverged"] * 2
    assert [event.recording.meta["status"] for event in events if event.what == "finished"] == ["diverged"] * 2


CHILD = f"""
{TAKES_CTRL_C}
import sys
from pathlib import Path
from tests.lab.runs.test_runner import MANIFEST, planned
from gradlens.lab.runs.runner import run_jobs
if __name__ == "__main__":
    run_jobs(planned(steps=3000, checkpoint_every=20), Path(sys.argv[1]), MANIFEST, at_a_time=2)
"""


def test_an_interrupted_grid_goes_on_from_its_checkpoints(tmp_path):
    (tmp_path / "child.py").write_text(CHILD)
    out = tmp_path / "g"
    child = subprocess.Popen(
        [sys.executable, str(tmp_path / "child.py"), str(out)],
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        stderr=subprocess.DEVNULL,
    )
    try:
        limit = time.monotonic() + 120
        while len(list(out.rglob("checkpoint*"))) < 2 and child.poll() is None and time.monotonic() < limit:
            time.sleep(0.1)
        os.kill(child.pid, signal.SIGINT)  # this process alone: it must tell its workers
        child.wait(60)
    finally:
        child.kill()
    begun = [load(path.parent) for path in out.glob("runs/*/*/*/manifest.json")]
    assert {recording.meta["status"] for recording in begun} == {"interrupted"}
    assert all(0 < len(recording.steps) < 3000 for recording in begun)
    # The next attempt takes the lock and goes on behind the checkpoint.
    first = planned(steps=3000, checkpoint_every=20)[0]
    steps = []
    with pytest.raises(KeyboardInterrupt):
        run_jobs([first], out, MANIFEST, at_a_time=1, on_event=lambda event: steps.append(_interrupt(event)))
    assert steps[-1] is None or steps[-1] >= 20


def _interrupt(event):
    if event.progress is not None:
        assert event.progress.step > 20
        raise KeyboardInterrupt
