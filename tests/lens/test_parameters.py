"""Gradients and weights of parameters: those of backward, exact, tied ones once."""

import pytest
import torch
from torch import nn

import gradlens
from tests.lens.networks import stack
from tests.lens.training_loop import train


def test_parameter_gradients_are_those_of_backward_before_clipping():
    torch.manual_seed(0)
    model = stack()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradlens.attach(model, optimizer=optimizer, watch=("norms", "params", "updates")) as lens:
        model(torch.randn(4, 5, 16)).square().sum().backward()
        named = list(model.named_parameters())
        expected = {n: (p.grad.norm().item(), p.grad.abs().max().item(), p.norm().item()) for n, p in named}
        total = float(nn.utils.clip_grad_norm_(model.parameters(), 0.5))
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        optimizer.step()
        lens.step()
    params = lens.recording.params.set_index("name")
    for name, (norm, absmax, weight) in expected.items():
        assert params.loc[name, "grad_norm"] == pytest.approx(norm, rel=1e-6)
        assert params.loc[name, "grad_absmax"] == pytest.approx(absmax, rel=1e-6)
        assert params.loc[name, "weight_norm"] == pytest.approx(weight, rel=1e-6)
        change = float((dict(model.named_parameters())[name] - before[name]).norm())
        assert params.loc[name, "update_norm"] == pytest.approx(change, rel=1e-5)
    step = lens.recording.steps.iloc[0]
    assert step["grad_norm"] == pytest.approx(total, rel=1e-6)
    assert step["clip_coef"] == pytest.approx(0.5 / total, rel=1e-5)


@pytest.mark.parametrize("shape", [(2500, 2001), (5_000_001,)], ids=["matrix", "flat"])
def test_norms_of_millions_of_entries_are_exact(shape):
    model = nn.Module()
    model.weight = nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    model.forward = lambda factors: (model.weight * factors).sum()
    factors = 1e-6 * torch.randn(shape, generator=torch.Generator().manual_seed(1))
    with gradlens.attach(model, watch=("params", "updates")) as lens:
        model(factors).backward()
        before = model.weight.detach().double()
        with torch.no_grad():
            model.weight -= 0.1 * model.weight
        lens.step()
    (row,) = lens.recording.params.to_dict("records")
    expected = {"grad_norm": factors.double(), "weight_norm": before, "update_norm": model.weight.double() - before}
    for column, tensor in expected.items():
        assert row[column] == pytest.approx(float(tensor.detach().norm()), rel=1e-6), column


def test_tied_weights_are_reported_once_with_all_their_names():
    model = nn.Sequential(nn.Linear(16, 16, bias=False), nn.LayerNorm(16), nn.Linear(16, 16, bias=False))
    model[2].weight = model[0].weight
    with gradlens.attach(model) as lens:
        train(model, steps=1, lens=lens)
        assert lens.audit().tied == {"0.weight": ["2.weight"]}
    assert lens.recording.params["name"].tolist() == ["0.weight", "1.weight", "1.bias"]
