"""What every question of the study must do: repeat itself, survive the disk, be drawn whole, be silent on nothing."""

from pathlib import Path

import pandas as pd
import pytest

from analyses.papers.xiong2020 import ANALYSES
from gradlens.analysis import SEVERITY, Analysis, compare
from gradlens.analysis.figures import draw
from gradlens.recording import TABLES, Recording
from tests.analyses.pictures import faults, pixels
from tests.analyses.xiong2020.planted import study

STUDY = study()
CASES = {
    "the study": STUDY,
    "at initialization": [recording for recording in STUDY if recording.meta["kind"] == "init"],
    "training": [recording for recording in STUDY if recording.meta["kind"] == "training"],
    "one of each": [STUDY[0], STUDY[5], STUDY[-1], next(r for r in STUDY if "warmup" in r.meta.get("training", {}))],
    "empty": [Recording.from_tables({"kind": "init"}), Recording.from_tables({"kind": "training"})],
    "nothing": [],
}
every_question = pytest.mark.parametrize("analysis", ANALYSES, ids=lambda a: a.name)
every_case = pytest.mark.parametrize("recordings", CASES.values(), ids=CASES)
#: Those that are drawn, which takes long.
DRAWN = ("the study", "one of each", "nothing")
every_drawn_case = pytest.mark.parametrize("recordings", [CASES[name] for name in DRAWN], ids=DRAWN)


@every_question
@every_drawn_case
def test_tables_repeat_themselves_survive_the_disk_and_change_no_recording(
    analysis: Analysis, recordings: list[Recording], tmp_path: Path
) -> None:
    before = [{name: recording.table(name) for name in TABLES} for recording in recordings]
    usable = [recording for recording in recordings if recording.meta["kind"] in analysis.kinds]
    once, twice = analysis.compute(usable), analysis.compute(usable)
    pd.testing.assert_frame_equal(once, twice)
    for recording, tables in zip(recordings, before, strict=True):
        for name, table in tables.items():
            pd.testing.assert_frame_equal(recording.table(name), table)
    once.to_parquet(tmp_path / "table.parquet")
    again = pd.read_parquet(tmp_path / "table.parquet")
    assert analysis.plot is not None
    assert faults(draw(analysis, once)) == []
    assert pixels(draw(analysis, once)) == pixels(draw(analysis, again))
    shown, other = (analysis.show(table) if analysis.show else {} for table in (once, again))
    for (caption, rows), second in zip(shown.items(), other.values(), strict=True):
        assert caption.endswith(".")
        pd.testing.assert_frame_equal(rows, second)


@every_question
@every_case
def test_findings_have_known_codes_and_a_sentence(analysis: Analysis, recordings: list[Recording]) -> None:
    usable = [recording for recording in recordings if recording.meta["kind"] in analysis.kinds]
    for finding in analysis.judge(analysis.compute(usable)):
        assert finding.code in analysis.codes
        assert finding.status in SEVERITY
        assert finding.analysis == analysis.name
        assert finding.claim.endswith(".")
        assert "nan" not in finding.claim + finding.threshold


@every_question
@pytest.mark.parametrize("case", ["empty", "nothing"])
def test_where_its_part_was_not_run_a_question_is_silent(analysis: Analysis, case: str) -> None:
    usable = [recording for recording in CASES[case] if recording.meta["kind"] in analysis.kinds]
    table = analysis.compute(usable)
    assert table.empty
    assert analysis.judge(table) == []
    assert analysis.optional


def test_every_question_has_an_answer_on_the_whole_study() -> None:
    sections = compare(STUDY, ANALYSES).sections
    assert [section.analysis.name for section in sections if not section.findings] == []
    codes = {finding.code for section in sections for finding in section.findings}
    assert codes == {code for analysis in ANALYSES for code in analysis.codes}
