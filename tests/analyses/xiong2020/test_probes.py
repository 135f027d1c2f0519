"""Readings of probes against depth, the runs at predicted limits, and how far theory is off."""

import numpy as np
import pytest

from analyses.papers.prediction import predicted
from analyses.papers.xiong2020 import (
    amplification_by_depth,
    arrangements_by_depth,
    concentration,
    learning_rate_limits,
    sharpness_by_depth,
)
from analyses.papers.xiong2020.arrangements_by_depth import over_networks
from analyses.tables import pick
from gradlens.analysis import Analysis, Finding
from gradlens.recording import Recording
from tests.analyses.xiong2020.planted import amplified, at_init, at_limit, concentrated, curved

DEPTHS = (4, 8, 16, 32)


def judged(analysis: Analysis, recordings: list[Recording]) -> dict[tuple[str, str], Finding]:
    found = analysis.judge(analysis.compute(recordings))
    return {(finding.code, finding.subject): finding for finding in found}


def test_a_linear_and_a_logarithmic_amplification_are_told_apart() -> None:
    log = lambda n: float(np.log(n))  # noqa: E731
    sound = [amplified("post-ln", n, float(n)) for n in DEPTHS]
    sound += [amplified(name, n, log(n)) for name in ("pre-ln", "admin") for n in DEPTHS]
    found = judged(amplification_by_depth.ANALYSIS, sound)
    assert {finding.status for finding in found.values()} == {"pass"}
    assert found["GL612", "Post-LN"].value == pytest.approx(1.0, abs=0.02)
    assert found["GL612", "Pre-LN"].value == pytest.approx(np.log(32) / np.log(4), rel=0.02)
    swapped = [amplified("post-ln", n, log(n) ** 0.5) for n in DEPTHS] + [
        amplified("pre-ln", n, float(n)) for n in DEPTHS
    ]
    swapped += [amplified("admin", n, 2.0 * n) for n in DEPTHS]
    assert {f.status for f in judged(amplification_by_depth.ANALYSIS, swapped).values()} == {"fail"}


def test_curvature_is_held_against_twice_and_a_power_of_depth() -> None:
    """λ of Post-LN like L^1.5: 2/λ falls 22.6 times from 4 to 32 blocks; Pre-LN's like √L."""
    sound = [curved("post-ln", n, n**1.5) for n in DEPTHS] + [curved("pre-ln", n, n**0.5) for n in DEPTHS]
    found = judged(sharpness_by_depth.ANALYSIS, sound)
    assert {finding.status for finding in found.values()} == {"pass"}
    assert found["GL613", ""].value == pytest.approx(4.0, rel=0.05)  # least at 4 blocks
    assert found["GL614", "Post-LN"].value == pytest.approx(8**1.5, rel=0.05)
    alike = [curved(name, n, n**0.5) for name in ("post-ln", "pre-ln") for n in DEPTHS]
    assert {f.status for f in judged(sharpness_by_depth.ANALYSIS, alike).values()} == {"fail"}


def test_a_shallower_pair_is_held_against_the_same_power() -> None:
    found = judged(sharpness_by_depth.ANALYSIS, [curved("post-ln", n, n**1.5) for n in (4, 16)])
    assert found["GL614", "Post-LN"].status == "pass"
    assert "4.64 times from 4 to 16 blocks" in found["GL614", "Post-LN"].threshold  # 10^(ln 4 / ln 8)


def test_the_share_of_independent_entries_is_that_of_drawn_ones() -> None:
    x = np.random.default_rng(0).standard_normal((40_000, 64))
    drawn = np.mean(np.abs((x**2).sum(axis=1) / 64 - 1) > 0.25)
    assert concentration.gaussian_share(64, 0.25) == pytest.approx(drawn, abs=0.01)


@pytest.mark.parametrize(("share", "status"), [(0.05, "pass"), (0.3, "fail"), (0.125, "inconclusive")])
def test_the_last_decoder_block_s_norms_are_held_against_the_paper_s_share(share: float, status: str) -> None:
    shares = lambda block: share if block == 4 else 0.9  # noqa: E731
    finding = judged(concentration.ANALYSIS, [concentrated("pre-ln", shares, size={"width": 512})])["GL611", "Pre-LN"]
    assert finding.status == status
    assert finding.value == pytest.approx(share, rel=0.02)


