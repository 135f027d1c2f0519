"""Theorem 1 of Xu et al. 2019 (1911.07013): what the derivatives of mean and variance do to a gradient."""

import pytest
import torch
from torch import Tensor

from gradlens.lab.norms import NORMS

H, ROWS = 512, 2000
EXACT = {"rtol": 0, "atol": 1e-12}


@pytest.fixture(scope="module", params=[0.0, 0.5], ids=["g independent of y", "g correlated with y"])
def case(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor, float]:
    """x, g = dL/dy [ROWS, H] in float64, and the share of var(g) that y explains."""
    generator = torch.Generator().manual_seed(0)
    x = 3 * torch.randn(ROWS, H, generator=generator, dtype=torch.float64) + 1.5
    g = torch.randn(ROWS, H, generator=generator, dtype=torch.float64) + 0.3
    weight = request.param
    y = (x - x.mean(-1, keepdim=True)) / x.std(-1, correction=0, keepdim=True)
    explained = weight**2 / (1 + weight**2) if weight else 1 / (H - 1)
    return x, g + weight * y, explained


def backward(name: str, x: Tensor, g: Tensor) -> Tensor:
    """dL/dx by autograd; the theorem has no eps."""
    leaf = x.clone().requires_grad_()
    NORMS[name](H, 0.0)(leaf).backward(g)
    assert leaf.grad is not None
    return leaf.grad


def moments(a: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and population variance of each row."""
    return a.mean(-1), a.var(-1, correction=0)


@pytest.mark.parametrize("name", ["layernorm-simple", "detachnorm-variance"])
def test_derivative_of_the_mean_recenters_the_gradient_to_zero(name: str, case: tuple[Tensor, Tensor, float]) -> None:
    x, g, _ = case
    mean, _ = moments(backward(name, x, g))
    torch.testing.assert_close(mean, torch.zeros_like(mean), **EXACT)


@pytest.mark.parametrize("name", ["detachnorm", "detachnorm-mean"])
def test_without_it_the_mean_of_the_gradient_passes_through(name: str, case: tuple[Tensor, Tensor, float]) -> None:
    x, g, _ = case
    mean, _ = moments(backward(name, x, g))
    torch.testing.assert_close(mean, g.mean(-1) / x.std(-1, correction=0), **EXACT)


@pytest.mark.parametrize("name", ["layernorm-simple", "detachnorm-mean"])
def test_derivative_of_the_variance_removes_the_correlated_share_of_the_gradients_variance(
    name: str, case: tuple[Tensor, Tensor, float]
) -> None:
    x, g, explained = case
    _, variance = moments(backward(name, x, g))
    ratio = variance * x.var(-1, correction=0) / g.var(-1, correction=0)
    rho = torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(x, g, strict=True)])
    torch.testing.assert_close(ratio, 1 - rho**2, **EXACT)
    assert float(ratio.mean()) == pytest.approx(1 - explained, abs=0.02 if explained > 0.1 else 2e-4)


@pytest.mark.parametrize("name", ["detachnorm", "detachnorm-variance"])
def test_without_it_the_variance_of_the_gradient_passes_through(name: str, case: tuple[Tensor, Tensor, float]) -> None:
    x, g, _ = case
    _, variance = moments(backward(name, x, g))
    ratio = variance * x.var(-1, correction=0) / g.var(-1, correction=0)
    torch.testing.assert_close(ratio, torch.ones_like(ratio), **EXACT)
