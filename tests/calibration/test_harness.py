"""The calibration itself: kinds that can be named, halves that are fair, and runs that are recorded and judged."""

import json
from pathlib import Path

import pytest

from gradlens.analysis.discover import discover
from tests.calibration.faults import KINDS, cases
from tests.calibration.healthy import HEALTHY
from tests.calibration.judge import judge
from tests.calibration.networks import NETWORKS
from tests.calibration.recordings import HEALTHY_IS, everything, record
from tests.calibration.report import counts, healthy, write
from tests.calibration.run import Run, train

#: Codes that kinds name, and that no analysis has yet.
PLANNED = {
    "GL307", "GL308", "GL309", "GL310", "GL311", "GL405", "GL406", "GL407",
    "GL701", "GL702", "GL703", "GL704", "GL705", "GL706",
    "GL801", "GL802", "GL803", "GL804", "GL805", "GL806", "GL807", "GL808", "GL901",
}  # fmt: skip


def test_kinds_are_many_and_each_has_codes_that_exist_and_four_networks() -> None:
    known = {code for analysis in discover() for code in analysis.codes} | PLANNED
    assert len(KINDS) >= 45
    for kind in KINDS.values():
        assert kind.codes
        assert set(kind.codes) <= known, kind.name
        assert len(set(kind.networks)) >= 4, kind.name
        assert set(kind.networks) <= set(NETWORKS)


def test_names_are_unique_and_healthy_set_ups_are_many() -> None:
    every = [case.name for case in cases()]
    assert len(every) == len(set(every))
    assert len(HEALTHY) >= 40
    assert len(everything()) == len(every) + len(HEALTHY)


def test_each_kind_is_in_both_halves_and_a_network_is_in_one() -> None:
    for name in KINDS:
        own = [case for case in cases() if case.kind.name == name]
        halves = {network: {case.half for case in own if case.network == network} for network in KINDS[name].networks}
        assert all(len(half) == 1 for half in halves.values())
        assert set.union(*halves.values()) == {"development", "published"}


def test_every_fault_can_be_planted_and_what_has_a_place_names_a_module_of_the_network() -> None:
    for case in cases():
        planted = case.planted()
        if planted.places and case.when == "start" and "holds" not in case.kind.name:
            paths = dict(planted.run.build(planted.run.wrong).named_modules())
            assert any(place in paths for place in planted.places), case.name


def shortened(run: Run) -> Run:
    run.steps = 20
    return run


@pytest.mark.parametrize("name", ["branch_detached--gpt--gross-start", HEALTHY_IS + "lstm"])
def test_a_run_is_recorded_whole_and_judged(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.calibration.recordings.train", lambda run, out: train(shortened(run), out))
    assert record(name, tmp_path) == ""
    assert [path.name for path in tmp_path.iterdir()] == [name]
    line = judge(name, tmp_path)
    if name.startswith(HEALTHY_IS):
        assert healthy([line])["runs"] == 1
        assert not any(cause["status"] == "fail" for cause in line["causes"])
    else:
        assert line["outcome"] == "first"
        assert line["place"] is True
        assert line["causes"][0]["code"] == "GL401"
        assert counts([line])["right first"] == 1
    (tmp_path / "README.md").write_text(
        "before\n<!-- table: begin -->\nAn earlier table\n<!-- table: end -->\nafter\n", "utf-8"
    )
    write([line], tmp_path)
    text = (tmp_path / "README.md").read_text("utf-8")
    assert text.startswith("before\n")
    assert text.endswith("<!-- table: end -->\nafter\n")
    assert "An earlier" not in text
    assert [run["name"] for run in json.loads((tmp_path / "results.json").read_text("utf-8"))["runs"]] == [name]


def test_what_cannot_be_recorded_says_why_and_leaves_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.calibration.run.optimizer_of", lambda *given: 1 / 0)
    assert "ZeroDivisionError" in record(HEALTHY_IS + "lstm", tmp_path)
    assert not (tmp_path / (HEALTHY_IS + "lstm")).exists()
