"""The moments of activations against quadrature over two correlated Gaussians, with slopes from autograd."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gradlens.theory.activations import ACTIVATIONS

ACTIVATION: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu, "silu": F.silu}
SMOOTH = ("gelu", "silu")
#: Variances of the two pre-activations, and their correlation.
CASES = [(a, b, c) for a, b in ((1.0, 1.0), (0.3, 0.3), (2.0, 0.5), (4.0, 4.0)) for c in (-0.6, 0.0, 0.4, 0.9)]


def quadrature(name: str, a: float, b: float, c: float) -> tuple[float, float]:
    """E[φ(x)φ(y)] and E[φ′(x)φ′(y)] by Gauss–Hermite nodes for x, and for y given x."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(160)
    z, w = torch.tensor(nodes), torch.tensor(weights / weights.sum())
    x = (a**0.5 * z[:, None]).expand(-1, len(z)).clone().requires_grad_()
    y = (b**0.5 * (c * z[:, None] + (1 - c**2) ** 0.5 * z[None, :])).requires_grad_()
    left, right = ACTIVATION[name](x), ACTIVATION[name](y)
    slopes = torch.autograd.grad(left.sum() + right.sum(), (x, y))
    mass = w[:, None] * w[None, :]
    return float((mass * left * right).detach().sum()), float((mass * slopes[0] * slopes[1]).sum())


def ours(name: str, a: float, b: float, k: float) -> tuple[float, float]:
    second, slope = ACTIVATIONS[name](*(np.array([value]) for value in (a, b, k)))
    return float(second[0]), float(slope[0])


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize(("a", "b", "c"), CASES)
def test_both_moments_of_smooth_activations_are_those_of_quadrature(name: str, a: float, b: float, c: float) -> None:
    assert ours(name, a, b, c * (a * b) ** 0.5) == pytest.approx(quadrature(name, a, b, c), abs=2e-6)


@pytest.mark.parametrize(("a", "b", "c"), CASES)
def test_both_moments_of_relu_are_those_of_simulation(a: float, b: float, c: float) -> None:
    z = np.random.default_rng(0).normal(size=(2, 1_000_000))
    x, y = a**0.5 * z[0], b**0.5 * (c * z[0] + (1 - c**2) ** 0.5 * z[1])
    second, slope = ours("relu", a, b, c * (a * b) ** 0.5)
    assert second == pytest.approx(np.mean(np.maximum(x, 0) * np.maximum(y, 0)), abs=0.006 * (a * b) ** 0.5)
    assert slope == pytest.approx(np.mean((x > 0) & (y > 0)), abs=0.002)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_slopes_moment_is_the_derivative_of_the_second_moment(name: str) -> None:
    a, b, k, step = 1.5, 0.7, 0.4, 1e-5
    derivative = (ours(name, a, b, k + step)[0] - ours(name, a, b, k - step)[0]) / (2 * step)
    assert derivative == pytest.approx(ours(name, a, b, k)[1], rel=1e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_equal_tokens_have_the_moments_of_one(name: str) -> None:
    nodes, weights = np.polynomial.hermite_e.hermegauss(160)
    x = torch.tensor(1.3 * nodes).requires_grad_()
    y = ACTIVATION[name](x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    w = weights / weights.sum()
    expected = [float(w @ value.detach().numpy() ** 2) for value in (y, slope)]
    assert ours(name, 1.69, 1.69, 1.69) == pytest.approx(expected, rel=2e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_table_of_pairs_is_done_elementwise(name: str) -> None:
    a, b, k = np.full((2, 3), 1.2), np.full((2, 3), 0.8), np.linspace(-0.5, 0.9, 6).reshape(2, 3)
    second, slope = ACTIVATIONS[name](a, b, k)
    assert second.shape == slope.shape == (2, 3)
    assert (second[1, 2], slope[1, 2]) == pytest.approx(ours(name, 1.2, 0.8, 0.9))
