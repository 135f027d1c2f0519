"""``depth_profile`` finds what was planted."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from analyses.depth_profile import ANALYSIS
from analyses.depth_profile.theory import DepthTheory, variation
from gradlens.analysis import Finding
from gradlens.lab.models import ARRANGEMENTS
from gradlens.recording import Recording
from gradlens.theory import xiong2020
from tests.analyses.planted import at_init, model

#: The arrangements there were when recordings had but their names.
OLD = ("pre-ln", "post-ln", "peri-ln", "sub-ln", "layernorm-scaling", "mix-ln", "deepnorm", "admin", "b2t", "rezero",
       "norm-free")  # fmt: skip


def judged(recording: Recording) -> dict[str, Finding]:
    return {finding.code: finding for finding in ANALYSIS.judge(ANALYSIS.compute([recording]))}


def law(block: int) -> float:
    return 3.0 / np.sqrt(1.0 + block)


def test_a_stack_that_follows_the_law_passes_all_three() -> None:
    found = judged(at_init("pre-ln", gradient=law))
    assert {found[code].status for code in ("GL101", "GL102", "GL103")} == {"pass"}
    factor = np.sqrt(2 / 5) ** (1 / 3)
    assert found["GL101"].value == pytest.approx(factor, rel=0.01)
    assert found["GL101"].expected == pytest.approx(factor, rel=0.01)
    assert found["GL102"].value == pytest.approx(1.0, rel=0.05)
    assert found["GL103"].value == pytest.approx(0.0, abs=0.01)


@pytest.mark.parametrize(
    ("factor", "status"),
    [(0.4, "fail"), (0.6, "warn"), (0.85, "pass"), (1.2, "pass"), (1.5, "warn"), (2.5, "fail")],
)
def test_the_gradient_is_judged_by_its_factor_a_block(factor: float, status: str) -> None:
    found = judged(at_init("pre-ln", gradient=lambda block: factor**block))
    assert found["GL101"].status == status
    assert found["GL101"].value == pytest.approx(factor, rel=0.02)
    assert found["GL101"].details["last/first ffn.w2"] == pytest.approx(factor**3, rel=0.05)


@pytest.mark.parametrize("factor", [1 / 0.75, 2.0])
def test_noise_around_a_limit_never_decides_beyond_it(factor: float) -> None:
    found = judged(at_init("pre-ln", gradient=lambda block: factor**block, noise=0.4, seeds=5))
    assert found["GL101"].low is not None
    assert found["GL101"].low < factor < (found["GL101"].high or 0)
    assert found["GL101"].status == ("inconclusive" if factor < 2 else "warn")


def test_a_gradient_of_zero_in_every_block_has_no_change_over_depth() -> None:
    finding = judged(at_init("pre-ln", gradient=lambda block: 0.0, variant="rezero"))["GL101"]
    assert finding.status == "not applicable"
    assert "ReZero's factor on each branch is 0" in finding.claim


def test_a_block_that_nothing_flows_back_to_is_found() -> None:
    finding = judged(at_init("pre-ln", gradient=lambda block: float(block > 1)))["GL101"]
    assert finding.status == "warn"
    assert "0 in 1 of 4 blocks" in finding.claim


@pytest.mark.parametrize("variant", ["post-ln", "post-ln/rmsnorm", "b2t", "my-net"])
def test_another_arrangement_is_advised_where_it_is_news(variant: str) -> None:
    net = at_init("post-ln", gradient=lambda block: 3.0**block, variant=variant, model={})
    remedies = judged(net)["GL101"].remedies
    assert any("Pre-LN" in remedy for remedy in remedies)
    assert any("DeepNorm, Admin" in remedy for remedy in remedies)


@pytest.mark.parametrize("variant", [name for name in OLD if name not in ("post-ln", "b2t")] + ["plain"])
def test_it_is_not_advised_where_the_skip_is_the_identity_or_scaled(variant: str) -> None:
    remedies = judged(at_init("pre-ln", gradient=lambda block: 3.0**block, variant=variant))["GL101"].remedies
    assert remedies == ("Warm the learning rate up.",)


@pytest.mark.parametrize("variant", OLD)
def test_a_recording_from_before_models_said_what_their_arrangement_is_is_judged_as_those_that_do(variant: str) -> None:
    said = {
        "skip_is_sound": ARRANGEMENTS[variant].skip_is_sound,
        "theory": ARRANGEMENTS[variant].theory,
        "norm_theory": "layernorm",
    }
    old, new = (
        judged(at_init("post-ln", gradient=lambda b: 3.0**b, variant=variant, model=model(variant, **more)))
        for more in ({}, said)
    )
    assert old == new


def test_one_seed_is_inconclusive() -> None:
    found = judged(at_init("pre-ln", gradient=lambda block: 5.0**block, seeds=1))
    assert {found[code].status for code in ("GL101", "GL102", "GL103")} == {"inconclusive"}


@pytest.mark.parametrize(
    ("second_moment", "status"),
    [(lambda depth: 1 + 0.5 * depth, "pass"), (lambda depth: 1 + 1.5 * depth, "pass"),
     (lambda depth: 1 + 0.3 * depth, "warn"), (lambda depth: 1 + 3.0 * depth, "warn")],
)  # fmt: skip
def test_a_pre_ln_stream_is_held_against_lemma_2(second_moment: Callable[[int], float], status: str) -> None:
    found = judged(at_init("pre-ln", second_moment=second_moment, noise=0.001))
    assert found["GL102"].status == status
    assert found["GL102"].expected == "0.50 to 1.50"


@pytest.mark.parametrize(("level", "status"), [(1.5, "pass"), (1.0, "warn"), (2.0, "warn")])
def test_a_post_ln_stream_is_held_against_lemma_2(level: float, status: str) -> None:
    found = judged(at_init("post-ln", second_moment=lambda depth: level))
    assert found["GL102"].status == status
    assert found["GL102"].value == pytest.approx(level, rel=0.03)


def test_a_constant_that_varies_is_told_with_its_spread() -> None:
    planted = [1.0, 2.0, 1.0, 2.0]
    found = judged(at_init("post-ln", second_moment=lambda depth: 1.5, gradient=lambda block: planted[block - 1]))
    assert found["GL103"].status == "warn"
    assert found["GL103"].value == pytest.approx(np.std(planted, ddof=1) / np.mean(planted), rel=0.05)


def test_what_a_seed_s_loss_scales_is_no_variation_over_depth() -> None:
    profile = np.array([1.0, 1.1, 0.9])
    assert variation(np.outer([1.0, 10.0, 100.0], profile)) == pytest.approx(profile.std(ddof=1))


def test_the_drawn_law_is_c_over_the_root_of_q_with_one_constant() -> None:
    table = ANALYSIS.compute([at_init("pre-ln", gradient=law, noise=0.0)])
    curve = table[table["quantity"] == "law"].sort_values("x")
    assert curve["value"].tolist() == pytest.approx([law(block) for block in range(1, 5)])


def test_the_drawn_lemma_is_the_theory_s_range_of_the_rms() -> None:
    table = ANALYSIS.compute([at_init("pre-ln")])
    drawn = table[(table["quantity"] == "lemma 2") & (table["panel"] == "stream")].sort_values("x")
    low, high = xiong2020.stream_second_moment_pre(4, 1.0)
    np.testing.assert_allclose(drawn[["low", "high"]], np.sqrt(np.stack([low, high], axis=1)))


def test_a_stack_with_cross_attention_gets_lemma_2_but_not_the_law() -> None:
    meta = {"model": model("pre-ln", kind="encoder-decoder")}
    recording = at_init("pre-ln", stacks=("encoder.blocks", "decoder.blocks"), gradient=law, **meta)
    found = ANALYSIS.judge(ANALYSIS.compute([recording]))
    by_stack = {finding.claim.split("(")[1].split(")")[0] for finding in found if finding.code == "GL103"}
    assert by_stack == {"encoder.blocks"}
    expected = [finding.expected for finding in found if finding.code == "GL102"]
    assert expected == ["0.50 to 1.50", "0.50 to 2.50"]


@pytest.mark.parametrize("change", [{"activation": "gelu"}, {"norm": "none"}, {"family": "GPT2Model"}])
def test_theory_is_silent_where_its_assumptions_fail(change: dict[str, str]) -> None:
    found = judged(at_init("pre-ln", model=model("pre-ln", **change)))
    assert found["GL102"].status == "not applicable"
    assert "GL103" not in found
    assert not DepthTheory(model("pre-ln", **change)).applies


def test_a_model_without_w2_is_judged_by_its_whole_blocks() -> None:
    recording = at_init("pre-ln", groups=("attn.c_attn", "mlp.c_proj"), gradient=lambda block: 1.6**block)
    found = judged(recording)
    assert found["GL101"].status == "warn"
    assert "whole block" in found["GL101"].claim
    assert "GL103" not in found


def test_intervals_narrow_with_seeds() -> None:
    def width(seeds: int) -> float:
        table = ANALYSIS.compute([at_init("pre-ln", seeds=seeds, noise=0.1)])
        row: pd.Series = table[(table["panel"] == "gradient") & (table["x"] == 2)].iloc[0]
        return float(row["high"] - row["low"])

    assert width(40) < 0.6 * width(6)


def test_recordings_of_training_are_left_out() -> None:
    assert ANALYSIS.compute([at_init("pre-ln", kind="training")]).empty
