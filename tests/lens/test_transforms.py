"""What takes a model apart or makes another of it: torch.func, forward mode, TorchScript, DataParallel."""

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad

import gradlens
from gradlens import GradlensError
from tests.lens.networks import WIDTH, stack
from tests.lens.passes import backward, loss_of, record, vectors


def numbers(recording: gradlens.Recording):
    return recording.norms.select_dtypes("number").to_numpy()


def test_functional_call_is_recorded_with_the_parameters_it_was_called_with():
    model = stack()
    other = {name: 2 * p.detach().clone() + 0.1 for name, p in model.named_parameters()}
    expected = stack()
    expected.load_state_dict(other)

    def called(model, x):
        loss_of(torch.func.functional_call(model, leaves, (x,))).backward()

    leaves = {name: value.clone().requires_grad_() for name, value in other.items()}
    lens = record(model, backward=called)
    assert numbers(lens.recording) == pytest.approx(numbers(record(expected).recording), rel=1e-5, abs=1e-9)


def simple_loss(y: torch.Tensor) -> torch.Tensor:
    return (y * torch.arange(WIDTH).sin()).mean()


def forward_mode(function) -> torch.Tensor:
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(function(forward_ad.make_dual(vectors(0), vectors(1)))).tangent


TRANSFORMS = {
    "grad": lambda loss, parameters: torch.func.grad(loss)(parameters, vectors(0))["0.weight"],
    "vmap of grad": lambda loss, parameters: torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, vectors(0))[
        "0.weight"
    ],
    "jvp": lambda loss, parameters: torch.func.jvp(lambda x: loss(parameters, x), (vectors(0),), (vectors(1),))[1],
    "forward mode": lambda loss, parameters: forward_mode(lambda x: loss(parameters, x)),
    "hessian": lambda loss, parameters: torch.func.hessian(lambda x: loss(parameters, x))(vectors(0)[:1, 0]),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_function_transforms_give_the_users_numbers_and_what_is_not_recorded_is_said(transform):
    model = stack(blocks=2)
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(parameters, x):
        return simple_loss(torch.func.functional_call(model, parameters, (x,)))

    expected = TRANSFORMS[transform](loss, parameters)
    with gradlens.attach(model) as lens:
        torch.testing.assert_close(TRANSFORMS[transform](loss, parameters), expected)
        lens.step()
    got = lens.recording.norms
    if got.empty or got["kept"].isna().all():
        assert any("torch.func" in problem for problem in lens.audit().problems())
    else:
        plain = record(stack(blocks=2), backward=lambda model, x: simple_loss(model(x)).backward()).recording.norms
        assert got["kept"].to_numpy() == pytest.approx(plain["kept"].to_numpy(), rel=1e-4)


def test_after_a_function_transform_the_model_is_recorded_as_ever():
    model = stack()
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    with gradlens.attach(model) as lens:
        torch.func.grad(lambda p: simple_loss(torch.func.functional_call(model, p, (vectors(0),))))(parameters)
        lens.step()
        backward(model, vectors(0))
        lens.step()
    second = lens.recording.norms.query("step == 1").drop(columns="step").select_dtypes("number").to_numpy()
    expected = record(stack()).recording.norms.drop(columns="step").select_dtypes("number").to_numpy()
    assert second == pytest.approx(expected, rel=1e-5, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("nested", [False, True], ids=["the model itself", "a part of it"])
def test_data_parallel_is_refused_with_advice(nested):
    parallel = nn.DataParallel(stack())
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), parallel) if nested else parallel
    with pytest.raises(GradlensError, match="DistributedDataParallel"):
        gradlens.attach(model)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("kind", ["script", "trace", "a scripted part"])
def test_a_torchscript_model_is_refused_with_advice(kind):
    plain = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH))
    model = torch.jit.trace(plain, vectors(0)) if kind == "trace" else torch.jit.script(plain)
    if kind == "a scripted part":
        model = nn.Sequential(nn.Linear(WIDTH, WIDTH), model)
    with pytest.raises(GradlensError, match=r"torch\.jit"):
        gradlens.attach(model)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_model_can_be_traced_while_attached_and_the_trace_knows_nothing_of_the_lens():
    model = stack()
    expected = model(vectors(1))
    with gradlens.attach(model) as lens:
        traced = torch.jit.trace(model, vectors(0))
        torch.testing.assert_close(traced(vectors(1)), expected)
        model.zero_grad()
        backward(model, vectors(2))
        lens.step()
    assert lens.recording.norms["nonfinite"].eq(0).all()
    torch.testing.assert_close(traced(vectors(1)), expected)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_model_can_be_scripted_after_detach():
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH))
    record(model)
    torch.testing.assert_close(torch.jit.script(model)(vectors(0)), model(vectors(0)))
