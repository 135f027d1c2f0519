"""Which weights the loss does not feel the size of: Ba et al. 2016, Table 1, told by gradients and by scaling."""

import math

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from gradlens.probes.loss import Loss
from gradlens.probes.scale_free import freedoms, readings
from tests.probes.nets import squares


def behind(norm: str, eps: float = 1e-30) -> nn.Module:
    """A linear map with a norm right behind it, and something that depends on all of its output."""
    torch.manual_seed(0)
    linear = nn.Linear(20, 32, bias=False)
    norms = {"layer": nn.LayerNorm(32, eps), "batch": nn.BatchNorm1d(32, eps), "rms": nn.RMSNorm(32, eps)}
    first = [weight_norm(linear)] if norm == "weight" else [linear, norms[norm]] if norm in norms else [linear]
    return nn.Sequential(*first, nn.Tanh(), nn.Linear(32, 3)).double()


def of(norm: str, eps: float = 1e-30):
    model = behind(norm, eps)
    x = torch.randn(64, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = {freedom.name: freedom for freedom in freedoms(Loss(model, x, squares, double=True))}
    return model, x, found.get("0.weight") or found["0.parametrizations.weight.original1"]


#: The columns "weight matrix re-scaling", "weight vector re-scaling" and "weight matrix re-centering" of the table.
TABLE = {
    "batch": {"whole", "rows"},
    "weight": {"whole", "rows"},
    "layer": {"whole", "ones"},
    "rms": {"whole"},
    "none": set(),
}


@pytest.mark.parametrize("norm", TABLE)
def test_the_table_of_the_paper_stands_in_the_gradient(norm):
    _, _, found = of(norm)
    assert set(found.free) == TABLE[norm]
    for what in ("whole", "rows", "ones"):
        assert (getattr(found, what) < 1e-12) == (what in TABLE[norm])
    # What does not hold fails by far.
    assert all(getattr(found, what) > 0.02 for what in {"rows", "ones"} - TABLE[norm])


@pytest.mark.parametrize("norm", ["batch", "weight", "layer", "rms"])
def test_three_times_the_weight_has_a_third_of_the_gradient(norm):
    model, x, found = of(norm)
    name = found.name
    before = torch.autograd.grad(squares(model(x), x), model.get_parameter(name))[0]
    with torch.no_grad():
        model.get_parameter(name).mul_(3)
    after = torch.autograd.grad(squares(model(x), x), model.get_parameter(name))[0]
    assert float(after.norm() / before.norm()) == pytest.approx(1 / 3, abs=1e-4)


@pytest.mark.parametrize("norm", ["batch", "weight", "layer", "rms"])
def test_in_float32_the_gradient_is_at_right_angles_to_a_ten_thousandth(norm):
    model, x, found = of(norm)
    weight = model.float().get_parameter(found.name)
    grad = torch.autograd.grad(squares(model(x.float()), x), weight)[0]
    assert abs(float((grad * weight).sum() / (grad.norm() * weight.norm()))) < 1e-4


@pytest.mark.parametrize("norm", ["batch", "layer", "rms"])
def test_the_usual_eps_does_not_hide_it(norm):
    _, _, found = of(norm, eps=1e-6)
    assert set(found.free) == TABLE[norm]
    assert found.whole > 1e-12
    assert "whole" not in of(norm, eps=0.1)[2].free


def test_the_readings_name_what_is_free_and_leave_the_model_as_it_was():
    model, x, _ = of("layer", 1e-6)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = readings(model, x, squares, 0)
    assert [(r.site, r.name) for r in found] == [("", "free parameters"), ("0", "weight: whole"), ("0", "weight: ones")]
    assert found[0].value == 1
    assert found[0].unit == "of 4"  # the bias of the norm is 0 as yet
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_parameter_without_a_gradient_of_its_own_is_no_free_one():
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 2)).double()
    found = freedoms(Loss(model, torch.randn(16, 6, dtype=torch.float64), squares, double=True))
    assert "0.bias" not in {freedom.name for freedom in found}  # BatchNorm takes it out: its gradient is rounding
    assert all(math.isnan(freedom.rows) for freedom in found if freedom.name.endswith("bias"))
