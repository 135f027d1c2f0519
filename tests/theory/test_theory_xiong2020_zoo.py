"""Xiong et al. 2020 on the zoo's own models: lemmas, Theorem 1, and where exact computation says other things."""

import numpy as np
import pytest
import torch

from gradlens.theory import xiong2020 as theory
from tests.theory.measured import Table, measure, network

DEPTHS, SEEDS = (4, 8, 16), 10
W2 = "ffn.w2.weight"


def encoder(arrangement: str, blocks: int) -> dict[str, np.ndarray]:
    return measure(network(arrangement, "encoder", blocks), SEEDS).mean[""]


def test_lemma_1_to_half_a_percent() -> None:
    x = torch.randn(20_000, 256, generator=torch.Generator().manual_seed(0))
    simulated = float(x.relu().square().sum(-1).mean())
    assert simulated == pytest.approx(theory.relu_second_moment(256), rel=0.005)


@pytest.mark.parametrize("blocks", DEPTHS)
def test_lemma_2_of_post_ln(blocks: int) -> None:
    stream = encoder("post-ln", blocks)["stream"]
    assert stream == pytest.approx(np.full(blocks, 1.5), abs=0.08)
    assert stream.mean() == pytest.approx(1.5, abs=0.03)


@pytest.mark.parametrize("blocks", DEPTHS)
def test_lemma_2_of_pre_ln(blocks: int) -> None:
    stream = encoder("pre-ln", blocks)["stream"]
    low, high = (bound[1:] for bound in theory.stream_second_moment_pre(blocks))
    assert (stream >= 0.97 * low).all()
    assert (stream <= 1.03 * high).all()


