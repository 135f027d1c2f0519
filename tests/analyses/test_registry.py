"""What every analysis in ANALYSES must do, whoever wrote it."""

import pkgutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

import analyses
from analyses import ANALYSES
from gradlens.analysis import SEVERITY, Analysis
from gradlens.analysis.figures import draw
from gradlens.recording import TABLES, Recording
from gradlens.recording.schema import PUBLIC, names
from tests.analyses.pictures import faults, pixels
from tests.analyses.planted import at_init, audit, training

RECORDINGS: tuple[Recording, ...] = (
    at_init("pre-ln"),
    at_init("post-ln", second_moment=lambda depth: 1.5 if depth else 1.0),
    *(training([3.0 - 0.01 * t for t in range(60)], variant=v, schedule=s)
      for v in ("pre-ln", "post-ln") for s in ("warm-up", "no warm-up")),
)  # fmt: skip
CASES: dict[str, Sequence[Recording]] = {
    "all": RECORDINGS,
    "one at initialization": RECORDINGS[:1],
    "one of training": RECORDINGS[2:3],
    "two of training": RECORDINGS[2:4],
    "encoder and decoder": (at_init("post-ln", stacks=("encoder.blocks", "decoder.blocks")),),
    "audited": (at_init("pre-ln", audit=audit()), training([3.0, 2.0], audit=audit(silent=("a",), fired=()))),
    "no row in any table": (
        Recording.from_tables({"kind": "init"}),
        Recording.from_tables({"kind": "training"}),
    ),
    "with samples": (Recording.from_tables({"kind": "training", "samples": [{"source": "a", "translation": "b"}]}),),
    "nothing": (),
}
DRAWN = [analysis for analysis in ANALYSES if analysis.plot is not None]
READ = [analysis for analysis in ANALYSES if analysis.show is not None]
every_drawn = pytest.mark.parametrize("analysis", DRAWN, ids=lambda a: a.name)
every_read = pytest.mark.parametrize("analysis", READ, ids=lambda a: a.name)
every_analysis = pytest.mark.parametrize("analysis", ANALYSES, ids=lambda a: a.name)
every_judge = pytest.mark.parametrize("analysis", [a for a in ANALYSES if not a.optional], ids=lambda a: a.name)
every_case = pytest.mark.parametrize("recordings", CASES.values(), ids=CASES)


def test_every_question_is_in_the_tuple() -> None:
    folders = {module.name for module in pkgutil.iter_modules(analyses.__path__) if module.ispkg}
    assert folders - {"papers"} == {analysis.name for analysis in ANALYSES}


def test_no_two_analyses_share_a_name_or_a_code() -> None:
    codes = [code for analysis in ANALYSES for code in analysis.codes]
    assert len(codes) == len(set(codes))
    assert len({analysis.name for analysis in ANALYSES}) == len(ANALYSES)


@every_analysis
def test_needs_name_columns_of_the_schema(analysis: Analysis) -> None:
    assert set(analysis.needs) <= set(TABLES)
    for table, columns in analysis.needs.items():
        assert set(columns) <= set(names(PUBLIC[table]))


@every_analysis
def test_question_reading_and_codes_are_written_out(analysis: Analysis) -> None:
    assert analysis.question.endswith("?")
    assert len(analysis.reading) > 100
    assert all(len(text) > 100 for text in analysis.codes.values())
    assert analysis.size[0] == 6.7


@every_analysis
@every_case
def test_compute_changes_no_recording_and_repeats_itself(analysis: Analysis, recordings: Sequence[Recording]) -> None:
    before = [{name: r.table(name) for name in TABLES} for r in recordings]
    once, twice = analysis.compute(recordings), analysis.compute(recordings)
    pd.testing.assert_frame_equal(once, twice)
    for recording, tables in zip(recordings, before, strict=True):
        for name, table in tables.items():
            pd.testing.assert_frame_equal(recording.table(name), table)


def test_every_answer_is_drawn_or_read() -> None:
    assert {a.name for a in [*DRAWN, *READ]} == {a.name for a in ANALYSES}


@every_read
@every_case
def test_tables_to_read_are_made_from_the_table_alone(
    analysis: Analysis, recordings: Sequence[Recording], tmp_path: Path
) -> None:
    assert analysis.show is not None
    table = analysis.compute(recordings)
    before = table.copy()
    shown = analysis.show(table)
    pd.testing.assert_frame_equal(table, before)
    table.to_parquet(tmp_path / "table.parquet")
    again = analysis.show(pd.read_parquet(tmp_path / "table.parquet"))
    assert list(shown) == list(again)
    for caption, rows in shown.items():
        assert caption.endswith(".")
        assert len(rows)
        pd.testing.assert_frame_equal(rows, again[caption])


@every_drawn
@every_case
def test_plot_draws_from_the_table_alone(
    analysis: Analysis, recordings: Sequence[Recording], tmp_path_factory: pytest.TempPathFactory
) -> None:
    table = analysis.compute(recordings)
    before = table.copy()
    picture = pixels(draw(analysis, table))
    pd.testing.assert_frame_equal(table, before)
    file = tmp_path_factory.mktemp("table") / "table.parquet"
    table.to_parquet(file)
    assert pixels(draw(analysis, pd.read_parquet(file))) == picture


@every_judge
@every_case
def test_findings_have_known_codes_and_a_sentence(analysis: Analysis, recordings: Sequence[Recording]) -> None:
    found = analysis.judge(analysis.compute(recordings))
    assert found
    for finding in found:
        assert finding.code in analysis.codes
        assert finding.status in SEVERITY
        assert finding.analysis == analysis.name
        assert finding.claim.endswith(".")
        assert "nan" not in finding.claim


@every_judge
@pytest.mark.parametrize("case", ["nothing", "no row in any table"])
def test_where_there_is_nothing_to_see_one_finding_says_so(analysis: Analysis, case: str) -> None:
    table = analysis.compute(CASES[case])
    found = analysis.judge(table)
    assert len(table) <= 1  # the status of a run without steps is all there may be
    assert [finding.status for finding in found] == ["not applicable"]


@every_drawn
@pytest.mark.parametrize("case", ["all", "encoder and decoder"])
def test_the_picture_cuts_no_text_and_no_panel_runs_into_its_neighbour(analysis: Analysis, case: str) -> None:
    assert faults(draw(analysis, analysis.compute(CASES[case]))) == []


def test_reading_a_run_imports_neither_torch_nor_pyplot_nor_scipy_stats() -> None:
    unwanted = "{'torch', 'matplotlib.pyplot', 'scipy.stats'}"
    code = f"import sys, {analyses.__name__}; print(sorted({unwanted} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
