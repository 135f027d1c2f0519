"""AdaNorm of Xu et al. 2019 (1911.07013)."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gradlens.norms.adanorm import AdaNorm
from gradlens.norms.layernorm_simple import LayerNormSimple

H = 512


@pytest.fixture
def x() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (3 * torch.randn(300, H, generator=generator, dtype=torch.float64) + 1.5).requires_grad_()


@pytest.fixture
def g() -> Tensor:
    return torch.randn(300, H, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize(("scale", "k"), [(1.0, 0.1), (2.0, 0.1), (1.5, 0.3)])
def test_mean_of_the_output_is_minus_k_times_scale_for_every_input(x: Tensor, scale: float, k: float) -> None:
    mean = AdaNorm(H, 0.0, scale=scale, k=k)(x).mean(-1)
    torch.testing.assert_close(mean, torch.full_like(mean, -k * scale), rtol=0, atol=1e-12)


def test_factor_is_a_constant_to_the_backward_pass(x: Tensor, g: Tensor) -> None:
    y = F.layer_norm(x.detach(), (H,))
    (expected,) = torch.autograd.grad(LayerNormSimple(H)(x), x, g * (1 - 0.1 * y))
    (actual,) = torch.autograd.grad(AdaNorm(H)(x), x, g)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def test_gradient_through_the_factor_differs_and_is_that_of_the_whole_function(x: Tensor, g: Tensor) -> None:
    full = AdaNorm(H, detach_factor=False)
    (through,) = torch.autograd.grad(full(x), x, g)
    (detached,) = torch.autograd.grad(AdaNorm(H)(x), x, g)
    assert float((through - detached).norm() / detached.norm()) > 0.05
    row = x.detach()[:1, :8].requires_grad_()
    assert torch.autograd.gradcheck(AdaNorm(8, detach_factor=False), row)


def test_factor_is_positive_for_99_percent_of_normal_entries(x: Tensor) -> None:
    factor = 1 - 0.1 * LayerNormSimple(H)(x)
    assert float((factor > 0).double().mean()) > 0.99