@pytest.mark.parametrize("width", [3, 16, 256])
def test_lemma_3_is_exact(width: int) -> None:
    x = 3 * torch.randn(width, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 5
    jacobian = torch.func.jacrev(lambda v: torch.nn.functional.layer_norm(v, (width,), eps=0.0))(x)
    found = theory.normalization_singular_values(x.numpy())
    np.testing.assert_allclose(found, torch.linalg.svdvals(jacobian).numpy(), atol=1e-10)
    assert found[0] == pytest.approx(width**0.5 / float((x - x.mean()).norm()), rel=1e-12)
    assert (found > 0).sum() == width - 2


def test_singular_values_are_given_for_each_of_several_vectors() -> None:
    x = np.array([[1.0, 2.0, 4.0, 9.0], [2.0, 4.0, 8.0, 18.0]])
    one, other = theory.normalization_singular_values(x)
    np.testing.assert_allclose(other, one / 2)


@pytest.mark.parametrize("width", [64, 256, 512])
@pytest.mark.parametrize("epsilon", [0.1, 0.25, 0.5])
def test_the_bound_on_concentration_holds_for_gaussians(width: int, epsilon: float) -> None:
    energy = np.random.default_rng(0).chisquare(width, 100_000)
    assert (energy > (1 + epsilon) * width).mean() <= theory.concentration(width, epsilon)


def test_the_bound_on_concentration_at_the_papers_example() -> None:
    assert theory.concentration(256, 0.25) == pytest.approx(np.exp(-2))


def last_slope(arrangement: str) -> float:
    """Of the last block's ‖dL/dW2‖ over depth, both in logarithms."""
    last = [encoder(arrangement, blocks)[W2][-1] for blocks in DEPTHS]
    return float(np.polyfit(np.log(DEPTHS), np.log(last), 1)[0])


def test_theorem_1() -> None:
    assert abs(last_slope("post-ln")) < 0.10
    assert -0.65 < last_slope("pre-ln") < -0.42
    orders = theory.last_gradient_order_pre(256, DEPTHS)
    assert np.polyfit(np.log(DEPTHS), np.log(orders), 1)[0] == pytest.approx(-0.5)
    assert orders[0] == pytest.approx(theory.last_gradient_order_post(256) / 2)
    assert theory.last_gradient_order_post(256) == pytest.approx(256 * np.log(256) ** 0.5)


def test_the_orders_of_theorem_1_are_bounds_and_loose() -> None:
    assert encoder("post-ln", 8)[W2][-1] < theory.last_gradient_order_post(256) / 100


@pytest.mark.parametrize("arrangement", ["pre-ln", "post-ln"])
@pytest.mark.parametrize("blocks", DEPTHS)
def test_the_gradient_times_the_root_of_the_stream_is_one_constant(arrangement: str, blocks: int) -> None:
    found = encoder(arrangement, blocks)
    constant = found[W2] / theory.gradient_ratio_by_block(found["stream"])
    assert constant.std() / constant.mean() < 0.10


@pytest.mark.parametrize("blocks", DEPTHS)
def test_the_last_gradients_of_pre_and_post_ln_stand_in_the_ratio_of_their_streams(blocks: int) -> None:
    pre, post = encoder("pre-ln", blocks), encoder("post-ln", blocks)
    expected = theory.last_gradient_ratio(pre["stream"][-1])
    assert pre[W2][-1] / post[W2][-1] == pytest.approx(expected, rel=0.10)


def encoder_decoder(arrangement: str) -> Table:
    return measure(network(arrangement, "encoder-decoder", 6), {"pre-ln": 4, "post-ln": 12}[arrangement]).mean


def test_figure_3_is_that_of_decoders() -> None:
    """In the decoder of Post-LN gradients decay towards the first block; in its encoder they do not."""
    post, pre = encoder_decoder("post-ln"), encoder_decoder("pre-ln")
    assert 5 < post["decoder"][W2][-1] / post["decoder"][W2][0] < 12
    assert 0.5 < pre["decoder"][W2][-1] / pre["decoder"][W2][0] < 1.0
    assert 0.7 < post["encoder"][W2][-1] / post["encoder"][W2][0] < 1.4


def test_appendix_f_has_a_decay_that_an_encoder_of_post_ln_does_not_show() -> None:
    decay = theory.extended_decay_post(16)
    assert decay[-1] == 1
    assert decay[0] == pytest.approx((2 / 3) ** 7.5)
    measured = encoder("post-ln", 16)[W2]
    assert measured[0] / measured[-1] > 10 * decay[0]
    v = theory.ffn_gain()
    assert theory.gradient_energy_growth_post(v, v) == 1
    assert theory.gradient_energy_growth_post(v, 0.0) == pytest.approx(2 / 3)


def growth(*, pre: bool, ratio: int, skip: float) -> float:
    """E‖dL/dx‖²/E‖dL/dx'‖² over one sub-layer of a random FFN, by autograd."""
    generator, d = torch.Generator().manual_seed(2), 256
    f, before, after = ratio * d, 0.0, 0.0
    for _ in range(12):
        scale = (2 / (d + f)) ** 0.5
        w1, w2 = (scale * torch.randn(*shape, generator=generator) for shape in ((f, d), (d, f)))
        x = (skip**0.5 * torch.randn(32, d, generator=generator)).requires_grad_()

        def branch(u: torch.Tensor) -> torch.Tensor:
            return (u @ w1.T).relu() @ w2.T  # noqa: B023

        norm = lambda u: torch.nn.functional.layer_norm(u, (d,))  # noqa: E731
        out = x + branch(norm(x)) if pre else norm(x + branch(x))
        g = torch.randn(32, d, generator=generator)
        before += float(torch.autograd.grad(out, x, g)[0].square().sum())
        after += float(g.square().sum())
    return before / after


@pytest.mark.parametrize("ratio", [1, 4])
def test_growth_of_the_gradient_over_one_sub_layer(ratio: int) -> None:
    v = theory.ffn_gain(ratio)
    assert growth(pre=False, ratio=ratio, skip=1.0) == pytest.approx(
        float(theory.gradient_energy_growth_post(v, v)), rel=0.03
    )
    for q in (1.0, 4.0):
        expected = float(theory.gradient_energy_growth_pre(q, v))
        assert growth(pre=True, ratio=ratio, skip=q) == pytest.approx(expected, rel=0.03)


def test_pre_ln_growths_telescope_to_the_law_of_the_stream() -> None:
    q = theory.stream_second_moment_pre(12)[0]
    growths = theory.gradient_energy_growth_pre(q[:-1], theory.ffn_gain())
    energy = np.append(np.cumprod(growths[::-1])[::-1], 1.0)  # at x_l, for 1 at the last
    np.testing.assert_allclose(energy / energy[0], theory.gradient_ratio_by_block(q) ** 2)
