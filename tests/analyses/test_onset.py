"""What broke first: planted in series whose answer is known, and in real trainings."""

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import gradlens
from analyses.onset import ANALYSIS
from analyses.onset.jumps import beside, jumps, large, settles
from gradlens.analysis import Finding, compare
from gradlens.recording import Recording
from tests.analyses.trained import cnn, images, mlp, points, sequences, transformer

STEPS, AT = 100, 60
Plant = Callable[[nn.Module, Tensor], None]


def series(names: int = 8, seed: int = 0) -> pd.DataFrame:
    """Levels that differ, a common course that falls by a thousand, and noise of a tenth."""
    random = np.random.default_rng(seed)
    course = np.linspace(0, -math.log(1000), STEPS)[:, None]
    values = np.exp(course + random.normal(0, 1, names) + 0.1 * random.normal(size=(STEPS, names)))
    return pd.DataFrame(values, columns=[f"blocks.{index}" for index in range(names)])


def found_in(values: pd.DataFrame) -> list[tuple[str, int]]:
    return [(one.name, one.step) for one in large(jumps(beside(values)), 4.0, 1e-3)]


@pytest.mark.parametrize("factor", [6.0, 1 / 6.0])
@pytest.mark.parametrize("at", [20, AT, 90])
def test_a_jump_is_found_at_its_step(factor: float, at: int) -> None:
    values = series()
    values.loc[at:, "blocks.3"] *= factor
    assert found_in(values) == [("blocks.3", at)]
    (one,) = (one for one in jumps(beside(values)) if one.name == "blocks.3")
    assert one.factor == pytest.approx(factor, rel=0.3)  # medians of five, with a noise of a tenth


def test_what_moves_all_of_them_is_no_jump_of_one() -> None:
    values = series()
    values.loc[AT:] *= 50.0
    assert found_in(values) == []


def test_slow_drift_is_no_jump() -> None:
    values = series()
    values["blocks.2"] *= np.geomspace(1, 100, STEPS)
    assert found_in(values) == []


def test_what_goes_back_is_no_jump() -> None:
    values = series()
    values.loc[AT : AT + 8, "blocks.2"] *= 50.0
    assert found_in(values) == []


def test_two_hundred_sites_of_noise_jump_in_none_of_ten_draws() -> None:
    for seed in range(10):
        values = series(200, seed)
        assert not [one for one in jumps(beside(values)) if one.chance < 1e-3]


def test_two_series_have_no_others_to_be_held_against() -> None:
    assert jumps(beside(series(2))) == []
    assert jumps(beside(series().head(12))) == []


