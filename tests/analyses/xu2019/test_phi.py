"""``xu2019_phi`` holds AdaNorm's factor against what it is built to be."""

import pytest

from analyses.papers.xu2019.phi import ANALYSIS
from gradlens.analysis import Finding
from gradlens.analysis.figures import draw
from gradlens.recording import Recording
from tests.analyses.pictures import faults
from tests.analyses.xu2019.planted_gradients import grid, run


def judged(*recordings: Recording) -> dict[str, Finding]:
    return {finding.code: finding for finding in ANALYSIS.judge(ANALYSIS.compute(recordings))}


@pytest.mark.parametrize(
    ("factor", "status"), [((1.0, 0.1), "pass"), ((1.01, 0.1), "fail"), ((1.0, 0.09), "fail"), ((2.0, 0.2), "fail")]
)
def test_mean_and_deviation_are_those_of_the_definition(factor: tuple[float, float], status: str) -> None:
    found = judged(run(norm="adanorm"), run(norm="adanorm", seed=1, factor=factor))["GL511"]
    assert found.status == status
    assert found.subject == ("" if status == "pass" else "lm, adanorm, seed 1")


def test_a_small_y_passes_because_the_width_allows_no_large_one() -> None:
    found = judged(run(norm="adanorm", largest=4.0))["GL512"]
    assert found.status == "pass"
    assert found.value == pytest.approx(4.0)
    assert "8.00" in found.claim  # sqrt(65 - 1)


def test_a_large_y_warns_with_its_run_and_site() -> None:
    found = judged(run(norm="adanorm"), run(norm="adanorm", seed=2, largest=12.0))["GL512"]
    assert found.status == "warn"
    assert found.value == pytest.approx(12.0)
    assert "seed 2" in found.claim
    assert "50.0 % of the 120 rows" in found.claim
    assert found.sites == ("norm0.factor",)


def test_a_large_y_below_zero_is_no_negative_factor() -> None:
    """φ reaches 1 + k·12 only at y = −12."""
    assert "for certain in 0.0 %" in judged(run(norm="adanorm", largest=12.0))["GL512"].claim
    recording = run(norm="adanorm", largest=12.0)
    rows = recording.activations
    rows.loc[rows["tensor"] == "output", "absmax"] = 1.4
    tables = {name: recording.table(name) for name in ("sites", "norms", "steps")}
    positive = Recording.from_tables(dict(recording.meta), activations=rows, **tables)
    assert "for certain in 100.0 %" in judged(positive)["GL512"].claim


def test_extremes_are_over_norms_and_seeds() -> None:
    table = ANALYSIS.compute([run(norm="adanorm", seed=s, largest=3.0 + s) for s in range(3)])
    for panel, rows in (("max |y| over training", 20), ("max |y| by depth", 3)):
        own = table[table["panel"] == panel]
        assert len(own) == rows
        assert (own["value"] == 5.0).all()


@pytest.mark.parametrize("recordings", [[], [run()]], ids=["nothing", "without AdaNorm"])
def test_without_adanorm_there_is_nothing_to_say(recordings: list[Recording]) -> None:
    table = ANALYSIS.compute(recordings)
    assert ANALYSIS.optional
    assert table.empty
    assert [finding.status for finding in ANALYSIS.judge(table)] == ["not applicable"]
    draw(ANALYSIS, table)


def test_the_picture_cuts_no_text() -> None:
    assert faults(draw(ANALYSIS, ANALYSIS.compute([*grid(), run("parsing", "adanorm", largest=12.0)]))) == []