def test_a_narrower_network_than_the_paper_s_is_no_failure() -> None:
    finding = judged(concentration.ANALYSIS, [concentrated("pre-ln", lambda block: 0.3)])["GL611", "Pre-LN"]
    assert finding.status == "warn"


PAIRS = [(name, optimizer) for name in ("post-ln", "pre-ln", "peri-ln") for optimizer in ("sgd", "momentum", "adam")]


def tried(right: int, by: str = "edge") -> list[Recording]:
    """Nine predictions, of which the first so many part the runs as they should."""
    return [
        at_limit(name, optimizer, factor, by=by, diverged=factor > 4 and place < right)
        for place, (name, optimizer) in enumerate(PAIRS)
        for factor in (0.5, 2, 8)
    ]


@pytest.mark.parametrize(("by", "code"), [("edge", "GL615"), ("trial", "GL619")])
@pytest.mark.parametrize(("right", "status"), [(9, "pass"), (6, "pass"), (5, "warn"), (0, "warn")])
def test_predictions_are_counted(right: int, status: str, by: str, code: str) -> None:
    found = judged(learning_rate_limits.ANALYSIS, tried(right, by))
    assert list(found) == [(code, "")]
    finding = found[code, ""]
    assert finding.status == status
    assert finding.value == pytest.approx(right / 9)
    assert f"for {right} of 9 pairs" in finding.claim


def test_each_prediction_is_judged_by_the_runs_at_its_own_multiples() -> None:
    """Mixed up, the edge's runs would spoil the trial's rate, or the trial's mend the edge's."""
    found = judged(learning_rate_limits.ANALYSIS, [*tried(3, "edge"), *tried(9, "trial")])
    edge, trial = found["GL615", ""], found["GL619", ""]
    assert (edge.value, trial.value) == (pytest.approx(3 / 9), 1.0)
    assert "by the edge of stability at initialization, for 3 of 9" in edge.claim
    assert "9 of 9 runs train below, 3 of 9 diverge above" in edge.claim
    assert "by a trial of 20 steps, for 9 of 9" in trial.claim
    assert "9 of 9 runs train below, 9 of 9 diverge above" in trial.claim


def test_a_recording_that_does_not_say_what_predicted_its_limit_is_of_the_edge() -> None:
    recordings = tried(9)
    for recording in recordings:
        del recording.meta["limit"]["by"]
    assert list(judged(learning_rate_limits.ANALYSIS, recordings)) == [("GL615", "")]


def test_a_run_that_ends_where_it_began_counts_as_diverged_and_few_pairs_decide_nothing() -> None:
    stuck = [at_limit("pre-ln", "sgd", 0.5), at_limit("pre-ln", "sgd", 8, end=1.0)]
    finding = judged(learning_rate_limits.ANALYSIS, stuck)["GL615", ""]
    assert (finding.value, finding.status) == (1.0, "inconclusive")


def test_the_table_of_limits_holds_the_prediction_and_the_losses() -> None:
    show = learning_rate_limits.ANALYSIS.show
    assert show is not None
    (rows,) = show(learning_rate_limits.compute([*tried(9, "trial"), *tried(0)])).values()
    assert list(rows.iloc[0]) == ["Post-LN", "Adam", "edge", "0.1", "0.50", "0.50", "0.50", "no"]
    assert list(rows.iloc[1]) == ["Post-LN", "Adam", "trial", "0.1", "0.50", "0.50", "diverged", "yes"]


