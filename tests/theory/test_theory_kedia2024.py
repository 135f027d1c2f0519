"""The moments of Kedia et al. 2024 against Monte Carlo over inputs and weights."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import erf

from gradlens.theory import activations
from gradlens.theory import kedia2024 as theory
from gradlens.theory.kedia2024 import Moments
from gradlens.theory.network import OutsideTheoryError

Pair = tuple[np.ndarray, np.ndarray]


def pair(rng: np.random.Generator, shape: tuple[int, ...], moments: Moments) -> Pair:
    """Two Gaussian tokens with these moments."""
    shared = moments.covariance**0.5 * rng.normal(size=shape)
    own = (moments.variance - moments.covariance) ** 0.5
    return tuple(moments.mean + shared + own * rng.normal(size=shape) for _ in range(2))  # type: ignore[return-value]


def of(x: np.ndarray, y: np.ndarray) -> Moments:
    mean = float((x.mean() + y.mean()) / 2)
    return Moments(mean, float((x.var() + y.var()) / 2), float((x * y).mean() - x.mean() * y.mean()))


def assert_close(found: Moments, simulated: Moments, rel: float) -> None:
    """Within a share of the number, or of the variance where the number is near 0."""
    scale = simulated.variance
    assert found.mean == pytest.approx(simulated.mean, rel=rel, abs=rel * scale**0.5)
    assert found.variance == pytest.approx(simulated.variance, rel=rel)
    assert found.covariance == pytest.approx(simulated.covariance, rel=rel, abs=rel * scale)


def matrix(rng: np.random.Generator, n_out: int, n_in: int, variance: float) -> np.ndarray:
    return rng.normal(0, variance**0.5, (n_out, n_in))


@pytest.mark.parametrize("x", [Moments(0, 1, 0.3), Moments(0.7, 2, 1.5)])
def test_linear(x: Moments) -> None:
    rng, outs = np.random.default_rng(0), [[], []]
    for _ in range(300):
        weight, tokens = matrix(rng, 256, 128, 0.01), pair(rng, (128,), x)
        for out, token in zip(outs, tokens, strict=True):
            out.append(weight @ token)
    assert_close(theory.linear(x, 128, 0.01), of(*map(np.array, outs)), rel=0.04)
    g = Moments(0, 2, 1)
    assert theory.linear_gradient(g, 64, 0.5) == Moments(0, 64, 32)


def phi(name: str, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if name == "relu":
        return np.maximum(x, 0), (x > 0).astype(float)
    cdf = (1 + erf(x / 2**0.5)) / 2
    return x * cdf, cdf + x * np.exp(-(x**2) / 2) / (2 * np.pi) ** 0.5


@pytest.mark.parametrize("name", ["relu", "gelu"])
@pytest.mark.parametrize("x", [Moments(0, 1, 0), Moments(0, 1, 0.5), Moments(0, 4, 3.6), Moments(0, 0.25, 0.1)])
def test_activations_and_their_gradients(name: str, x: Moments) -> None:
    rng, g = np.random.default_rng(1), Moments(0, 1, 0.6)
    one, other = pair(rng, (1_000_000,), x)
    (value, slope), (other_value, other_slope) = phi(name, one), phi(name, other)
    assert_close(theory.activation(x, activations.ACTIVATIONS[name]), of(value, other_value), rel=0.005)
    back, other_back = pair(rng, one.shape, g)
    found = theory.activation_gradient(g, x, activations.ACTIVATIONS[name])
    assert_close(found, of(slope * back, other_slope * other_back), rel=0.005)


def test_gelu_has_the_closed_forms_of_the_paper() -> None:
    for s2 in (0.2, 1.0, 3.0):
        a = s2 / (1 + s2)
        variance = s2 / (2 * np.pi) * (np.pi - a - np.arccos(a) + 2 * a * ((1 - a) / (1 + a)) ** 0.5)
        found = theory.activation(Moments(0, s2, 0), activations.gelu)
        assert found.mean == pytest.approx((s2 * a / (2 * np.pi)) ** 0.5)
        assert found.variance == pytest.approx(variance)


def test_the_slopes_of_relu_agree_as_often_as_signs_do() -> None:
    x = Moments(0, 1, 0.6)
    found = theory.activation_gradient(Moments(0, 1, 1), x, activations.relu)
    assert found.covariance == pytest.approx(1 / 4 + np.arcsin(0.6) / (2 * np.pi))


def normalized(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    sigma = x.std(-1, keepdims=True)
    return (x - x.mean(-1, keepdims=True)) / sigma, sigma


def norm_backward(g: np.ndarray, x: np.ndarray) -> np.ndarray:
    y, sigma = normalized(x)
    return (g - g.mean(-1, keepdims=True) - y * (g * y).mean(-1, keepdims=True)) / sigma


@pytest.mark.parametrize("width", [16, 64, 256])
@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_layernorm_and_its_gradient(width: int, correlation: float) -> None:
    rng, x, g = np.random.default_rng(2), Moments(0, 3, 3 * correlation), Moments(0, 1, 0.8)
    one, other = pair(rng, (2_000_000 // width, width), x)
    assert_close(theory.layernorm(x, width), of(normalized(one)[0], normalized(other)[0]), rel=0.003)
    back, other_back = pair(rng, one.shape, g)
    found = theory.layernorm_gradient(g, x, width)
    assert_close(found, of(norm_backward(back, one), norm_backward(other_back, other)), rel=0.01)


def test_a_norm_takes_two_directions_from_the_gradient() -> None:
    rng = np.random.default_rng(3)
    x, g = rng.normal(size=(1, 16)), rng.normal(size=(200_000, 16))
    x = normalized(x)[0]  # σ is 1: what is left is the share of the directions that are kept
    assert norm_backward(g, x).var() == pytest.approx(1 - 2 / 16, rel=0.005)


def test_dropout_forward_and_backward() -> None:
    rng, x = np.random.default_rng(4), Moments(0.5, 1, 0.4)
    one, other = (token * (rng.random(token.shape) > 0.2) / 0.8 for token in pair(rng, (1_000_000,), x))
    assert_close(theory.dropout(x, 0.2), of(one, other), rel=0.006)


@pytest.mark.parametrize(("variance", "covariance", "count"), [(0.1, 0.0, 64), (0.5, 0.25, 64), (1.0, 0.0, 512)])
def test_softmax_and_its_gradient(variance: float, covariance: float, count: int) -> None:
    rng, logits = np.random.default_rng(5), Moments(0, variance, covariance)
    rows = 2_000_000 // count
    x = covariance**0.5 * rng.normal(size=(rows, 1)) + (variance - covariance) ** 0.5 * rng.normal(size=(rows, count))
    a = np.exp(x)
    a /= a.sum(-1, keepdims=True)
    found = theory.softmax(logits, count)
    assert found.mean == pytest.approx(a.mean())
    assert found.variance == pytest.approx(a.var(), rel=0.06)
    assert found.covariance == pytest.approx((a[:, 0] * a[:, 1]).mean() - a.mean() ** 2, abs=0.1 * found.variance)
    g = rng.normal(size=x.shape)
    back = a * (g - (a * g).sum(-1, keepdims=True))
    if (2 * np.exp(variance - covariance) - 1) ** 2 <= 0.05 * count:
        found = theory.softmax_gradient(Moments(0, 1, 0), logits, count)
        assert found.variance == pytest.approx(back.var(), rel=0.06)
        assert found.covariance == pytest.approx(-found.variance / (count - 1))


@pytest.mark.parametrize(("variance", "count"), [(1.0, 64), (2.0, 512), (0.25, 16)])
def test_softmax_is_refused_where_simulation_has_the_approximation_off(variance: float, count: int) -> None:
    rng = np.random.default_rng(6)
    a = np.exp(rng.normal(0, variance**0.5, (2_000_000 // count, count)))
    a /= a.sum(-1, keepdims=True)
    assert (np.exp(variance) - 1) / count**2 > 1.05 * a.var()
    for refused in (theory.softmax, lambda x, n: theory.softmax_gradient(Moments(0, 1, 0), x, n)):
        with pytest.raises(OutsideTheoryError, match="log-normal"):
            refused(Moments(0, variance, 0), count)


@pytest.mark.parametrize("p", [0.0, 0.2])
@pytest.mark.parametrize(("queries", "keys"), [(8, 8), (5, 12)], ids=["self", "cross"])
def test_attention_and_its_gradient(queries: int, keys: int, p: float) -> None:
    rng, token, g = np.random.default_rng(7), Moments(0, 1, 0.2), Moments(0, 1, 0.1)
    d_in, d_out, variance = 32, 48, 1 / 40
    forward, backward = [], []
    for _ in range(2500):
        weight = matrix(rng, d_out, d_in, variance)
        mask = (rng.random((queries, keys)) > p) / (1 - p) / keys

        def tokens(count: int, width: int, m: Moments) -> np.ndarray:
            shared = m.covariance**0.5 * rng.normal(size=(1, width))
            return shared + (m.variance - m.covariance) ** 0.5 * rng.normal(size=(count, width))

        forward.append((mask @ tokens(keys, d_in, token) @ weight.T)[:2])
        backward.append((mask.T @ tokens(queries, d_out, g) @ weight)[:2])
    out, back = np.array(forward), np.array(backward)
    assert_close(theory.attention(token, keys, d_in, variance, probability=p), of(out[:, 0], out[:, 1]), rel=0.04)
    found = theory.attention_gradient(g, queries, keys, d_out, variance, probability=p)
    assert_close(found, of(back[:, 0], back[:, 1]), rel=0.04)


@pytest.mark.parametrize("name", ["relu", "gelu"])
def test_ffn_and_its_gradient(name: str) -> None:
    rng, x, g = np.random.default_rng(8), Moments(0, 1, 0.5), Moments(0, 1, 0.3)
    d, f, variances = 64, 256, (0.02, 0.006)
    outs: list[list[np.ndarray]] = [[], [], [], []]
    for _ in range(1000):
        w1, w2 = matrix(rng, f, d, variances[0]), matrix(rng, d, f, variances[1])
        for index, (token, back) in enumerate(zip(pair(rng, (d,), x), pair(rng, (d,), g), strict=True)):
            value, slope = phi(name, w1 @ token)
            outs[index].append(w2 @ value)
            outs[2 + index].append(w1.T @ (slope * (w2.T @ back)))
    one, other, back, other_back = map(np.array, outs)
    function = activations.ACTIVATIONS[name]
    assert_close(theory.ffn(x, d, f, variances, function), of(one, other), rel=0.03)
    assert_close(theory.ffn_gradient(g, x, d, f, variances, function), of(back, other_back), rel=0.03)


REFUSED: list[Callable[[], object]] = [
    lambda: theory.activation(Moments(0.1, 1, 0), activations.relu),
    lambda: theory.activation_gradient(Moments(0, 1, 0), Moments(0.1, 1, 0), activations.relu),
    lambda: theory.layernorm_gradient(Moments(0, 1, 0), Moments(0, 1, 0), 3),
]


@pytest.mark.parametrize("call", REFUSED)
def test_outside_of_what_is_known_there_is_an_error_and_no_number(call: Callable[[], object]) -> None:
    with pytest.raises(OutsideTheoryError, match="moments"):
        call()