def run(model: nn.Module, batches: Callable[[int], tuple[Tensor, Tensor]], plant: Plant | None = None) -> Recording:
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    with gradlens.attach(model, optimizer=optimizer, label="run") as lens:
        for step in range(STEPS):
            x, y = batches(step)
            if step == AT and plant is not None:
                with torch.no_grad():
                    plant(model, x)
            loss = nn.functional.cross_entropy(model(x).flatten(0, -2), y.flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            lens.step(loss=loss)
    return lens.recording


def judged(recording: Recording) -> dict[str, Finding]:
    return {finding.code: finding for finding in ANALYSIS.judge(ANALYSIS.compute([recording]))}


def amplify(model: nn.Module, x: Tensor) -> None:
    model.blocks[1].ffn.w2.weight.mul_(30)


def kill(model: nn.Module, x: Tensor) -> None:
    for parameter in model.blocks[1].parameters():
        parameter.requires_grad_(False)


def poison(model: nn.Module, x: Tensor) -> None:
    x[0] = math.nan


@pytest.mark.parametrize("arrangement", ["pre-ln", "post-ln"])
def test_a_block_that_begins_to_amplify_is_named_with_its_step_and_its_pass(arrangement: str) -> None:
    torch.manual_seed(0)
    recording = run(transformer(arrangement), sequences(), amplify)
    found = judged(recording)["GL309"]
    assert found.status in ("warn", "fail")
    assert (found.sites[0], found.onset, found.born) == ("blocks.1", AT, "forward")
    (cause, *_) = compare([recording]).causes
    assert cause.finding.code == "GL309"


def test_a_block_that_dies_is_named_with_its_step() -> None:
    found = judged(run(transformer(), sequences(), kill))["GL310"]
    assert (found.status, found.sites, found.onset) == ("fail", ("blocks.1",), AT)


@pytest.mark.parametrize(("model", "batches"), [(mlp, points), (cnn, images)])
def test_the_first_value_that_is_no_number_is_the_cause_of_all_that_follows(model, batches) -> None:
    recording = run(model(), batches(), poison)
    found = judged(recording)["GL307"]
    assert (found.status, found.onset, found.born) == ("fail", AT, "forward")
    causes = compare([recording]).causes
    assert causes[0].finding.code == "GL307"
    assert "GL301" in [one.code for one in causes[0].symptoms]


@pytest.mark.parametrize(
    ("model", "batches"),
    [(transformer, sequences), (mlp, points), (cnn, images), (lambda: transformer("rezero"), sequences)],
)
def test_of_healthy_runs_nothing_is_said(model, batches) -> None:
    torch.manual_seed(1)
    assert {f.status for f in judged(run(model(), batches())).values()} <= {"pass", "not applicable"}


def test_recordings_of_an_earlier_gradlens_and_of_one_step_are_not_judged() -> None:
    early = Recording.from_tables(
        {"label": "a", "kind": "attached"}, steps=pd.DataFrame({"step": [0], "grad_norm": [1.0]})
    )
    assert {f.status for f in judged(early).values()} <= {"pass", "not applicable"}
    assert judged(early)["GL307"].status == "not applicable"


@pytest.mark.parametrize(
    ("scales", "status"),
    [([2.0**16 / 2**k for k in range(6)] + [2.0**11] * 54, "pass"), ([2.0 ** (20 - k) for k in range(60)], "warn")],
)
def test_a_scaler_that_looks_for_its_factor_is_healthy_and_one_that_keeps_falling_is_not(scales, status) -> None:
    steps = pd.DataFrame({"step": range(60), "grad_norm": 1.0, "loss_scale": scales})
    found = judged(Recording.from_tables({"label": "a", "kind": "attached"}, steps=steps))
    assert found["GL308"].status == status


def test_a_block_that_amplifies_more_and_more_is_named() -> None:
    def grow(model: nn.Module, x: Tensor) -> None:
        def one(block: nn.Module, args: tuple[Tensor, ...]) -> None:
            block.ffn.w2.weight.data.mul_(1.2)

        model.blocks[1].register_forward_pre_hook(one)

    torch.manual_seed(0)
    found = judged(run(transformer(), sequences(), grow))["GL309"]
    assert found.status in ("warn", "fail")
    assert found.sites[0] == "blocks.1"
    assert "more and more" in found.claim
    assert abs((found.onset or 0) - AT) <= 15


def test_what_is_infinite_or_far_beyond_has_a_level_that_can_be_written() -> None:
    values = series()
    values.loc[AT:, "blocks.3"] = np.inf
    values.loc[AT:, "blocks.5"] *= 1e290
    found = large(jumps(beside(values)), 4.0, 1e-3)
    assert [one.name for one in found] == ["blocks.5"]
    assert all(math.isfinite(one.factor) and one.factor > 0 for one in found)


@pytest.mark.parametrize(("at", "slope", "settling"), [(12, -1.0, True), (12, 1.0, False), (60, -1.0, False)])
def test_in_the_first_steps_gradients_find_their_sizes_while_the_loss_falls(
    at: int, slope: float, settling: bool
) -> None:
    values = series()
    values.loc[at:, "blocks.1"] *= 8.0
    levels = beside(values)
    (one,) = large(jumps(levels), 4.0, 1e-3)
    assert (one.name, one.step) == ("blocks.1", at)
    assert settles(levels, one, pd.Series(slope * np.arange(len(values)), values.index)) == settling


@pytest.mark.parametrize(("entries", "explains"), [(50, False), (500, True)])
def test_a_small_part_that_dies_explains_nothing_of_what_the_rest_does(entries: int, explains: bool) -> None:
    sizes = {"first.weight": 1000, "last.weight": 1000, "odd.weight": entries}
    params = [
        {"step": step, "name": name, "numel": size, "grad_norm": float(name != "odd.weight" or step < 40)}
        for step in range(60) for name, size in sizes.items()
    ]  # fmt: skip
    steps = pd.DataFrame({"step": range(60), "loss": 1.0})
    one = Recording.from_tables({"kind": "attached", "label": "run"}, steps=steps, params=pd.DataFrame(params))
    (found,) = (one for one in ANALYSIS.judge(ANALYSIS.compute([one])) if one.code == "GL310")
    assert (found.status, found.onset) == ("fail", 40)  # all of its module
    assert ("GL306" in found.explains, "GL306" in found.explains_there) == (explains, not explains)
