import dataclasses
import json
from pathlib import Path

import pytest

from gradlens.errors import GradlensError
from gradlens.lab.operands import RunFolder, Variant, parse
from gradlens.lab.runs.comparison import changed, default_out, plan
from gradlens.lab.runs.runner import run_jobs
from gradlens.lab.training.settings import Settings, changes
from gradlens.recording import load

SETTINGS = Settings(layers=2, width=8, heads=2, seeds=2, batch_size=2, length=8, steps=4, device="cpu")
PRE, POST = Variant("pre-ln"), Variant("post-ln/adanorm")


def with_(**settings) -> Settings:
    return dataclasses.replace(SETTINGS, **settings)


def keys(operands, settings=SETTINGS) -> list[str]:
    return [job.key for job in plan(operands, settings, Path("out")).jobs]


def run(operands, settings, out, on_event=None):
    planned = plan(operands, settings, out)
    return run_jobs(planned.jobs, out, planned.manifest, changed=changed, at_a_time=1, on_event=on_event)


def test_every_model_is_measured_before_any_is_trained():
    assert keys([PRE, POST]) == [
        "pre-ln/init",
        "post-ln-adanorm/init",
        "pre-ln/no-warm-up",
        "pre-ln/warm-up",
        "post-ln-adanorm/no-warm-up",
        "post-ln-adanorm/warm-up",
    ]


def test_labels_name_variant_schedule_and_where_there_are_several_the_seed():
    assert [job.label for job in plan([POST], SETTINGS, Path("out")).jobs][1:] == [
        "post-ln/adanorm, no warm-up",
        "post-ln/adanorm, warm-up",
    ]
    several = plan([PRE], with_(train_seeds=2, seed=5), Path("out")).jobs
    assert [job.label for job in several][1:3] == ["pre-ln, no warm-up, seed 5", "pre-ln, no warm-up, seed 6"]
    assert len({job.key for job in several}) == 5


def test_without_a_warmup_there_is_no_run_with_one():
    assert keys([PRE], with_(warmup=0)) == ["pre-ln/init", "pre-ln/no-warm-up"]


def test_init_only_trains_nothing():
    assert keys([PRE, POST], with_(init_only=True)) == ["pre-ln/init", "post-ln-adanorm/init"]


def test_the_same_operands_have_the_same_folder():
    assert str(default_out([PRE, POST])) == "runs/compare-pre-ln-post-ln-adanorm"


def test_runs_differ_in_nothing_but_the_warmup_and_the_seed():
    settings = with_(steps=9, train_seeds=2)
    base = settings.training("warm-up").to_dict()
    cold = settings.training("no warm-up").to_dict()
    assert {name for name in base if base[name] != cold[name]} == {"warmup"}
    other = settings.training("warm-up", 1).to_dict()
    assert {name for name in base if base[name] != other[name]} == {"seed"}
    assert (base["warmup"], base["decay_from"]) == (3, 3)


@pytest.mark.parametrize("name", ["layers", "seeds", "steps", "batch_size", "lr"])
def test_an_impossible_setting_is_refused_before_anything_runs(name):
    with pytest.raises(GradlensError, match=name):
        with_(**{name: 0})


def test_changes_name_settings_that_decide_numbers_and_only_those():
    before, now = SETTINGS.to_dict(), with_(width=16, device="cuda").to_dict()
    assert changes(before, now) == ["width (was 8, now 16)"]


def test_recordings_come_back_job_by_job_with_what_they_are_of(tmp_path):
    settings = with_(seed=3)
    init, cold, warm = run([PRE], settings, tmp_path / "out")
    assert [r.label for r in (init, cold, warm)] == ["pre-ln", "pre-ln, no warm-up", "pre-ln, warm-up"]
    assert init.steps["seed"].tolist() == [3, 4]
    assert init.meta["task"] == cold.meta["task"]
    assert {r.meta["variant"] for r in (init, cold, warm)} == {"pre-ln"}
    assert cold.steps["loss"][0] == warm.steps["loss"][0]  # the same weights and the same batch
    assert warm.meta["training"] == settings.training("warm-up").to_dict()
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert [load(tmp_path / "out" / path).label for path in manifest["runs"]] == [r.label for r in (init, cold, warm)]


def test_events_tell_what_is_made_and_what_is_reused(tmp_path):
    events = []
    run([PRE], SETTINGS, tmp_path / "out", events.append)
    told = [(event.job.key, event.what, event.done) for event in events]
    assert told[:4] == [
        ("pre-ln/init", "started", 0),
        ("pre-ln/init", "progress", 1),
        ("pre-ln/init", "progress", 2),
        ("pre-ln/init", "finished", 0),
    ]
    again = []
    run([PRE], SETTINGS, tmp_path / "out", again.append)
    assert [event.what for event in again] == ["reused"] * 3


def test_a_job_that_was_cut_off_at_initialization_is_measured_again(tmp_path):
    settings = with_(init_only=True)

    def stop(event):
        if event.done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run([PRE], settings, tmp_path / "cut", stop)
    assert json.loads((tmp_path / "cut" / "manifest.json").read_text())["status"] == "interrupted"
    (resumed,) = run([PRE], settings, tmp_path / "cut")
    (whole,) = run([PRE], settings, tmp_path / "whole")
    assert resumed.norms.equals(whole.norms)
    assert resumed.params.equals(whole.params)


def test_a_recording_beside_variants_is_read_where_it_lies(tmp_path):
    settings = with_(init_only=True)
    run([PRE], settings, tmp_path / "first")
    there = RunFolder(tmp_path / "first" / "runs" / "pre-ln" / "init")
    recordings = run([there, POST], settings, tmp_path / "second")
    assert [r.label for r in recordings] == ["pre-ln", "post-ln/adanorm"]
    assert len(parse([str(tmp_path / "second")])) == 2
