"""Two runs, and two implementations, from the command line: findings, exit codes, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from tests.analyses.parting.pairs import STEPS, train
from tests.cli.conftest import read_json

IMPLEMENTATIONS = """
import torch
from torch import nn

def model(eps=1e-5):
    return nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8, eps=eps), nn.Linear(8, 3)), torch.randn(3, 4)

def one():
    return model()

def same():
    torch.randn(7)  # other weights, which it will not keep
    return model()

def other():
    return model(eps=1e-3)
"""


@pytest.fixture
def implementations(folder: Path) -> Path:
    (folder / "models.py").write_text(IMPLEMENTATIONS)
    return folder


def found_in(result: Any, code: str) -> dict[str, Any]:
    (found,) = (finding for finding in read_json(result)["findings"] if finding["code"] == code)
    return found


@pytest.mark.parametrize(("second", "status", "exit_code"), [("same", "pass", 0), ("other", "warn", 1)])
def test_two_implementations_are_told_apart(gradlens, implementations, second, status, exit_code):
    command = ["compare", "models.py:one", f"models.py:{second}", "--same-weights", "--fail-on", "warn"]
    command += ["--device", "cpu", "--jobs", "1", "--json"]
    result = gradlens(*command)
    assert result.exit_code == exit_code
    found = found_in(result, "GL323")
    assert found["status"] == status
    if status == "warn":
        assert (found["sites"][0], found["born"]) == ("1", "forward")
    assert {finding["code"] for finding in read_json(result)["findings"]} == {"GL323"}
    folder = implementations / "runs" / f"compare-same-weights-models.py-one-models.py-{second}"
    assert (folder / "compare.pdf").read_bytes().startswith(b"%PDF-")
    again = gradlens(*command)
    assert found_in(again, "GL323") == found
    assert again.stderr.count("recorded before") == 2
    assert found_in(gradlens("diagnose", folder, "--format", "json"), "GL323") == found


@pytest.mark.parametrize("operands", [["models.py:one"], ["models.py:one", "models.py:same", "models.py:other"]])
def test_same_weights_takes_two_models(gradlens, implementations, operands):
    result = gradlens("compare", *operands, "--same-weights")
    assert result.exit_code == 2
    assert "--same-weights takes two models" in result.stderr


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def slower(step: int, _: Any, optimizer: Any) -> None:
        if step == 8:
            optimizer.param_groups[0]["lr"] = 1e-4

    out = tmp_path_factory.mktemp("runs")
    train("before", out=out / "before")
    train("after", out=out / "after", at=slower)
    return out


@pytest.mark.parametrize(
    ("order", "margin", "exit_code", "status"),
    [
        (("before", "after"), [], 1, "warn"),
        (("before", "after"), ["--margin", "50%"], 0, "pass"),
        (("after", "before"), ["--margin", "50%"], 0, "pass"),
        (("before", "after"), ["--margin", "0.01"], 1, "fail"),
    ],
)
def test_the_margin_decides_the_exit_code(gradlens, folder, two_runs, order, margin, exit_code, status):
    runs = [two_runs / name for name in order]
    result = gradlens("compare", *runs, *margin, "--fail-on", "warn", "--out", "o", "--json")
    assert result.exit_code == exit_code
    assert found_in(result, "GL322")["status"] == status
    parted = found_in(result, "GL321")
    assert (parted["onset"], parted["born"]) == (9, "update")
    assert parted["status"] == ("pass" if margin else "warn")


def test_diagnose_tells_it_of_two_runs(gradlens, folder, two_runs):
    result = gradlens("diagnose", two_runs / "before", two_runs / "after", "--format", "json")
    assert found_in(result, "GL321")["onset"] == 9
    one = gradlens("diagnose", two_runs / "before", "--format", "json")
    assert not {"GL321", "GL322"} & {finding["code"] for finding in read_json(one)["findings"]}


@pytest.mark.parametrize("margin", ["x", "-1%", "nan", "inf", "%"])
def test_a_margin_that_is_no_share_is_refused(gradlens, folder, two_runs, margin):
    result = gradlens("compare", two_runs / "before", two_runs / "after", f"--margin={margin}")
    assert result.exit_code == 2
    assert "write 5% or 0.05" in result.stderr


def test_a_margin_needs_two_runs(gradlens, folder, two_runs):
    result = gradlens("compare", two_runs / "before", "--margin", "5%")
    assert result.exit_code == 2
    assert "Name two run folders" in result.stderr


@pytest.mark.parametrize(
    ("run", "more", "exit_code"),
    [
        ("after", ["--margin", "1%"], 1),
        ("after", ["--margin", "50%"], 0),
        ("after", [], 0),
        ("before", ["--margin", "0%", "--fail-on", "warn"], 0),
        ("one", ["--margin", "50%"], 5),
    ],
)
def test_diagnose_holds_a_run_against_the_reference_by_a_margin(gradlens, two_runs, run, more, exit_code):
    """Of GL404 and the like, which both runs may show, nothing depends with a margin."""
    one = two_runs / "one"
    if not one.exists():
        train("one", out=one, every=STEPS)
    result = gradlens("diagnose", two_runs / run, "--reference", two_runs / "before", *more)
    assert result.exit_code == exit_code, result.stderr
    assert ("four steps that both runs recorded" in result.stderr) == (exit_code == 5)


def test_only_what_the_margin_asks_for_fails_in_junit(gradlens, two_runs):
    command = ["diagnose", two_runs / "after", "--reference", two_runs / "before", "--format", "junit"]
    for margin, failures in (("1%", 1), ("50%", 0)):
        result = gradlens(*command, "--margin", margin)
        assert f'failures="{failures}"' in result.stdout
        assert 'classname="gradlens.parting" name="GL322 after"' in result.stdout


def test_a_margin_of_diagnose_needs_a_reference(gradlens, two_runs):
    result = gradlens("diagnose", two_runs / "after", "--margin", "5%")
    assert result.exit_code == 2
    assert "--reference RUN" in result.stderr
