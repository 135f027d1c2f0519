"""AdaNorm of Xu et al. 2019 (1911.07013)."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gradlens
from gradlens.errors import ModelError
from gradlens.lab.norms import NORMS
from gradlens.lab.norms.adanorm import AdaNorm
from gradlens.lab.norms.layernorm_simple import LayerNormSimple

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


def test_gradient_through_the_factor_is_as_if_the_output_were_a_parabola_of_y(x: Tensor, g: Tensor) -> None:
    """z = C(y − k y²) has dz/dy = C(1 − 2 k y); AdaNorm leaves half of the bend out."""
    y = F.layer_norm(x.detach(), (H,))
    (expected,) = torch.autograd.grad(LayerNormSimple(H)(x), x, g * 2.0 * (1 - 2 * 0.3 * y))
    through = NORMS["adanorm-undetached"](H, scale=2.0, k=0.3)
    (actual,) = torch.autograd.grad(through(x), x, g)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)
    assert torch.equal(through(x), AdaNorm(H, scale=2.0, k=0.3)(x))


@pytest.mark.parametrize(
    ("name", "detached"), [("adanorm", True), ("adanorm-undetached", False), ("adanorm-unbiased", True)]
)
def test_the_factor_is_detached_as_the_name_says_unless_asked_otherwise(name: str, detached: bool) -> None:
    assert NORMS[name](H).factor.detach is detached
    assert NORMS[name](H, detach_factor=not detached).factor.detach is not detached


@pytest.mark.parametrize("options", [{"scale": 0.0}, {"scale": -1.0}, {"k": -0.1}, {"scale": float("nan")}])
def test_a_scale_or_slope_outside_its_range_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(ModelError, match="C above 0 and a slope k from 0 up"):
        AdaNorm(H, **options)


def test_factor_is_positive_for_99_percent_of_normal_entries(x: Tensor) -> None:
    factor = 1 - 0.1 * LayerNormSimple(H)(x)
    assert float((factor > 0).double().mean()) > 0.99


def test_the_factor_is_a_site_that_can_be_watched():
    model = nn.Sequential(nn.Linear(H, H), AdaNorm(H, scale=2.0))
    x = torch.randn(32, H)
    with gradlens.attach(model, watch=("norms", r"factor$")) as lens:
        model(x).square().sum().backward()
        lens.step()
    rows = lens.recording.activations.set_index(["site", "tensor"]).loc["1.factor"]
    y = model[1].normalize(model[0](x)).detach()
    assert rows.loc["output", "mean"] == pytest.approx(2.0, abs=1e-5)
    assert rows.loc["output", "rms"] == pytest.approx(2.0 * 1.01**0.5, rel=1e-4)  # C² (1 + k²), up to eps
    assert rows.loc["input", "absmax"] == pytest.approx(float(y.abs().max()), rel=1e-6)
