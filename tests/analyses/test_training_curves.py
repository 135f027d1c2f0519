"""``training_curves`` finds what was planted."""

from typing import Any

import numpy as np
import pytest

from analyses.training_curves import ANALYSIS
from gradlens.analysis import Finding, compare
from gradlens.recording import Recording
from tests.analyses.planted import training

STEPS = 100
FALLING = np.linspace(3.0, 1.5, STEPS)


def judged(*recordings: Recording) -> dict[str, Finding]:
    return {finding.code: finding for finding in ANALYSIS.judge(ANALYSIS.compute(recordings))}


def pair(factor: float, noise: float = 0.001, **without: Any) -> dict[str, Finding]:
    """Judge a run with warm-up and one without whose loss is a multiple of it."""
    wobble = 1 + noise * np.random.default_rng(0).standard_normal(STEPS)
    first = training(FALLING, variant="post-ln")
    second = training(FALLING * factor * wobble, variant="post-ln", schedule="no warm-up", **without)
    return judged(first, second)


def test_a_run_that_came_to_its_end_passes() -> None:
    assert judged(training(FALLING))["GL301"].status == "pass"


@pytest.mark.parametrize("broken", [np.inf, np.nan])
def test_a_run_that_diverged_fails_at_the_step_it_did(broken: float) -> None:
    found = judged(training([*FALLING[:30], broken], status="diverged"))
    assert found["GL301"].status == "fail"
    assert found["GL301"].steps == (30,)


def test_a_run_stopped_above_chance_fails_without_a_broken_step() -> None:
    found = judged(training([50.0] * 30, status="diverged"))
    assert found["GL301"].status == "fail"
    assert found["GL301"].steps == ()


def test_a_run_that_diverged_between_recorded_steps_fails_at_the_step_the_trainer_says() -> None:
    finding = judged(training(FALLING[:30], status="diverged", diverged_at=37))["GL301"]
    assert finding.status == "fail"
    assert finding.steps == (37,)
    assert "step 37" in finding.claim


@pytest.mark.parametrize(
    ("variant", "advised"),
    [
        ("post-ln", True),
        ("my-net", True),
        ("pre-ln", False),
        ("plain", False),
        ("norm-free", False),
        ("deepnorm/rmsnorm", False),
    ],
)
def test_pre_ln_is_advised_where_it_would_be_news(variant: str, advised: bool) -> None:
    finding = judged(training([50.0] * 30, status="diverged", variant=variant, placement="post_add"))["GL301"]
    assert any("Pre-LN" in remedy for remedy in finding.remedies) == advised


def test_pre_ln_is_not_advised_to_a_model_whose_norms_all_begin_a_branch() -> None:
    for code in ("GL301", "GL305"):
        finding = judged(training([50.0] * 30, status="diverged", variant="my-net", balance=1000.0))[code]
        assert not any("Pre-LN" in remedy for remedy in finding.remedies)


@pytest.mark.parametrize(
    ("warmed", "known"),
    [
        (True, {"schedule": "warm-up"}),
        (True, {"schedule": None, "label": "mine, warm-up"}),
        (True, {"schedule": None, "training": {"warmup": 10}}),
        (False, {"schedule": None, "label": "mine, no warm-up"}),
        (False, {"schedule": "no warm-up"}),
    ],
)
def test_a_warm_up_is_advised_where_there_was_none(warmed: bool, known: dict[str, Any]) -> None:
    remedies = judged(training(FALLING, balance=1000.0, **known | {"training": known.get("training")}))[
        "GL305"
    ].remedies
    assert ("Lower the learning rate, or warm up for longer." in remedies) == warmed
    assert ("Warm up, or lower the learning rate." in remedies) != warmed


def test_a_loss_that_was_not_passed_is_no_divergence() -> None:
    loss = [value if step % 5 == 0 else np.nan for step, value in enumerate(FALLING)]
    assert judged(training(loss))["GL301"].status == "pass"


def test_a_missing_loss_beside_a_broken_gradient_is_one() -> None:
    loss = [*FALLING[:40], np.nan, *FALLING[41:]]
    found = judged(training(loss, nonfinite={40: 7}))
    assert found["GL301"].status == "fail"
    assert found["GL301"].steps == (40,)


def test_an_interrupted_run_is_inconclusive_and_is_not_told_to_warm_up() -> None:
    found = judged(training(FALLING, status="interrupted"))["GL301"]
    assert found.status == "inconclusive"
    assert found.remedies == ("Resume the run.",)


