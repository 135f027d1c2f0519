"""Theorem 1 of Xu et al. (2019) on recorded rows of every norm of the zoo, in float64."""

import pytest
import torch

import gradlens
from gradlens.lab.norms import NORMS


def flows(name: str) -> tuple[bool | None, bool]:
    """Whether the derivative of μ flows (None where none is subtracted), and whether that of σ does, as declared."""
    norm = NORMS[name](8)
    says = getattr(getattr(norm, "normalize", norm), "normalizes", {})
    return says.get("mean_gradient", True) if says.get("centered", True) else None, says.get("scale_gradient", True)


FLOWS = {name: flows(name) for name in NORMS if name != "none"}
H, ROWS = 512, 2000


def recorded_row(name: str, correlation: float):
    """One row of 2000 vectors of 512, x ~ 3N + 1.5, and the (x, g) it was made of."""
    torch.manual_seed(0)
    norm = NORMS[name](H, eps=1e-12).double()
    x = (3 * torch.randn(ROWS, H, dtype=torch.float64) + 1.5).requires_grad_()
    y = (x - x.mean(-1, keepdim=True)) / x.var(-1, correction=0, keepdim=True).sqrt()
    g = torch.randn(ROWS, H, dtype=torch.float64) + 0.3 + correlation * y.detach()
    with gradlens.attach(norm) as lens:
        # The gradient is applied where dL/dx̂ = g: AdaNorm's own factor stands between its output and x̂.
        inner = getattr(norm, "normalize", norm)
        inner(x).backward(g)
        lens.step()
    return lens.recording.norms.iloc[0], x.detach(), y.detach(), g


@pytest.mark.parametrize("correlation", [0.0, 0.5])
@pytest.mark.parametrize("name", FLOWS)
def test_theorem_1_holds_on_the_recorded_row(name, correlation):
    row, x, y, g = recorded_row(name, correlation)
    mean_flows, scale_flows = FLOWS[name]
    size = row["var_detached"]
    if mean_flows:
        assert row["mean2_actual"] < 1e-24 * size  # |mean| < 1e-12
    elif mean_flows is False:
        assert row["mean2_actual"] == pytest.approx(row["mean2_detached"], rel=1e-12)
    if mean_flows is None:
        return
    if scale_flows:
        sigma2 = x.var(-1, correction=int(name.endswith("-unbiased")))
        rho2 = ((g - g.mean(-1, keepdim=True)) * y).mean(-1).square() / g.var(-1, correction=0)
        expected = ((1 - rho2) * g.var(-1, correction=0) / sigma2).mean()
        assert row["var_actual"] == pytest.approx(float(expected), rel=1e-12)
        assert row["var_actual"] < row["var_detached"]
    else:
        assert row["var_actual"] == pytest.approx(row["var_detached"], rel=1e-12)


def test_rescaling_is_invisible_for_independent_gradients_and_large_for_aligned_ones():
    independent, *_ = recorded_row("layernorm", 0.0)
    aligned, *_ = recorded_row("layernorm", 0.5)
    assert independent["var_actual"] / independent["var_detached"] == pytest.approx(1 - 1 / (H - 1), abs=2e-4)
    assert aligned["var_actual"] / aligned["var_detached"] == pytest.approx(0.80, abs=0.02)


@pytest.mark.parametrize("name", [n for n in FLOWS if "detach" in n])
def test_a_detached_derivative_removes_nothing(name):
    row, *_ = recorded_row(name, 0.5)
    mean_flows, scale_flows = FLOWS[name]
    assert (row["recentering"] == 0) == (not mean_flows)
    assert abs(row["rescaling"]) < 1e-12 or scale_flows
    assert row["mean_share"] > 0.05


@pytest.mark.parametrize("eps", [1e-5, 0.5])
def test_the_unbiased_deviation_is_the_one_that_is_recorded(eps):
    norm = NORMS["layernorm-simple-unbiased"](8, eps=eps).double()
    x = torch.randn(50, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    with gradlens.attach(norm) as lens:
        norm(x).pow(3).sum().backward()
        lens.step()
    expected = (1 / (x.std(-1) + eps)).mean()
    assert lens.recording.norms["inv_sigma"].item() == pytest.approx(float(expected), rel=1e-12)


def test_a_norm_of_ones_own_with_that_deviation_is_recognised_by_its_behaviour():
    class HandWrittenNorm(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.bias = torch.nn.Parameter(torch.ones(16)), torch.nn.Parameter(torch.zeros(16))
            self.eps = 1e-6

        def forward(self, x):
            return self.weight * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + self.eps) + self.bias

    model = torch.nn.Sequential(HandWrittenNorm()).double()
    x = torch.randn(20, 16, dtype=torch.float64, requires_grad=True)
    with gradlens.attach(model) as lens:
        model(x).pow(3).sum().backward()
        lens.step()
    row = lens.recording.norms.iloc[0]
    assert row["inv_sigma"] == pytest.approx(float((1 / (x.std(-1) + 1e-6)).mean()), rel=1e-12)
    assert row["recentering"] + row["rescaling"] + row["kept"] == pytest.approx(1.0, abs=1e-9)
    assert row["mean2_actual"] < 1e-20
