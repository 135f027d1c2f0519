"""The recorded decomposition equals float64 autograd, for every kind of normalization."""

import pytest
import torch
from torch import Tensor, nn

import gradlens
from tests.oracles import Case, assert_row, expected_row

pytestmark = pytest.mark.usefixtures("measured_by")


class T5Like(nn.Module):
    """The RMS norm of T5: no mean, no bias, variance in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.variance_epsilon = eps

    def forward(self, hidden_states: Tensor) -> Tensor:
        variance = hidden_states.to(torch.float32).pow(2).mean(-1, keepdim=True)
        hidden_states = hidden_states * torch.rsqrt(variance + self.variance_epsilon)
        return self.weight * hidden_states.to(self.weight.dtype)


class GemmaLikeRMSNorm(T5Like):
    """Gain 1 + weight, as in Gemma."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return (y * (1.0 + self.weight.float())).type_as(x)


class T5LayerNorm(T5Like):
    """Its name is all the lens has to suspect it by."""


class ConvNextLayerNorm(nn.LayerNorm):
    """Channels first, derived from nn.LayerNorm with another forward, as in ConvNeXt."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        x = nn.functional.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


def last(weight: Tensor | None) -> Tensor | None:
    return None if weight is None else weight.detach()


def per_channel(weight: Tensor | None, ndim: int) -> Tensor | None:
    return None if weight is None else weight.detach().view(-1, *([1] * (ndim - 2)))


def groups(count: int):
    return lambda x: x.reshape(x.shape[0], count, x.shape[1] // count, -1)


#: name -> (module of eps, shapes it takes, case of (module, eps, ndim))
KINDS = {
    "layernorm": (
        lambda eps: nn.LayerNorm(24, eps),
        [(10, 24), (4, 5, 24), (2, 3, 4, 24)],
        lambda m, eps, n: Case((-1,), eps, gain=last(m.weight)),
    ),
    "layernorm over two axes": (
        lambda eps: nn.LayerNorm((4, 6), eps),
        [(10, 4, 6), (3, 5, 4, 6)],
        lambda m, eps, n: Case((-2, -1), eps, gain=last(m.weight)),
    ),
    "layernorm without affine": (
        lambda eps: nn.LayerNorm(24, eps, elementwise_affine=False),
        [(4, 5, 24)],
        lambda m, eps, n: Case((-1,), eps),
    ),
    "rmsnorm": (
        lambda eps: nn.RMSNorm(24, eps),
        [(10, 24), (4, 5, 24), (2, 3, 4, 24)],
        lambda m, eps, n: Case((-1,), eps, centered=False, gain=last(m.weight)),
    ),
    "batchnorm1d": (
        lambda eps: nn.BatchNorm1d(6, eps),
        [(16, 6), (8, 6, 5)],
        lambda m, eps, n: Case((0, *range(2, n)), eps, gain=per_channel(m.weight, n)),
    ),
    "batchnorm2d": (
        lambda eps: nn.BatchNorm2d(6, eps),
        [(4, 6, 3, 5)],
        lambda m, eps, n: Case((0, 2, 3), eps, gain=per_channel(m.weight, n)),
    ),
    "batchnorm3d": (
        lambda eps: nn.BatchNorm3d(6, eps),
        [(4, 6, 3, 2, 2)],
        lambda m, eps, n: Case((0, 2, 3, 4), eps, gain=per_channel(m.weight, n)),
    ),
    "groupnorm": (
        lambda eps: nn.GroupNorm(2, 6, eps),
        [(5, 6), (4, 6, 5), (4, 6, 3, 5)],
        lambda m, eps, n: Case((-2, -1), eps, gain=m.weight.detach().view(2, 3, 1), to_view=groups(2)),
    ),
    "instancenorm1d": (
        lambda eps: nn.InstanceNorm1d(6, eps, affine=True),
        [(4, 6, 9)],
        lambda m, eps, n: Case((-2, -1), eps, gain=m.weight.detach().view(6, 1, 1), to_view=groups(6)),
    ),
    "instancenorm2d": (
        lambda eps: nn.InstanceNorm2d(6, eps, affine=True),
        [(4, 6, 3, 5)],
        lambda m, eps, n: Case((-2, -1), eps, gain=m.weight.detach().view(6, 1, 1), to_view=groups(6)),
    ),
    "t5": (
        lambda eps: T5LayerNorm(24, eps),
        [(10, 24), (4, 5, 24)],
        lambda m, eps, n: Case((-1,), eps, centered=False, gain=last(m.weight)),
    ),
    "gemma": (
        lambda eps: GemmaLikeRMSNorm(24, eps),
        [(4, 5, 24)],
        lambda m, eps, n: Case((-1,), eps, centered=False, gain=1 + last(m.weight)),
    ),
    "convnext": (
        lambda eps: ConvNextLayerNorm(6, eps),
        [(4, 6, 3, 5)],
        lambda m, eps, n: Case((1,), eps, gain=per_channel(m.weight, n)),
    ),
}
PARAMETERS = [
    pytest.param(kind, shape, eps, correlated, id=f"{kind}-{len(shape)}d-eps{eps:g}-{'corr' if correlated else 'iid'}")
    for kind, (_, shapes, _) in KINDS.items()
    for shape in shapes
    for eps in (1e-5, 4.0)  # inputs have variance 4: eps of the size of the variance
    for correlated in (False, True)
]


def backward_through(module: nn.Module, x: Tensor, grad: Tensor) -> gradlens.Recording:
    """Run the norm between two other uses of x, so that x has more than one consumer."""
    x = x.clone().requires_grad_()
    with gradlens.attach(module) as lens:
        y = module(x)
        (y * grad).sum().add((x**2).sum()).backward()
        lens.step()
    return lens.recording


@pytest.mark.parametrize(("kind", "shape", "eps", "correlated"), PARAMETERS)
def test_recorded_shares_and_moments_equal_float64_autograd(kind, shape, eps, correlated):
    torch.manual_seed(0)
    make, _, case_of = KINDS[kind]
    module = make(eps)
    for parameter in module.parameters():
        nn.init.uniform_(parameter, 0.3, 1.7)
    x = 2.0 * torch.randn(shape) + 1.5
    grad = torch.randn(shape) + 0.3
    if correlated:
        grad = grad + 0.5 * (x - 1.5)
    case = case_of(module, eps, len(shape))
    assert_row(backward_through(module, x, grad).norms.iloc[0], expected_row(x, grad, case))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("t5", "gemma")])  # they compute in float32
def test_float64_models_are_recorded_in_float64(kind):
    torch.manual_seed(1)
    make, shapes, case_of = KINDS[kind]
    module = make(1e-5).double()
    x, grad = torch.randn(shapes[-1]).double() + 0.5, torch.randn(shapes[-1]).double() + 0.3
    row = backward_through(module, x, grad).norms.iloc[0]
    assert_row(row, expected_row(x, grad, case_of(module, 1e-5, x.dim())), share=1e-12, relative=1e-11)


def test_input_far_from_zero_keeps_its_variance():
    torch.manual_seed(0)
    module, x, grad = nn.LayerNorm(64), torch.randn(32, 64) + 1000.0, torch.randn(32, 64)
    row = backward_through(module, x, grad).norms.iloc[0]
    assert row["inv_sigma"] == pytest.approx(expected_row(x, grad, Case((-1,), 1e-5))["inv_sigma"], rel=1e-4)


def test_grad_input_norm_is_the_gradient_through_the_norm_only_at_a_pre_ln_input():
    torch.manual_seed(0)
    norm, branch, h = nn.LayerNorm(16), nn.Linear(16, 16), torch.randn(8, 16)

    def gradient(skip: bool) -> float:
        x = h.clone().requires_grad_()
        y = branch(norm(x)) + (x if skip else x.detach())
        y.square().sum().backward()
        return float(x.grad.norm())

    through_norm, with_skip = gradient(skip=False), gradient(skip=True)
    x = h.clone().requires_grad_()
    with gradlens.attach(norm) as lens:
        (branch(norm(x)) + x).square().sum().backward()
        lens.step()
    recorded = lens.recording.norms.iloc[0]["grad_input_norm"]
    assert recorded == pytest.approx(through_norm, rel=1e-5)
    assert abs(recorded - with_skip) > 0.05 * with_skip


def test_batchnorm_in_evaluation_removes_nothing_for_its_statistics_are_constants():
    torch.manual_seed(0)
    module = nn.BatchNorm2d(6)
    module.running_mean.uniform_(-1, 1)
    module.running_var.uniform_(0.5, 2)
    module.eval()
    x, grad = torch.randn(4, 6, 3, 3), torch.randn(4, 6, 3, 3)
    row = backward_through(module, x, grad).norms.iloc[0]
    assert row["kept"] == pytest.approx(1.0, abs=1e-6)
    assert row["recentering"] == 0
    assert row["inv_sigma"] == pytest.approx(float((module.running_var + 1e-5).rsqrt().mean()), rel=1e-6)


@pytest.mark.parametrize("size", ["unbatched", "batched"])
def test_instancenorm_takes_a_single_sample_too(size):
    torch.manual_seed(0)
    module = nn.InstanceNorm1d(6, affine=True)
    x, grad = torch.randn(1, 6, 9), torch.randn(1, 6, 9)
    case = Case((-2, -1), 1e-5, gain=module.weight.detach().view(6, 1, 1), to_view=groups(6))
    expected = expected_row(x, grad, case)
    if size == "unbatched":
        x, grad = x[0], grad[0]
    assert_row(backward_through(module, x, grad).norms.iloc[0], expected)


def test_a_single_entry_has_no_variance_and_is_recorded_all_the_same():
    row = backward_through(nn.LayerNorm(1, eps=0.25), torch.tensor([[3.0]]), torch.tensor([[2.0]])).norms.iloc[0]
    assert row["vectors"] == 1
    assert row["inv_sigma"] == pytest.approx(2.0, rel=1e-6)
    assert row["grad_output_norm"] == pytest.approx(2.0, rel=1e-6)
    assert row["grad_input_norm"] == 0


@pytest.mark.parametrize("kind", ["layernorm", "rmsnorm", "groupnorm"])
def test_an_empty_batch_has_no_row_and_the_norm_is_recorded_when_something_comes(kind):
    module = KINDS[kind][0](1e-5)
    width = KINDS[kind][1][0][-1]
    with gradlens.attach(module) as lens:
        for batch in (0, 3):
            module(torch.randn(batch, width, requires_grad=True)).sum().backward()
            lens.step()
        assert lens.audit().unsupported == {}
    assert lens.recording.norms[["step", "vectors"]].to_numpy().tolist() == [[1, 3 * (2 if kind == "groupnorm" else 1)]]


@pytest.mark.parametrize("eps", [1e-5, 4.0])
@pytest.mark.parametrize("kind", list(KINDS))
def test_mean_and_size_of_what_goes_in_are_those_of_its_entries_whatever_the_eps(kind, eps):
    torch.manual_seed(2)
    make, shapes, _ = KINDS[kind]
    x = 2.0 * torch.randn(shapes[-1]) + 1.5
    (row,) = backward_through(make(eps), x, torch.randn(shapes[-1])).activations.to_dict("records")
    exact = x.double()
    assert row["numel"] == x.numel()
    assert row["mean"] == pytest.approx(float(exact.mean()), rel=1e-5)
    assert row["rms"] == pytest.approx(float(exact.square().mean().sqrt()), rel=1e-5)
    assert row["absmax"] == pytest.approx(float(exact.abs().max()), rel=1e-6)
