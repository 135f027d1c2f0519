"""The norms as the code of Xu et al. 2019 computes them: deviation over H − 1, eps outside the root."""

import pytest
import torch
from torch import Tensor

import gradlens
from gradlens.lab.norms import NORMS

H, ROWS = 16, 200
EXACT = {"rtol": 0, "atol": 1e-12}
EPSILONS = (0.0, 1e-5, 0.7)  # the last is of the size of the deviation
#: name -> (the derivative of μ flows, the derivative of s flows)
FLOWS = {
    "layernorm-simple-unbiased": (True, True),
    "detachnorm-unbiased": (False, False),
    "detachnorm-mean-unbiased": (False, True),
    "detachnorm-variance-unbiased": (True, False),
    "adanorm-unbiased": (True, True),
}


@pytest.fixture(scope="module", params=["independent", "aligned"])
def rows(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = 3 * torch.randn(ROWS, H, generator=generator, dtype=torch.float64) + 1.5
    g = torch.randn(ROWS, H, generator=generator, dtype=torch.float64) + 0.3
    return x, g + 0.5 * x if request.param == "aligned" else g


def as_in_their_code(name: str, x: Tensor, eps: float) -> Tensor:
    """The forward pass of their ``LayerNormImpl``, written out with x's own operations."""
    mean_flows, deviation_flows = FLOWS[name]
    mean = x.sum(-1, keepdim=True) / H
    deviation = (((x - mean) ** 2).sum(-1, keepdim=True) / (H - 1)).sqrt()
    if name == "adanorm-unbiased":
        weight = (0.1 * (x - mean) / (deviation + eps)).detach()
        return ((x - mean) - (x - mean) * weight) / (deviation + eps)
    mean = mean if mean_flows else mean.detach()
    deviation = deviation if deviation_flows else deviation.detach()
    return (x - mean) / (deviation + eps)


def closed_form(name: str, x: Tensor, g: Tensor, eps: float) -> Tensor:
    """dL/dx, row by row, from the equation of the module's docstring."""
    mean_flows, deviation_flows = FLOWS[name]
    back = []
    for row, grad in zip(x, g, strict=True):
        c = row - row.mean()
        s = float(row.std(correction=1))
        if name == "adanorm-unbiased":
            grad = grad * (1 - 0.1 * c / (s + eps))
        a = grad.clone()
        if mean_flows:
            a -= grad.mean()
        if deviation_flows:
            a -= c * float(grad @ c) / ((H - 1) * s * (s + eps))
        back.append(a / (s + eps))
    return torch.stack(back)


def backward(function: object, x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    leaf = x.clone().requires_grad_()
    out = function(leaf)  # type: ignore[operator]
    out.backward(g)
    assert leaf.grad is not None
    return out.detach(), leaf.grad


@pytest.mark.parametrize("eps", EPSILONS)
@pytest.mark.parametrize("name", FLOWS)
def test_forward_and_backward_are_those_of_the_authors_code(name: str, eps: float, rows: tuple[Tensor, Tensor]) -> None:
    x, g = rows
    out, grad = backward(NORMS[name](H, eps), x, g)
    expected_out, expected = backward(lambda leaf: as_in_their_code(name, leaf, eps), x, g)
    torch.testing.assert_close(out, expected_out, **EXACT)
    torch.testing.assert_close(grad, expected, **EXACT)
    torch.testing.assert_close(grad, closed_form(name, x, g, eps), **EXACT)


@pytest.mark.parametrize("eps", EPSILONS)
@pytest.mark.parametrize("name", [name for name in FLOWS if name != "adanorm-unbiased"])
def test_theorem_1_holds_with_their_deviation_in_place_of_sigma(
    name: str, eps: float, rows: tuple[Tensor, Tensor]
) -> None:
    x, g = rows
    mean_flows, deviation_flows = FLOWS[name]
    _, grad = backward(NORMS[name](H, eps), x, g)
    s = x.std(-1, correction=1)
    detached = g / (s + eps).unsqueeze(-1)
    torch.testing.assert_close(grad.mean(-1), 0 * s if mean_flows else detached.mean(-1), **EXACT)
    ratio = grad.var(-1, correction=0) / detached.var(-1, correction=0)
    rho2 = torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(x, g, strict=True)]) ** 2
    left = (eps / (s + eps)) ** 2  # what eps outside the root lets through of the aligned part
    torch.testing.assert_close(ratio, 1 - rho2 * (1 - left) if deviation_flows else torch.ones_like(s), **EXACT)
    assert (ratio <= 1 + 1e-12).all()


@pytest.mark.parametrize("name", FLOWS)
def test_without_eps_the_output_is_the_papers_times_a_constant(name: str, rows: tuple[Tensor, Tensor]) -> None:
    x, _ = rows
    shrunk = ((H - 1) / H) ** 0.5
    y = shrunk * NORMS["layernorm-simple"](H, 0.0)(x)
    expected = y * (1 - 0.1 * y) if name == "adanorm-unbiased" else y
    torch.testing.assert_close(NORMS[name](H, 0.0)(x), expected, **EXACT)


@pytest.mark.parametrize("name", FLOWS)
def test_a_constant_vector_gives_zero_and_a_finite_gradient(name: str) -> None:
    out, grad = backward(NORMS[name](H), torch.full((2, H), 3.0), torch.ones(2, H))
    assert not out.any()
    assert torch.isfinite(grad).all()


@pytest.mark.parametrize("name", FLOWS)
def test_the_lens_is_exact_on_them_or_says_that_it_does_not_understand(name: str, rows: tuple[Tensor, Tensor]) -> None:
    x, g = rows
    model = torch.nn.Sequential(NORMS[name](H, 0.7), torch.nn.LayerNorm(H)).double()
    with gradlens.attach(model) as lens:
        model(x.clone().requires_grad_()).backward(g)
        lens.step()
        strangers = lens.audit().strangers
    recorded = lens.recording.norms
    inner = "0.normalize" if name.startswith("adanorm") else "0"
    if inner not in set(recorded["site"]):
        assert inner in strangers
        return
    row = recorded[recorded["site"] == inner].iloc[0]
    assert row["inv_sigma"] == pytest.approx(float((1 / (x.std(-1, correction=1) + 0.7)).mean()), rel=1e-6)
