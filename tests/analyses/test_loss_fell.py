"""GL306: whether the loss fell and stayed down, on losses that were made up."""

import numpy as np
import pandas as pd
import pytest

from analyses.training_curves import ANALYSIS
from gradlens.analysis import Finding
from gradlens.recording import Recording

STEPS = 120
RNG = np.random.default_rng(0)
NOISE = RNG.standard_normal(STEPS)
TIME = np.arange(STEPS) / STEPS
FALLING = 1.0 + 2.0 * np.exp(-5.0 * TIME)
LOSSES: dict[str, tuple[str, np.ndarray]] = {
    "falls": ("pass", FALLING),
    "falls in noise": ("pass", FALLING + 0.3 * NOISE),
    "falls in one step": ("pass", np.r_[5.0, 1.0 + 0.1 * NOISE[1:]]),
    "falls slowly in noise": ("pass", 3.0 - 2.0 * TIME + 0.6 * NOISE),
    "falls without end": ("pass", -np.exp(5.0 * TIME)),
    "converges to 0": ("pass", np.r_[2.0, 1.0, 0.3, np.abs(1e-6 * NOISE[3:])]),
    "converges to noise": ("pass", np.r_[5.0, 3.0, 2.0, 1.0 + 0.2 * NOISE[3:]]),
    "crosses 0": ("pass", FALLING - 2.0),
    "has a spike": ("pass", np.where(np.arange(STEPS) == 60, 1e21, FALLING)),
    "is short": ("pass", FALLING[::8]),
    "rises from the start": ("fail", 1.0 + TIME),
    "jumps at once": ("fail", np.r_[2.3, 50.0 * np.exp(NOISE[1:])]),
    "explodes and stays finite": ("fail", np.r_[FALLING[:60], 1.3 * 2.2 ** np.arange(60)]),
    "rises in few steps": ("fail", 1.0 + TIME[::12]),
    "never falls": ("warn", 1.0 + 0.1 * NOISE),
    "is constant": ("warn", np.full(STEPS, 3.3271)),
    "gives most back": ("warn", np.r_[np.linspace(3, 1, 60), np.linspace(1, 2.6, 20), np.full(40, 2.6)]),
    "gives all back": ("warn", np.r_[np.linspace(3, 1, 60), np.linspace(1, 3, 20), 3 + 0.05 * NOISE[:40]]),
    "gives little back": ("pass", np.r_[np.linspace(3, 1, 60), np.linspace(1, 1.4, 20), np.full(40, 1.4)]),
    "never falls, in few steps": ("inconclusive", 1.0 + 0.1 * NOISE[:40]),
    "has five steps": ("inconclusive", FALLING[:5]),
    "has one step": ("not applicable", FALLING[:1]),
    "was not passed": ("not applicable", np.full(STEPS, np.nan)),
}


def judged(loss: np.ndarray, begin: int = 0) -> Finding:
    steps = pd.DataFrame({"step": range(begin, begin + len(loss)), "loss": loss, "nan_loss": False})
    if np.isfinite(loss).any():
        steps["nan_loss"] = np.isnan(loss)
    run = Recording.from_tables({"kind": "training", "label": "run", "status": "complete"}, steps=steps)
    found = ANALYSIS.judge(ANALYSIS.compute([run]))
    return next(finding for finding in found if finding.code == "GL306")


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_judged_by_where_it_ends(name: str) -> None:
    status, loss = LOSSES[name]
    assert judged(loss).status == status


@pytest.mark.parametrize("name", ["falls in noise", "explodes and stays finite", "never falls", "gives most back"])
@pytest.mark.parametrize(("times", "plus"), [(1e-6, 0.0), (1e6, 0.0), (1.0, 1000.0), (1.0, -1000.0)])
def test_unit_and_zero_of_the_loss_play_no_part(name: str, times: float, plus: float) -> None:
    loss = LOSSES[name][1]
    one, other = judged(loss), judged(times * loss + plus)
    assert (one.status, one.steps) == (other.status, other.steps)
    for mine, theirs in ((one.value, other.value), (one.low, other.low), (one.high, other.high)):
        assert mine is not None
        assert theirs == pytest.approx(times * mine, rel=1e-6, abs=1e-9 * times)
    back, again = (finding.details["given back"] for finding in (one, other))
    assert (back or 0.0) == pytest.approx(again or 0.0, rel=1e-6)


def test_the_step_from_which_on_it_rose_is_named_with_the_amount() -> None:
    found = judged(LOSSES["explodes and stays finite"][1])
    assert found.steps[0] in range(55, 65)
    assert f"has risen since step {found.steps[0]}" in found.claim
    end = LOSSES["explodes and stays finite"][1][-24:].mean()
    assert found.value == pytest.approx(end, rel=1e-6)


def test_the_share_that_was_given_back_is_that_of_the_best_fall() -> None:
    found = judged(LOSSES["gives most back"][1])
    assert found.details["given back"] == pytest.approx(1.6 / 2.0, abs=0.08)


def test_what_is_nan_from_a_step_on_is_left_to_the_finding_on_broken_losses() -> None:
    loss = np.r_[FALLING[:60], np.full(20, np.nan)]
    found = judged(loss)
    assert found.status == "not applicable"
    assert "no number from step 60 on (GL301)" in found.claim


def test_a_recording_that_begins_late_may_show_what_had_learned_before() -> None:
    found = judged(LOSSES["never falls"][1], begin=500)
    assert found.status == "inconclusive"
    assert "begins late" in found.claim


def test_flat_noise_is_seldom_taken_for_a_rise_or_a_fall() -> None:
    verdicts = [judged(1.0 + np.random.default_rng(seed).standard_normal(100)).status for seed in range(12)]
    assert verdicts.count("warn") >= 10
    assert "fail" not in verdicts
