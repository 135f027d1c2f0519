"""``xu2019_curves`` draws every run and names those that diverged."""

import numpy as np
import pytest

from analyses.papers.xu2019.curves import ANALYSIS
from gradlens.analysis.figures import draw
from gradlens.recording import Recording
from tests.analyses.pictures import faults
from tests.analyses.xu2019.planted_gradients import STEPS, grid, run


def test_the_mean_and_the_range_are_over_seeds() -> None:
    table = ANALYSIS.compute([run(seed=s, loss=lambda step, s=s: 2.0 + s) for s in range(3)])
    for panel, more in (("training", 0.0), ("held-out", 0.1)):
        rows = table[table["panel"] == panel]
        assert rows["value"].to_numpy() == pytest.approx(3.0 + more)
        assert rows["low"].to_numpy() == pytest.approx(2.0 + more)
        assert rows["high"].to_numpy() == pytest.approx(4.0 + more)
        assert set(rows["n"]) == {3}
        assert set(rows["unit"]) == {"nats per byte"}


def test_a_run_that_diverged_is_drawn_alone_up_to_its_end_and_counts_in_no_mean() -> None:
    runs = [run(seed=0), run(seed=1), run(seed=2, loss=lambda step: 1e6, diverged_at=70)]
    table = ANALYSIS.compute(runs)
    drawn = table[table["panel"] == "training"]
    alone, together = drawn[drawn["stack"] == "diverged"], drawn[drawn["stack"] == ""]
    assert alone["x"].max() == 60  # the last step of finite loss
    assert (alone["label"] == runs[2].label).all()
    assert together["value"].max() < 10
    assert np.isfinite(drawn["value"]).all()
    figure = draw(ANALYSIS, table)
    crosses = [line for line in figure.axes[0].lines if line.get_marker() == "x"]
    assert len(crosses) == 1
    low, high = figure.axes[0].get_ylim()
    assert low <= float(np.asarray(crosses[0].get_ydata())[0]) <= high < 10


def test_divergence_is_said_once_a_cell_with_step_and_seeds() -> None:
    runs = [run("translation", "none", s, diverged_at=40 + 30 * s if s < 2 else None) for s in range(3)]
    runs += [run("images", "layernorm", s) for s in range(3)]
    (found,) = ANALYSIS.judge(ANALYSIS.compute(runs))
    assert (found.code, found.status, found.steps, found.value) == ("GL507", "warn", (40,), 2.0)
    assert "2 of 3 seeds" in found.claim
    assert found.expected == "Diverge"


def test_a_divergence_that_the_paper_does_not_have_is_not_expected() -> None:
    (found,) = ANALYSIS.judge(ANALYSIS.compute([run("translation", "layernorm", diverged_at=40)]))
    assert found.expected == "a score"


def test_where_none_diverged_one_finding_passes() -> None:
    (found,) = ANALYSIS.judge(ANALYSIS.compute(grid()))
    assert found.status == "pass"
    assert "42 runs" in found.claim


def test_an_axis_shows_the_end_of_every_curve_and_not_the_start_of_the_slowest() -> None:
    def falling(start: float, end: float) -> dict[str, float]:
        return {str(s): end + (start - end) * np.exp(-s / 30) for s in STEPS}

    curves = {"none": falling(400.0, 5.0), "layernorm": falling(8.0, 1.0), "adanorm": falling(8.0, 1.1)}
    runs = [run(norm=norm, loss=lambda s, c=curve: c[str(s)]) for norm, curve in curves.items()]
    low, high = draw(ANALYSIS, ANALYSIS.compute(runs)).axes[0].get_ylim()
    assert low < 1.0 + 0.1
    assert 5.0 < high < 20.0


@pytest.mark.parametrize("recordings", [[], [Recording.from_tables({"kind": "training"})]], ids=["none", "no run"])
def test_without_runs_one_finding_says_so(recordings: list[Recording]) -> None:
    table = ANALYSIS.compute(recordings)
    assert [finding.status for finding in ANALYSIS.judge(table)] == ["not applicable"]
    draw(ANALYSIS, table)


def test_the_picture_cuts_no_text() -> None:
    assert faults(draw(ANALYSIS, ANALYSIS.compute([*grid(), run("parsing", "none", diverged_at=50)]))) == []