def test_a_loss_that_nobody_passed_is_not_called_finite() -> None:
    found = judged(training([np.nan] * 40))["GL301"]
    assert found.status == "pass"
    assert "a finite gradient in all 40 recorded steps; no finite loss was recorded" in found.claim


def test_without_loss_and_gradient_nothing_is_known_of_the_end() -> None:
    found = judged(training([np.nan] * 40, grad_norm=[np.nan] * 40))["GL301"]
    assert found.status == "inconclusive"
    assert "neither its loss nor its gradient was recorded" in found.claim


def test_a_run_whose_loss_was_never_seen_fails_by_its_gradient() -> None:
    found = judged(training([np.nan] * 40, nonfinite=dict.fromkeys(range(20, 40), 7)))["GL301"]
    assert found.status == "fail"
    assert "its gradient is not finite at step 20 and after; no finite loss was recorded" in found.claim
    assert found.remedies[0].startswith("Look at batch and loss of that step")


def test_a_loss_that_is_nan_is_said_to_be_so_from_its_step_on() -> None:
    found = judged(training([*FALLING[:30], *[np.nan] * 10], nan_from=30))["GL301"]
    assert found.status == "fail"
    assert found.steps == (30,)
    assert "its loss is NaN at step 30 and after" in found.claim
    assert "no finite loss was recorded" not in found.claim


def test_a_loss_that_is_nan_from_the_start_is_none_that_nobody_passed() -> None:
    found = judged(training([np.nan] * 40, nan_from=0))["GL301"]
    assert found.status == "fail"
    assert "its loss is NaN at step 0 and after" in found.claim


def test_single_steps_that_a_loss_scaler_skips_are_no_divergence() -> None:
    found = judged(training([np.nan] * 40, nonfinite={0: 7, 1: 7}))["GL301"]
    assert found.status == "warn"
    assert "not finite in 2 of 40 recorded steps" in found.claim


def test_a_learning_rate_is_blamed_where_the_gradient_grew_before_the_break() -> None:
    gradient = [1.0] * 25 + [3.0, 9.0, 27.0, 81.0, 1.0]
    found = judged(training([*FALLING[:29], np.nan], grad_norm=gradient, status="diverged"))["GL301"]
    assert any("learning rate" in remedy for remedy in found.remedies[:1])


@pytest.mark.parametrize(("factor", "status"), [(1.10, "warn"), (1.0, "pass"), (0.9, "pass")])
def test_the_gain_of_the_warm_up_is_the_relative_loss_at_the_end(factor: float, status: str) -> None:
    found = pair(factor)
    assert found["GL302"].status == status
    assert found["GL302"].value == pytest.approx(factor - 1, abs=0.002)


@pytest.mark.parametrize(("factor", "words"), [(0.94, "trains better"), (1.0, "trains as well"), (1.1, "needs")])
def test_what_a_warm_up_is_worth_is_said_by_the_sign_of_the_gain(factor: float, words: str) -> None:
    assert f"post-ln: {words}" in pair(factor)["GL302"].claim


def test_a_gain_within_noise_of_the_limit_is_inconclusive() -> None:
    assert pair(1.02, noise=0.05)["GL302"].status == "inconclusive"


def test_runs_that_differ_in_more_than_the_warm_up_are_no_pair() -> None:
    assert "GL302" not in pair(1.1, training={"lr": 5e-3, "warmup": 0})
    assert "GL302" not in pair(1.1, seeds=[1])


def test_a_pair_that_diverged_has_no_gain() -> None:
    found = pair(1.1, status="diverged")
    assert found["GL302"].status == "inconclusive"
    assert found["GL302"].value is None


def test_several_seeds_give_an_interval_over_pairs() -> None:
    runs = []
    for seed, factor in enumerate((1.08, 1.10, 1.12)):
        runs.append(training(FALLING, variant="post-ln", seeds=[seed], label=f"with {seed}"))
        lost = {"schedule": "no warm-up", "seeds": [seed], "label": f"without {seed}"}
        runs.append(training(FALLING * factor, variant="post-ln", **lost))
    gain = judged(*runs)["GL302"]
    assert gain.value == pytest.approx(0.10)
    assert gain.low == pytest.approx(0.10 - 4.303 * 0.02 / np.sqrt(3), abs=1e-4)
    assert "3 pairs of runs" in gain.claim


