"""What the questions to every paper must do, whoever wrote them: as for ``ANALYSES``, on a small grid."""

import pkgutil
from pathlib import Path

import pandas as pd
import pytest

import analyses.papers
from analyses import ANALYSES
from analyses.papers import PAPERS
from gradlens.analysis import SEVERITY, Analysis
from gradlens.analysis.figures import draw
from gradlens.recording import TABLES
from gradlens.recording.schema import PUBLIC, names
from tests.analyses.xu2019.planted_gradients import run

QUESTIONS = [question for paper in PAPERS.values() for question in paper]
GRID = [
    run(task, norm, seed)
    for task in ("lm", "images")
    for norm in ("none", "layernorm", "layernorm-simple", "detachnorm", "adanorm")
    for seed in (0, 1)
]
every_question = pytest.mark.parametrize("analysis", QUESTIONS, ids=lambda a: a.name)


def test_every_paper_has_a_package_and_every_package_a_line():
    assert set(PAPERS) == {module.name for module in pkgutil.iter_modules(analyses.papers.__path__) if module.ispkg}


def test_no_two_questions_share_a_name_or_a_code():
    everything = [*ANALYSES, *QUESTIONS]
    codes = [code for analysis in everything for code in analysis.codes]
    assert len(codes) == len(set(codes))
    assert len({analysis.name for analysis in everything}) == len(everything)


@every_question
def test_needs_name_columns_of_the_schema_and_texts_are_written_out(analysis: Analysis) -> None:
    assert set(analysis.needs) <= set(TABLES)
    for table, columns in analysis.needs.items():
        assert set(columns) <= set(names(PUBLIC[table]))
    assert analysis.question.endswith("?")
    assert len(analysis.reading) > 100
    assert all(len(text) > 100 for text in analysis.codes.values())
    assert analysis.size[0] == 6.7
    assert analysis.plot is not None or analysis.show is not None


@every_question
@pytest.mark.parametrize("recordings", [GRID, GRID[:3], []], ids=["grid", "few", "nothing"])
def test_tables_repeat_themselves_survive_the_disk_and_are_judged(
    analysis: Analysis, recordings: list, tmp_path: Path
) -> None:
    once, twice = analysis.compute(recordings), analysis.compute(recordings)
    pd.testing.assert_frame_equal(once, twice)
    once.to_parquet(tmp_path / "table.parquet")
    again = pd.read_parquet(tmp_path / "table.parquet")
    if analysis.show is not None:
        for (caption, rows), other in zip(analysis.show(once).items(), analysis.show(again).values(), strict=True):
            assert caption.endswith(".")
            pd.testing.assert_frame_equal(rows, other)
    if analysis.plot is not None:
        draw(analysis, again)
    for finding in analysis.judge(once):
        assert finding.code in analysis.codes
        assert finding.status in SEVERITY
        assert finding.analysis == analysis.name
        assert finding.claim.endswith(".")
        assert "nan" not in finding.claim
    if not recordings:
        assert {finding.status for finding in analysis.judge(once)} <= {"not applicable"}