def test_theory_gives_lemma_2_s_level_and_range() -> None:
    """1 + v for Post-LN, with dropout 1 + v/(1 − p); Pre-LN within 1 + v·l and 1 + (1 + v)·l."""
    post = predicted(at_init("post-ln", "encoder", 4))
    assert post.streams[""].iloc[1:].to_numpy() == pytest.approx(1.5)
    dropped = predicted(at_init("post-ln", "encoder", 4, size={"dropout": 0.1}))
    assert dropped.streams[""].iloc[1:].to_numpy() == pytest.approx(1 + 0.5 / 0.9)
    pre = predicted(at_init("pre-ln", "encoder", 8)).streams[""]
    blocks = np.arange(9)
    assert ((1 + 0.5 * blocks <= pre + 1e-9) & (pre <= 1 + 1.5 * blocks + 1e-9)).all()


def test_both_stacks_and_their_matrices_are_predicted() -> None:
    theory = predicted(at_init("pre-ln", "encoder-decoder", 3))
    assert set(theory.streams) == {"encoder", "decoder"}
    assert {("encoder", "ffn.w1.weight"), ("decoder", "cross_attention.value.weight")} <= set(theory.gradients)
    assert list(theory.gradients["decoder", "ffn.w2.weight"].index) == [1, 2, 3]


@pytest.mark.parametrize(
    "changes",
    [{"size": {"norm": "unheard-of"}}, {"size": {"init": "torch"}}, {"size": {"activation": "unheard-of"}},
     {"tokens": []}],
    ids=["another norm", "another initialization", "unknown activation", "tokens that were not recorded"],
)  # fmt: skip
def test_what_lies_outside_of_the_theory_is_said_and_not_predicted(changes: dict) -> None:
    recording = at_init("pre-ln", "encoder", 4, **changes)
    theory = predicted(recording)
    assert theory.outside
    assert not theory.streams
    (finding,) = judged(arrangements_by_depth.ANALYSIS, [recording]).values()
    assert finding.status == "not applicable"
    assert "1 network" in finding.claim


def as_predicted(off: float) -> list[Recording]:
    """Decoders whose streams and gradients are what theory says, but for a factor of the gradients."""
    recordings = []
    for name in ("post-ln", "pre-ln", "peri-ln", "sub-ln"):
        theory = predicted(at_init(name, "decoder", 4))
        stream, curve = theory.streams[""], theory.gradients["", "ffn.w2.weight"]
        own = at_init(
            name, "decoder", 4, noise=0.0,
            second_moment=lambda depth, q=stream: float(q[depth]),
            gradient=lambda stack, block, g=curve: off * float(g[block]),
        )  # fmt: skip
        params = own.params[own.params["name"].str.endswith("w2.weight")]
        tables = {table: own.table(table) for table in ("sites", "activations", "steps")}
        recordings.append(Recording.from_tables(own.meta, params=params, **tables))
    return recordings


def test_errors_are_those_that_were_planted() -> None:
    found = judged(arrangements_by_depth.ANALYSIS, as_predicted(1.3))
    assert found["GL618", ""].value == pytest.approx(0.3, abs=1e-6)
    assert found["GL618", ""].status == "warn"
    assert judged(arrangements_by_depth.ANALYSIS, as_predicted(1.0))["GL618", ""].value == pytest.approx(0.0, abs=1e-6)
    table = arrangements_by_depth.compute(as_predicted(1.3))
    stream = pick(table, panel="errors", group="stream")["value"]
    assert stream.to_numpy() == pytest.approx(0.0, abs=1e-6)


def test_the_interval_is_over_networks() -> None:
    """A network whose numbers all are off moves the interval, however many numbers it has."""
    alike = [np.full(50, 0.02)] * 6
    assert over_networks(alike, 0.95)[:3] == pytest.approx((0.02, 0.02, 0.02))
    one_off = [*alike, np.full(50, 0.5)]
    assert over_networks(one_off, 0.95).high == pytest.approx(0.5)
    assert over_networks(one_off, 0.95).low == pytest.approx(0.02)
    assert np.isnan(over_networks(alike[:3], 0.5).low)


def test_narrower_networks_are_not_drawn_beside_wider_ones() -> None:
    small = at_init("pre-ln", "decoder", 32, size={"width": 32, "ffn": 32})
    table = arrangements_by_depth.compute([small, at_init("pre-ln", "decoder", 4)])
    assert pick(table, panel="stream", quantity="measured")["x"].max() == 4
