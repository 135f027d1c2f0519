"""The predictions of Xiong et al. 2020 against simulations of the paper's own simplified encoder."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gradlens.theory import xiong2020 as theory

RATIOS = (0.5, 1.0, 2.0, 4.0)


def xavier(rng: np.random.Generator, n_out: int, n_in: int) -> np.ndarray:
    return rng.normal(0, np.sqrt(2 / (n_in + n_out)), (n_out, n_in))


def ffn(rng: np.random.Generator, x: np.ndarray, ratio: float) -> np.ndarray:
    """One random FFN of x [n, d]."""
    d = x.shape[1]
    f = int(ratio * d)
    return np.maximum(x @ xavier(rng, f, d).T, 0) @ xavier(rng, d, f).T


def standardize(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)


def pre_ln_second_moments(
    rng: np.random.Generator, *, tokens: int, blocks: int, ratio: float, attentions: int, d: int = 128
) -> np.ndarray:
    """E‖x_l‖²/d after l = 0..blocks blocks with uniform attention."""
    x = rng.normal(size=(tokens, d))
    moments = [(x**2).mean()]
    for _ in range(blocks):
        for _ in range(attentions):
            x = x + standardize(x).mean(0) @ xavier(rng, d, d).T
        x = x + ffn(rng, standardize(x), ratio)
        moments.append((x**2).mean())
    return np.array(moments)


@pytest.mark.parametrize("variance", [0.25, 1.0, 9.0])
def test_relu_halves_the_second_moment(variance: float) -> None:
    x = np.random.default_rng(0).normal(0, np.sqrt(variance), (2000, 100))
    simulated = (np.maximum(x, 0) ** 2).sum(-1).mean()
    assert simulated == pytest.approx(theory.relu_second_moment(100, variance), rel=0.01)


@pytest.mark.parametrize("ratio", RATIOS)
def test_ffn_gain_is_what_random_ffns_give_forward_and_backward(ratio: float) -> None:
    rng, d = np.random.default_rng(0), 128
    f = int(ratio * d)
    forward, backward = [], []
    for _ in range(60):
        w1, w2 = xavier(rng, f, d), xavier(rng, d, f)
        x, g = rng.normal(size=(16, d)), rng.normal(size=(16, d))
        hidden = x @ w1.T
        forward.append(((np.maximum(hidden, 0) @ w2.T) ** 2).sum() / (x**2).sum())
        backward.append(((((g @ w2) * (hidden > 0)) @ w1) ** 2).sum() / (g**2).sum())
    assert np.mean(forward) == pytest.approx(theory.ffn_gain(ratio), rel=0.03)
    assert np.mean(backward) == pytest.approx(theory.ffn_gain(ratio), rel=0.03)


def test_with_an_ffn_as_wide_as_the_stream_lemma_2_reads_as_in_the_paper() -> None:
    low, high = theory.stream_second_moment_pre(6)
    depth = np.arange(7)
    np.testing.assert_allclose(low, 1 + depth / 2)
    np.testing.assert_allclose(high, 1 + 3 * depth / 2)
    assert theory.stream_second_moment_post() == 1.5


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("attentions", [1, 2])
def test_pre_ln_stream_of_equal_tokens_grows_along_the_upper_bound(ratio: float, attentions: int) -> None:
    rng = np.random.default_rng(1)
    runs = [pre_ln_second_moments(rng, tokens=1, blocks=4, ratio=ratio, attentions=attentions) for _ in range(60)]
    _, high = theory.stream_second_moment_pre(4, ratio, attentions)
    np.testing.assert_allclose(np.mean(runs, axis=0), high, rtol=0.05)


@pytest.mark.parametrize("ratio", RATIOS)
def test_pre_ln_stream_without_attention_grows_along_the_lower_bound(ratio: float) -> None:
    rng = np.random.default_rng(2)
    runs = [pre_ln_second_moments(rng, tokens=16, blocks=8, ratio=ratio, attentions=0) for _ in range(20)]
    low, _ = theory.stream_second_moment_pre(8, ratio)
    np.testing.assert_allclose(np.mean(runs, axis=0), low, rtol=0.03)


def test_pre_ln_stream_of_many_tokens_lies_between_the_bounds() -> None:
    rng = np.random.default_rng(3)
    runs = [pre_ln_second_moments(rng, tokens=32, blocks=16, ratio=2.0, attentions=1) for _ in range(20)]
    low, high = theory.stream_second_moment_pre(16, 2.0)
    mean = np.mean(runs, axis=0)
    assert (mean >= 0.97 * low).all()
    assert (mean <= 1.03 * high).all()
    assert mean[-1] > 1.1 * low[-1]  # neither bound is met by chance
    assert mean[-1] < 0.99 * high[-1]


@pytest.mark.parametrize("ratio", RATIOS)
def test_post_ln_stream_before_the_last_norm_of_a_block_has_the_same_moment_at_every_depth(
    ratio: float,
) -> None:
    rng, d, blocks = np.random.default_rng(4), 128, 6
    moments = np.zeros((20, blocks))
    for run in moments:
        x = rng.normal(size=(32, d))
        for block in range(blocks):
            x = standardize(x + x.mean(0) @ xavier(rng, d, d).T)
            x = x + ffn(rng, x, ratio)
            run[block] = (x**2).mean()
            x = standardize(x)
    expected = theory.stream_second_moment_post(ratio)
    np.testing.assert_allclose(moments.mean(0), expected, rtol=0.06)
    assert moments.mean() == pytest.approx(expected, rel=0.02)


def w2_gradients(seed: int, *, pre: bool, blocks: int = 8, d: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """‖dL/dW2_l‖ and q_l of the simplified encoder by autograd: 4 × 32 tokens, 500 random labels."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, std: float = 1.0) -> Tensor:
        return std * torch.randn(*shape, generator=generator)

    x, second, moments = normal(4, 32, d), [], []
    for _ in range(blocks):
        value, w1, w2 = (normal(d, d, std=d**-0.5) for _ in range(3))
        second.append(w2.requires_grad_())
        h = F.layer_norm(x, (d,)) if pre else x
        x = x + h.mean(1, keepdim=True) @ value
        x = x if pre else F.layer_norm(x, (d,))
        h = F.layer_norm(x, (d,)) if pre else x
        x = x + F.relu(h @ w1) @ w2
        moments.append(float(x.detach().square().mean()))
        x = x if pre else F.layer_norm(x, (d,))
    logits = F.layer_norm(x, (d,)) @ normal(d, 500, std=d**-0.5)
    labels = torch.randint(500, (4 * 32,), generator=generator)
    gradients = torch.autograd.grad(F.cross_entropy(logits.flatten(0, 1), labels), second)
    return np.array([float(gradient.norm()) for gradient in gradients]), np.array(moments)


@pytest.mark.parametrize("pre", [True, False], ids=["pre-ln", "post-ln"])
def test_gradient_of_w2_falls_with_the_root_of_the_streams_second_moment(pre: bool) -> None:
    runs = [w2_gradients(seed, pre=pre) for seed in range(8)]
    norms, moments = (np.mean(part, axis=0) for part in zip(*runs, strict=True))
    constant = norms / theory.gradient_ratio_by_block(moments)
    assert constant.std() / constant.mean() < 0.10
    if pre:  # the law says more than that the gradient is flat
        assert norms.std() / norms.mean() > 0.3


def test_gradient_of_the_first_block_is_the_unit() -> None:
    np.testing.assert_allclose(theory.gradient_ratio_by_block([1.0, 4.0, 16.0]), [1.0, 0.5, 0.25])