@pytest.mark.parametrize(("planted", "status"), [([70], "pass"), ([50, 70, 90], "warn"), ([], "pass")])
def test_spikes_are_found_where_they_are(planted: list[int], status: str) -> None:
    gradient, loss = np.ones(STEPS), FALLING.copy()
    gradient[planted], loss[[step + 1 for step in planted]] = 20.0, 9.0
    found = judged(training(loss, grad_norm=gradient))
    assert found["GL303"].status == status
    assert found["GL303"].onset == (50 if status == "warn" else None)
    assert found["GL303"].steps == tuple(planted)
    assert found["GL303"].value == pytest.approx(20.0 if planted else 1.0)


def test_what_the_loss_does_not_follow_is_no_spike() -> None:
    gradient = np.ones(STEPS)
    gradient[[50, 70, 90]] = 20.0
    found = judged(training(FALLING, grad_norm=gradient))["GL303"]
    assert (found.status, found.steps) == ("pass", ())
    assert "in 3 steps over 5 times, which the loss does not follow" in found.claim


def test_a_converged_loss_stands_out_of_nothing() -> None:
    gradient = np.ones(STEPS)
    gradient[[50, 70, 90]] = 20.0
    loss = np.where(np.arange(STEPS) < 10, 2.0, 1e-4)
    loss[[50, 70, 90]] = 1e-3  # ten times the usual, and a thousandth of what was gained
    assert judged(training(loss, grad_norm=gradient))["GL303"].status == "pass"


def test_the_first_fall_of_the_gradient_is_no_spike() -> None:
    gradient = np.concatenate([np.linspace(50, 1, 15), np.ones(85)])
    assert judged(training(FALLING, grad_norm=gradient))["GL303"].steps == ()


UNIGRAM = 4.0 * np.log(2)


@pytest.mark.parametrize(
    ("share", "words"), [(1.0, "nothing but how often each token"), (1.2, "not even learned how often")]
)
def test_a_run_above_the_frequencies_has_not_even_learned_these(share: float, words: str) -> None:
    assert words in judged(training([share * UNIGRAM] * STEPS))["GL304"].claim


def test_a_diverged_run_is_not_asked_what_it_learned() -> None:
    found = judged(training([3.0] * 20 + [1e10, 4e12], status="diverged"))["GL304"]
    assert found.status == "not applicable"
    assert "diverged" in found.claim


def test_of_a_short_recording_the_end_is_no_more_than_its_last_half() -> None:
    claim = judged(training([9.0] * 5 + [3.0] * 5))["GL304"].claim
    assert "over steps 5 to 9 the loss is 3.00" in claim


@pytest.mark.parametrize(("share", "status"), [(1.0, "fail"), (0.97, "warn"), (0.7, "pass")])
def test_a_run_that_knows_only_frequencies_fails(share: float, status: str) -> None:
    found = judged(training([share * UNIGRAM] * STEPS))
    assert found["GL304"].status == status
    assert found["GL304"].value == pytest.approx(share)


def test_without_a_known_frequency_loss_nothing_is_said() -> None:
    assert "GL304" not in judged(training(FALLING, task={"unit": "nats"}))


@pytest.mark.parametrize(
    ("balance", "status"), [(1.0, "pass"), (4.0, "pass"), (20.0, "fail"), (1 / 20.0, "fail"), (1e-3, "fail")]
)
def test_the_balance_of_the_gradient_is_judged_by_its_factor_a_block(balance: float, status: str) -> None:
    found = judged(training(FALLING, balance=balance))
    assert found["GL305"].status == status
    assert found["GL305"].value == pytest.approx(balance ** (1 / 3))
    assert found["GL305"].details["last/first"] == pytest.approx(balance)


def test_a_caption_tells_only_of_what_is_drawn() -> None:
    caption = ANALYSIS.caption
    assert caption is not None
    one = caption(ANALYSIS.compute([training(FALLING[:30])]))
    for absent in ("Left with", "Hollow", "running mean", "Crosses"):
        assert absent not in one
    assert "Dotted, the loss of a model that knows only" in one
    both = caption(ANALYSIS.compute([training(FALLING), training(FALLING, schedule="no warm-up")]))
    assert both.startswith("Left with, right without warm-up")
    assert "running mean" in both


def test_a_run_without_a_finite_number_has_no_figure() -> None:
    broken = training([np.nan] * 20, nonfinite=dict.fromkeys(range(20), 1))
    assert not compare([broken], [ANALYSIS]).sections[0].drawn


def test_what_follows_a_broken_loss_is_not_drawn() -> None:
    table = ANALYSIS.compute([training([2.0, 2.0, np.inf, np.inf], grad_norm=[1, 1, 1e18, 0], status="diverged")])
    drawn = table[table["panel"].isin(["loss", "gradient norm", "gradient ratio"])]
    assert drawn["x"].max() == 1
