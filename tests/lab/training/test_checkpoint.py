import pytest
import torch

from gradlens.errors import RecordingError
from gradlens.lab.training import checkpoint
from gradlens.lab.training.checkpoint import checkpoint_path, load_checkpoint, remove_checkpoint, save_checkpoint

CPU = torch.device("cpu")
STATE = {"step": 3, "high_losses": 0, "model": {"w": torch.arange(4.0)}, "optimizer": {"state": {}}}


def test_what_is_saved_comes_back(tmp_path):
    save_checkpoint(STATE, tmp_path)
    back = load_checkpoint(tmp_path, CPU)
    assert back["step"] == 3
    assert torch.equal(back["model"]["w"], STATE["model"]["w"])
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint_path(tmp_path).name]


def test_there_is_none_before_the_first_and_after_removal(tmp_path):
    assert load_checkpoint(tmp_path, CPU) is None
    save_checkpoint(STATE, tmp_path)
    remove_checkpoint(tmp_path)
    remove_checkpoint(tmp_path)
    assert load_checkpoint(tmp_path, CPU) is None


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), RuntimeError("write failed")])
def test_a_save_that_fails_keeps_the_checkpoint_before_it(tmp_path, monkeypatch, failure):
    save_checkpoint(STATE, tmp_path)

    def torn(state, file):
        file.write(b"half of it")
        raise failure

    monkeypatch.setattr(checkpoint.torch, "save", torn)
    with pytest.raises(RecordingError, match="Make room"):
        save_checkpoint(STATE | {"step": 4}, tmp_path)
    assert load_checkpoint(tmp_path, CPU)["step"] == 3
    assert len(list(tmp_path.iterdir())) == 1


def test_a_damaged_or_foreign_file_is_named(tmp_path):
    save_checkpoint(STATE, tmp_path)
    whole = checkpoint_path(tmp_path).read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2]):
        checkpoint_path(tmp_path).write_bytes(content)
        with pytest.raises(RecordingError, match=r"checkpoint\.pt must be a checkpoint"):
            load_checkpoint(tmp_path, CPU)
    torch.save({"weights": torch.zeros(1)}, checkpoint_path(tmp_path))
    with pytest.raises(RecordingError, match="Delete it"):
        load_checkpoint(tmp_path, CPU)


def test_no_code_in_a_checkpoint_is_run(tmp_path):
    torch.save(STATE | {"model": test_no_code_in_a_checkpoint_is_run}, checkpoint_path(tmp_path))
    with pytest.raises(RecordingError):
        load_checkpoint(tmp_path, CPU)
