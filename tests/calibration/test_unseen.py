"""The unseen networks: none of them is known, every fault can be planted, and they are told apart from the others."""

import json
from pathlib import Path

import pytest
import torch

from gradlens.analysis.discover import discover
from tests.calibration.faults.kind import ONSET
from tests.calibration.judge import judge
from tests.calibration.networks import NETWORKS
from tests.calibration.recordings import HEALTHY_IS, everything, is_unseen, record
from tests.calibration.report import counts, write
from tests.calibration.run import Run, train
from tests.calibration.test_harness import PLANNED, shortened
from tests.calibration.unseen import CASES, HEALTHY, UNSEEN_IS
from tests.calibration.unseen.networks import UNSEEN


def test_networks_and_names_are_new_and_codes_exist() -> None:
    known = {code for analysis in discover() for code in analysis.codes} | PLANNED
    assert len(UNSEEN) >= 10
    assert not {network.build for network in UNSEEN.values()} & {network.build for network in NETWORKS.values()}
    assert 100 <= len(CASES) == len({case.name for case in CASES})
    for case in CASES:
        assert case.network in UNSEEN
        assert set(case.kind.codes) <= known, case.name


def test_the_sets_have_no_run_in_common() -> None:
    own, unseen = everything(), everything("unseen")
    assert not own.keys() & unseen.keys()
    assert len(unseen) == len(CASES) + len(HEALTHY)
    assert all(map(is_unseen, unseen))
    assert not any(map(is_unseen, own))


def test_every_fault_can_be_planted_and_every_place_is_in_the_network() -> None:
    for case in CASES:
        planted = case.planted()
        model = planted.run.build(planted.run.wrong)
        paths = dict(model.named_modules()) | dict(model.named_parameters())
        assert set(planted.places) <= set(paths), case.name


def test_what_comes_later_is_not_in_the_data_before() -> None:
    later = [case for case in CASES if case.when == "later" and "pixel" in case.kind.name]
    assert len(later) >= 2
    for case in later:
        planted = case.planted().run
        sound = Run(UNSEEN[case.network], seed=planted.seed)
        for now, same in ((ONSET - 1, True), (ONSET, False)):
            planted.now = now
            assert torch.equal(planted.data(now)[0][0], sound.data(now)[0][0]) is same, case.name


def test_an_unseen_run_is_recorded_judged_and_written_between_its_own_marks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.calibration.recordings.train", lambda run, out: train(shortened(run), out))
    names = [f"{UNSEEN_IS}vae--loss_taken_from_a_number--gross-start", f"{HEALTHY_IS}{UNSEEN_IS}vae"]
    assert [record(name, tmp_path) for name in names] == ["", ""]
    lines = [judge(name, tmp_path) for name in names]
    assert counts(lines[:1])["right first"] == 1
    (tmp_path / "README.md").write_text(
        "<!-- table: begin -->\nkinds\n<!-- table: end -->\n<!-- unseen: begin -->\n<!-- unseen: end -->\nlast\n",
        "utf-8",
    )
    write(lines, tmp_path, "unseen")
    text = (tmp_path / "README.md").read_text("utf-8")
    assert text.startswith("<!-- table: begin -->\nkinds\n<!-- table: end -->\n<!-- unseen: begin -->\n| network |")
    assert "| vae | Adam | 1 | 1 | 1 | 0 | 0 | 0 |" in text
    assert text.endswith("<!-- unseen: end -->\nlast\n")
    found = json.loads((tmp_path / "unseen.json").read_text("utf-8"))
    assert found["unseen"]["right first"] == 1
    assert found["healthy"]["runs"] == 1
