"""Norms in half precision on a CPU: their backward pass uses the 1/σ that was rounded to the gain's precision."""

import pytest
import torch
from torch import nn

import gradlens
from tests.oracles import SHARES, Case, expected_row

pytestmark = pytest.mark.usefixtures("measured_by")

#: A norm, the shape of its input, and how the oracle sees it.
WIDTH, CHANNELS = 256, 32
NORMS = {
    "LayerNorm": (lambda: nn.LayerNorm(WIDTH), (64, WIDTH)),
    "LayerNorm without a gain": (lambda: nn.LayerNorm(WIDTH, elementwise_affine=False), (64, WIDTH)),
    "GroupNorm": (lambda: nn.GroupNorm(4, CHANNELS), (16, CHANNELS, 16)),
    "BatchNorm": (lambda: nn.BatchNorm1d(CHANNELS), (16, CHANNELS, 16)),
    "InstanceNorm": (lambda: nn.InstanceNorm1d(CHANNELS, affine=True), (4, CHANNELS, 128)),
    "RMSNorm": (lambda: nn.RMSNorm(WIDTH), (64, WIDTH)),
}


def case_of(norm: nn.Module) -> Case:
    gain = None if norm.weight is None else norm.weight.detach().double()
    eps = norm.eps or torch.finfo(torch.float32).eps
    if isinstance(norm, nn.GroupNorm):
        split = lambda x: x.reshape(len(x), norm.num_groups, CHANNELS // norm.num_groups, -1)  # noqa: E731
        return Case((-2, -1), eps, gain=gain.view(norm.num_groups, -1, 1), to_view=split)
    if isinstance(norm, nn.BatchNorm1d):
        return Case((0, 2), eps, gain=gain.view(-1, 1))
    if isinstance(norm, nn.InstanceNorm1d):
        return Case((-1,), eps, gain=gain.view(-1, 1))
    return Case((-1,), eps, centered=isinstance(norm, nn.LayerNorm), gain=gain)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("gain", ["half", "float32"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NORMS)
def test_the_shares_are_right_for_the_gradient_that_torch_sent(name, dtype, gain, compiled):
    """Vectors have nearly one σ, so that its rounding does not average out. In a graph a BatchNorm's is not seen."""
    make, shape = NORMS[name]
    torch.manual_seed(0)
    norm = make()
    if norm.weight is not None:
        nn.init.uniform_(norm.weight, 0.3, 1.7)
    norm = norm if gain == "float32" else norm.to(dtype)
    if norm.weight is not None and gain == "float32" and isinstance(norm, nn.RMSNorm):
        pytest.skip("torch multiplies in float32, and its output has another precision than its input")
    torch.compiler.reset()
    worst = dict.fromkeys(SHARES, 0.0)
    with gradlens.attach(norm) as lens:
        run = torch.compile(norm, backend="aot_eager", fullgraph=True) if compiled else norm
        for step, scale in enumerate((0.37, 0.5, 0.61, 0.83)):
            x = (scale * torch.randn(shape) + 0.3).to(dtype).requires_grad_()
            grad = torch.randn(shape)
            grad = (grad + 0.1 * x.detach().float()).to(dtype)
            run(x).backward(grad)
            lens.step()
            expected = expected_row(x.detach(), grad, case_of(norm))
            row = lens.recording.norms.query(f"step == {step}").iloc[0]
            for share in SHARES:
                worst[share] = max(worst[share], abs(row[share] - expected[share]))
            assert row["inv_sigma"] == pytest.approx(expected["inv_sigma"], rel=4e-3)
            rms = lens.recording.activations.query(f"step == {step}")["rms"].iloc[0]
            assert rms == pytest.approx(float(x.detach().double().square().mean().sqrt()), rel=1e-5)
    unseen = compiled and isinstance(norm, nn.BatchNorm1d | nn.InstanceNorm1d)
    assert max(worst.values()) < (2e-3 if unseen else 3e-4), worst


def test_a_norm_called_as_a_function_is_rounded_alike():
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.empty(WIDTH).uniform_(0.3, 1.7).bfloat16())

        def forward(self, x):
            return nn.functional.layer_norm(x, (WIDTH,), self.gain)

    torch.manual_seed(0)
    model = Functional()
    x = (0.37 * torch.randn(64, WIDTH) + 0.3).bfloat16().requires_grad_()
    grad = torch.randn(64, WIDTH).bfloat16()
    with gradlens.attach(model, functional=True) as lens:
        model(x).backward(grad)
        lens.step()
    expected = expected_row(x.detach(), grad, Case((-1,), 1e-5, gain=model.gain.detach().double()))
    row = lens.recording.norms.iloc[0]
    for share in SHARES:
        assert row[share] == pytest.approx(expected[share], abs=2e-4)


def test_under_autocast_a_gain_in_float32_is_rounded_nowhere():
    torch.manual_seed(0)
    norm = nn.LayerNorm(WIDTH)
    nn.init.uniform_(norm.weight, 0.3, 1.7)
    x = (0.37 * torch.randn(64, WIDTH) + 0.3).bfloat16().requires_grad_()
    grad = torch.randn(64, WIDTH).bfloat16()
    with gradlens.attach(norm) as lens:
        with torch.autocast("cpu", torch.bfloat16):
            y = norm(x)
        y.backward(grad.to(y.dtype))
        lens.step()
    expected = expected_row(x.detach(), grad, case_of(norm))
    row = lens.recording.norms.iloc[0]
    for share in SHARES:
        assert row[share] == pytest.approx(expected[share], abs=2e-4)
    assert row["inv_sigma"] == pytest.approx(expected["inv_sigma"], rel=1e-5)
