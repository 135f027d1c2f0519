import pytest

from gradlens.errors import RecordingError
from gradlens.lab.training.config import TrainingConfig
from gradlens.lab.training.earlier import differences, finished_run
from gradlens.recording import RunWriter


def meta(**settings):
    return {
        "kind": "training",
        "variant": "pre-ln",
        "model": {"width": 8},
        "task": {"sha256": "a"},
        "training": TrainingConfig(**settings).to_dict(),
    }


def leave_run(folder, status, **settings):
    writer = RunWriter(folder, meta(**settings) | {"label": "before"})
    writer.close(status)


def test_runs_with_the_same_settings_do_not_differ():
    assert differences(meta(betas=(0.9, 0.98)), meta(betas=(0.9, 0.98))) == []
    assert differences(meta(), meta() | {"label": "another", "versions": {"torch": "1"}}) == []


def test_settings_that_do_not_change_the_numbers_may_differ():
    assert differences(meta(), meta(device="cpu", checkpoint_every=1)) == []


def test_a_run_from_before_models_said_what_their_arrangement_is_can_be_gone_on_with():
    before = meta() | {"model": {"arrangement": "pre-ln"}}
    now = meta() | {"model": {"arrangement": "pre-ln", "skip_is_sound": True, "theory": "pre-ln"}}
    assert differences(before, now) == []


def test_each_difference_names_its_setting_and_both_values():
    assert differences(meta(lr=0.1), meta(lr=0.2)) == ["training.lr is 0.1, not 0.2"]
    changed = meta() | {"task": {"sha256": "b"}, "model": {"width": 8, "heads": 2}}
    assert differences(meta(), changed) == [
        "model.heads is absent, not 2",
        "task.sha256 is 'a', not 'b'",
    ]


def test_there_is_no_earlier_run_where_there_is_no_manifest(tmp_path):
    assert finished_run(tmp_path / "none", meta()) is None
    assert finished_run(tmp_path, meta()) is None


@pytest.mark.parametrize(("status", "is_finished"), [("complete", 1), ("diverged", 1), ("interrupted", 0)])
def test_a_finished_run_is_returned_and_an_interrupted_one_is_not(tmp_path, status, is_finished):
    leave_run(tmp_path, status)
    earlier = finished_run(tmp_path, meta())
    assert (earlier is not None) == is_finished


@pytest.mark.parametrize("status", ["complete", "interrupted"])
def test_a_run_with_other_settings_is_refused_and_left_alone(tmp_path, status):
    leave_run(tmp_path, status, lr=0.1, steps=7)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(RecordingError) as error:
        finished_run(tmp_path, meta(lr=0.2, steps=7))
    assert "training.lr is 0.1, not 0.2" in str(error.value)
    assert "steps" not in str(error.value)
    assert "'before'" in str(error.value)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
