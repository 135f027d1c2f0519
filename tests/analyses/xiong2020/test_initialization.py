"""Gradients and streams at initialization: planted laws are found again, and broken ones are told."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from analyses.papers.xiong2020 import gradients_by_block, last_block_by_depth, stream_growth
from analyses.tables import pick
from gradlens.analysis import Analysis, Finding
from gradlens.recording import Recording
from tests.analyses.xiong2020.planted import at_init, translated

PAIR = ("post-ln", "pre-ln")


def judged(analysis: Analysis, recordings: Sequence[Recording]) -> dict[tuple[str, str], Finding]:
    found = analysis.judge(analysis.compute(recordings))
    return {(finding.code, finding.subject): finding for finding in found}


def by_block(post: float, pre: float, encoder: float = 1.0) -> list[Recording]:
    """6-6 networks whose last gradient is so many times the first one."""
    last = {"post-ln": post, "pre-ln": pre}

    def grown(name: str) -> Callable[[str, int], float]:
        return lambda stack, block: (last[name] if stack == "decoder" else encoder) ** ((block - 1) / 5)

    return [at_init(name, "encoder-decoder", blocks, gradient=grown(name)) for name in PAIR for blocks in (6, 10)]


def test_the_paper_s_profile_is_reproduced_and_measured_on_the_shallowest_network() -> None:
    found = judged(gradients_by_block.ANALYSIS, by_block(8.0, 0.7))
    assert {finding.status for finding in found.values()} == {"pass"}
    assert found["GL605", "Post-LN decoder"].value == pytest.approx(8.0, rel=0.02)
    assert found["GL605", "Pre-LN decoder"].value == pytest.approx(0.7, rel=0.02)


def test_another_profile_is_not() -> None:
    found = judged(gradients_by_block.ANALYSIS, by_block(1.0, 3.0, 6.0))
    assert {finding.status for finding in found.values()} == {"fail"}


def test_an_interval_over_the_threshold_never_fails() -> None:
    found = judged(gradients_by_block.ANALYSIS, by_block(5.0, 1.0, 1.4))
    assert {finding.status for finding in found.values()} == {"inconclusive"}


@pytest.mark.parametrize(("after", "status"), [(0.1, "pass"), (0.9, "fail"), (0.5, "inconclusive")])
def test_the_gradient_after_the_warm_up_is_over_that_of_the_first_step(after: float, status: str) -> None:
    """Recorded every fifth step: of those from the warm-up's last one on, five count."""
    gradient = lambda step, block: 2.0 if step < 20 else 2.0 * after if step <= 40 else 100.0  # noqa: E731
    runs = [translated("post-ln", 20, seed, gradient=gradient) for seed in (0, 1, 2)]
    ((_, finding),) = judged(gradients_by_block.ANALYSIS, runs).items()
    if status != "inconclusive":
        assert finding.value == pytest.approx(after, rel=0.01)
        assert finding.status == status


def test_only_post_ln_runs_with_adam_and_the_whole_warm_up_tell_of_it() -> None:
    others = [translated("pre-ln", 20), translated("post-ln", 5), translated("post-ln", 20, optimizer="sgd")]
    assert gradients_by_block.compute(others).empty


def by_depth(kind: str, post: float, pre: float, depths: Sequence[int] = (4, 8, 16, 32)) -> list[Recording]:
    """Networks whose gradients all are a power of their number of blocks."""
    powers = {"post-ln": post, "pre-ln": pre}
    return [
        at_init(name, kind, blocks, gradient=lambda stack, block, n=blocks, p=powers[name]: n**p)
        for name in PAIR
        for blocks in depths
    ]


@pytest.mark.parametrize("kind", ["encoder", "encoder-decoder"])
def test_powers_of_depth_are_found_again(kind: str) -> None:
    found = judged(last_block_by_depth.ANALYSIS, by_depth(kind, 0.02, -0.5))
    assert found["GL607", f"Post-LN, {kind}"].value == pytest.approx(0.02, abs=0.01)
    assert found["GL607", f"Pre-LN, {kind}"].value == pytest.approx(-0.5, abs=0.01)
    assert {finding.status for (code, _), finding in found.items() if code == "GL607"} == {"pass"}


def test_other_powers_fail() -> None:
    found = judged(last_block_by_depth.ANALYSIS, by_depth("encoder", -0.5, 0.0))
    assert {finding.status for (code, _), finding in found.items() if code == "GL607"} == {"fail"}


def test_pre_ln_over_post_ln_is_the_root_of_the_streams_ratio() -> None:
    """The planted law is 2/√q, with q = 1.5 and 1 + L; twice the gradient of one of the two breaks it."""
    recordings = [at_init(name, "encoder", blocks) for name in PAIR for blocks in (4, 16)]
    finding = judged(last_block_by_depth.ANALYSIS, recordings)["GL608", "encoder"]
    assert finding.status == "pass"
    assert finding.value == pytest.approx(1.0, abs=0.02)
    table = last_block_by_depth.compute(recordings)
    law = pick(table, panel="ratio", quantity="law").set_index("x")["value"]
    assert law[16.0] == pytest.approx(np.sqrt(1.5 / 17), rel=0.01)
    broken = [
        *recordings[:2],
        *(at_init("pre-ln", "encoder", n, gradient=lambda s, b: 4 / np.sqrt(1 + b)) for n in (4, 16)),
    ]
    assert judged(last_block_by_depth.ANALYSIS, broken)["GL608", "encoder"].status == "fail"


def test_lemma_2_holds_for_streams_within_its_range_and_fails_beyond() -> None:
    sound = judged(stream_growth.ANALYSIS, [at_init(name, "encoder", n) for name in PAIR for n in (4, 8)])
    assert {finding.status for finding in sound.values()} == {"pass"}
    assert sound["GL609", "Post-LN"].expected == pytest.approx(1.5)
    fast = [
        at_init("pre-ln", "encoder", 8, second_moment=lambda depth: 1.0 + 2.0 * depth),
        at_init("post-ln", "encoder", 8, second_moment=lambda depth: 2.0),
    ]
    found = judged(stream_growth.ANALYSIS, fast)
    assert found["GL609", "Pre-LN"].status == "fail"
    assert found["GL609", "Pre-LN"].value == pytest.approx((1 + 16) / (1 + 12), rel=0.02)  # over (1 + 3l/2) at l = 8
    assert found["GL609", "Post-LN"].status == "fail"


def test_a_constant_that_drifts_is_told() -> None:
    drifting = at_init("pre-ln", "encoder", 8, gradient=lambda stack, block: block / np.sqrt(1 + block))
    finding = judged(stream_growth.ANALYSIS, [drifting])["GL610", "Pre-LN"]
    blocks = np.arange(1, 9)
    assert finding.status == "warn"
    assert finding.value == pytest.approx(np.std(blocks, ddof=1) / np.mean(blocks), rel=0.02)


def test_one_seed_is_inconclusive() -> None:
    recordings = [at_init(name, "encoder", n, seeds=1) for name in PAIR for n in (4, 8)]
    for analysis in (last_block_by_depth.ANALYSIS, stream_growth.ANALYSIS):
        assert {finding.status for finding in judged(analysis, recordings).values()} == {"inconclusive"}
