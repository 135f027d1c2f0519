"""Two implementations as jobs: what their recordings hold, and what is refused."""

from pathlib import Path

import pytest

from analyses.parting import ANALYSIS
from gradlens.analysis import Finding, compare
from gradlens.errors import GradlensError
from gradlens.lab.operands import parse
from gradlens.lab.runs.implementations import plan
from gradlens.lab.training.settings import Settings
from gradlens.recording import Recording, load

SETTINGS = Settings(layers=2, width=16, heads=2, batch_size=2, length=16, device="cpu")
MODELS = """
import torch
from torch import nn

def one():
    return nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 3)), torch.randn(3, 4)

def foreign():
    return nn.Sequential(nn.Linear(4, 9), nn.LayerNorm(9), nn.Linear(9, 3)), torch.randn(3, 4)

def wider():
    model, batch = one()
    return nn.Sequential(*model, nn.Linear(3, 3)), batch
"""


def recorded(first: str, second: str, out: Path) -> list[Recording]:
    jobs = plan(parse([first, second]), SETTINGS, out).jobs
    return [job.record(job.folder(out), lambda done, progress: None) for job in jobs]


def judged(recordings: list[Recording]) -> Finding:
    (found,) = compare(recordings, [ANALYSIS]).findings
    return found


@pytest.fixture
def models(tmp_path: Path) -> str:
    path = tmp_path / "models.py"
    path.write_text(MODELS)
    return str(path)


def test_the_second_holds_the_differences_and_both_are_read_where_they_are_finished(tmp_path: Path) -> None:
    one, other = recorded("pre-ln", "post-ln", tmp_path / "out")
    assert one.meta["same_weights"] == {}
    assert other.meta["same_weights"]["first"] == "pre-ln"
    assert set(other.probes["probe"]) == {"same_weights"}
    assert one.meta["seeds"] == other.meta["seeds"] == [0]
    found = judged([one, other])
    # What Pre-LN computes first is the norm before attention; Post-LN's is behind it, and sees the stream after it.
    assert (found.status, found.born, found.sites[0]) == ("warn", "forward", "blocks.0.attention_norm")
    assert "2 weights do not map" in found.claim  # those of the final norm
    read = recorded("pre-ln", "post-ln", tmp_path / "out")
    assert read[1].path is not None
    assert judged([load(one.path or ""), load(read[1].path)]).claim == found.claim


def test_models_of_other_sizes_are_not_held_against_each_other(models: str, tmp_path: Path) -> None:
    found = judged(recorded(f"{models}:one", f"{models}:foreign", tmp_path / "out"))
    assert found.status == "not applicable"
    assert "weights map" in found.claim


def test_what_comes_after_is_found_and_what_does_not_map_is_listed(models: str, tmp_path: Path) -> None:
    recordings = recorded(f"{models}:one", f"{models}:wider", tmp_path / "out")
    found = judged(recordings)
    assert recordings[1].meta["same_weights"]["added"] == ["3.weight", "3.bias"]
    assert (found.status, found.born) == ("warn", "forward")
    assert "the output of the model itself" in found.claim


@pytest.mark.parametrize("count", [1, 3])
def test_it_takes_two_models(count: int, tmp_path: Path) -> None:
    with pytest.raises(GradlensError, match="--same-weights takes two models"):
        plan(parse(["pre-ln", "post-ln", "deepnorm"][:count]), SETTINGS, tmp_path)


def test_a_run_is_no_model(tmp_path: Path) -> None:
    (one, _) = recorded("pre-ln", "post-ln", tmp_path / "out")
    with pytest.raises(GradlensError, match="--same-weights takes two models"):
        plan(parse([str(one.path), "pre-ln"]), SETTINGS, tmp_path)
