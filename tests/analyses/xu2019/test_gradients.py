"""The gradients' analyses find what was planted, and Theorem 1 in a real run."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import gradlens
from analyses.papers.xu2019.gradients import BY_DEPTH, OVER_TRAINING
from gradlens.analysis import Analysis, Finding
from gradlens.analysis.figures import draw
from gradlens.lab.tasks.stdlib_source import StdlibSource
from gradlens.lab.training.config import TrainingConfig
from gradlens.lab.training.trainer import train
from gradlens.recording import Recording
from tests.analyses.pictures import faults
from tests.analyses.xu2019.planted_gradients import WIDTH, grid, run

both = pytest.mark.parametrize("analysis", [BY_DEPTH, OVER_TRAINING], ids=lambda a: a.name)
RANDOM = 1 / (WIDTH - 1)


def theorem(recordings: Sequence[Recording]) -> Finding:
    (found,) = BY_DEPTH.judge(BY_DEPTH.compute(recordings))
    return found


def drawn(table: pd.DataFrame, quantity: str, norm: str) -> pd.DataFrame:
    return table[(table["quantity"] == quantity) & (table["variant"] == norm)]


@both
def test_what_a_derivative_does_is_seen_in_mean_and_variance(analysis: Analysis) -> None:
    table = analysis.compute(grid(rho2=lambda step: 0.2))
    for norm, mean, variance in (
        ("layernorm", 0.0, 0.8), ("detachnorm", 1.0, 1.0), ("detachnorm-mean", 1.0, 0.8),
        ("detachnorm-variance", 0.0, 1.0), ("adanorm", 0.0, 0.8),
    ):  # fmt: skip
        assert drawn(table, "mean", norm)["value"].to_numpy() == pytest.approx(mean, abs=1e-6)
        assert drawn(table, "variance", norm)["value"].to_numpy() == pytest.approx(variance)
        assert drawn(table, "rho2", norm)["value"].to_numpy() == pytest.approx(0.2)
        assert len(drawn(table, "rho2", norm)) == (0 if variance == 1.0 else len(drawn(table, "variance", norm)))
    assert drawn(table, "mean", "none").empty


def test_norms_stand_in_forward_order_and_only_the_end_counts() -> None:
    table = BY_DEPTH.compute([run(seed=s, rho2=lambda step: 0.5 if step >= 100 else 0.01) for s in range(3)])
    rows = drawn(table, "rho2", "layernorm-simple")
    assert list(rows["x"]) == [1, 2, 3]
    assert list(rows["group"]) == ["norm0", "norm1", "norm2"]
    assert rows["value"].to_numpy() == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("norm", "broken", "part"),
    [
        ("layernorm", {"mean2_actual": 1e-6}, "mean"),
        ("detachnorm", {"mean2_actual": 0.05}, "mean"),
        ("layernorm", {"var_actual": 0.901}, "variance"),
        ("detachnorm-variance", {"var_actual": 0.8}, "variance"),
        ("layernorm", {"var_actual": 0.5, "vectors": 1}, "correlation"),
    ],
)
def test_a_row_that_breaks_the_theorem_fails(norm: str, broken: dict[str, float], part: str) -> None:
    found = theorem([run(norm="adanorm"), run(norm=norm, **broken)])  # type: ignore[arg-type]
    assert found.status == "fail"
    assert found.details[part] == pytest.approx(found.value)
    assert found.sites[0] == "norm0"
    assert norm in found.subject


def test_less_variance_in_a_row_of_many_vectors_breaks_nothing() -> None:
    assert theorem([run(norm="layernorm", var_actual=0.5)]).status == "pass"


def test_rows_that_are_not_finite_are_not_judged() -> None:
    good = theorem([run(), run(seed=1, diverged_at=50, var_actual=np.inf)])
    assert good.status == "pass"
    assert "of 1 run" in good.claim


def wrongly_named(recording: Recording, norm: str) -> Recording:
    meta = {**recording.meta, "model": {**recording.meta["model"], "norm": norm}}
    return Recording.from_tables(meta, **{name: recording.table(name) for name in ("sites", "norms", "steps")})


@pytest.mark.parametrize(
    ("norm", "wrong"),
    [("layernorm", "detachnorm"), ("adanorm", "detachnorm-mean"), ("detachnorm", "layernorm"),
     ("layernorm-simple", "detachnorm-variance")],
)  # fmt: skip
def test_theorem_1_holds_in_a_real_run_and_not_under_another_name(norm: str, wrong: str) -> None:
    task = StdlibSource()
    config = TrainingConfig(steps=3, batch_size=4, length=12, lr=1e-2, evaluate_every=0, device="cpu")
    recording = train(
        lambda: task.model(f"pre-ln/{norm}", width=32, blocks=2, heads=2), task, config, label="real", meta={}
    )
    found = theorem([recording])
    assert found.status == "pass"
    assert 0 < found.value < 1e-4
    assert theorem([wrongly_named(recording, wrong)]).status == "fail"


def test_rows_of_one_vector_are_held_against_the_correlation() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.LayerNorm(32), nn.Linear(32, 4))
    with gradlens.attach(model) as lens:
        for _ in range(3):
            loss = model(torch.randn(1, 8)).square().sum()
            loss.backward()
            lens.step(loss=loss)
    norms = lens.recording.norms
    facts = {"model": {"norm": "layernorm"}, "seeds": [0], "training": {"steps": 3}, "status": "complete"}
    recording = Recording.from_tables(facts, sites=lens.recording.sites, norms=norms)
    found = theorem([recording])
    assert found.status == "pass"
    assert 0 < found.details["correlation"] < 1e-4
    norms["rescaling"] += 0.01
    assert theorem([Recording.from_tables(facts, sites=recording.sites, norms=norms)]).status == "fail"


def growing(start: float, end: float, seeds: int = 3) -> Finding:
    runs = [
        run(seed=s, rho2=lambda step, s=s: RANDOM * (1 + 0.05 * s) * (start if step < 20 else end))
        for s in range(seeds)
    ]
    (found,) = OVER_TRAINING.judge(OVER_TRAINING.compute(runs))
    return found


@pytest.mark.parametrize(
    ("start", "end", "status"), [(1, 8, "pass"), (1, 1.02, "inconclusive"), (8, 1, "warn"), (8, 20, "inconclusive")]
)
def test_re_scaling_grows_where_the_intervals_part_from_a_random_start(start: float, end: float, status: str) -> None:
    found = growing(start, end)
    assert (found.code, found.status) == ("GL510", status)
    assert found.value == pytest.approx(1.05 * end, rel=0.02)
    assert found.details["start"] == pytest.approx(1.05 * start, rel=0.02)


def test_one_seed_decides_nothing() -> None:
    found = growing(1, 8, seeds=1)
    assert found.status == "inconclusive"
    assert "nan" not in found.claim


def test_a_run_that_diverged_is_drawn_alone() -> None:
    runs = [run(seed=0), run(seed=1), run(seed=2, diverged_at=60, inv_sigma=9.0)]
    table = OVER_TRAINING.compute(runs)
    rows = drawn(table, "inv_sigma", "layernorm-simple")
    assert rows.loc[rows["stack"] == "diverged", "x"].max() == 60
    assert rows.loc[rows["stack"] == "", "value"].to_numpy() == pytest.approx(0.5)
    assert any(line.get_marker() == "x" for line in draw(OVER_TRAINING, table).axes[4].lines)


@both
@pytest.mark.parametrize("recordings", [[], [run(norm="none")]], ids=["nothing", "without norms"])
def test_where_there_is_no_norm_one_finding_says_so(analysis: Analysis, recordings: list[Recording]) -> None:
    table = analysis.compute(recordings)
    (found,) = analysis.judge(table)
    assert found.status == "not applicable"
    assert found.code in analysis.codes
    draw(analysis, table)


@both
def test_the_picture_cuts_no_text(analysis: Analysis) -> None:
    five = [run(task, norm) for task in ("translation", "sentences", "parsing") for norm in ("layernorm", "detachnorm")]
    assert faults(draw(analysis, analysis.compute([*grid(), *five]))) == []
