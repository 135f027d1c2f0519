"""Situations that few trainings meet: the lens must neither stop them, nor change them, nor be wrong in silence."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

import gradlens
from tests.lens.networks import WIDTH, stack
from tests.lens.passes import backward, loss_of, record, vectors


class Saving(nn.Module):
    """A block whose checkpoint keeps the results of some operations, which the lens uses, too."""

    KEPT = (torch.ops.aten.sum.dim_IntList, torch.ops.aten.mul.Tensor, torch.ops.aten.addmm.default)

    def __init__(self, norm: type[nn.Module]) -> None:
        super().__init__()
        self.norm, self.linear = norm(WIDTH), nn.Linear(WIDTH, WIDTH)

    def branch(self, x):
        y = torch.relu(self.linear(self.norm(x)) * 0.5)
        return y * y.sum(-1, keepdim=True)

    def forward(self, x):
        def policy(context, operation, *args, **kwargs):
            return CheckpointPolicy.MUST_SAVE if operation in self.KEPT else CheckpointPolicy.PREFER_RECOMPUTE

        contexts = partial(create_selective_checkpoint_contexts, policy)
        return x + checkpoint(self.branch, x, use_reentrant=False, context_fn=contexts)


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm])
def test_a_selective_checkpoint_does_not_see_the_operations_of_the_lens(norm):
    def gradients(attached: bool) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(Saving(norm), Saving(norm))
        if attached:
            lens = record(model)
            assert lens.recording.norms["kept"].notna().tolist() == [False, True], "no gradient is needed at the first"
        else:
            backward(model, vectors(0))
        return [parameter.grad for parameter in model.parameters()]

    pairs = zip(gradients(True), gradients(False), strict=True)
    assert all(torch.allclose(got, expected, rtol=1e-5, atol=1e-7) for got, expected in pairs)


def test_several_gradients_at_once_pass_and_are_said_not_to_be_recorded():
    model, x = stack(), vectors(0).requires_grad_()
    expected = torch.autograd.functional.jacobian(model, x, vectorize=True)
    with gradlens.attach(model) as lens:
        assert torch.equal(torch.autograd.functional.jacobian(model, x, vectorize=True), expected)
        y = model(x)
        torch.autograd.grad(y, x, torch.stack([torch.ones_like(y)] * 3), is_grads_batched=True)
        backward(model, vectors(0))
        lens.step()
        assert any("torch.func" in problem for problem in lens.audit().problems())
        assert lens.audit().unsupported == {}


def test_nested_tensors_pass_and_are_said_not_to_be_recorded():
    model = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH))
    x = torch.nested.nested_tensor([torch.randn(3, WIDTH), torch.randn(5, WIDTH)], layout=torch.jagged)
    with gradlens.attach(model) as lens:
        model(x).values().square().sum().backward()
        lens.step()
        assert any("nested tensor" in problem for problem in lens.audit().problems())


@pytest.mark.parametrize("last", [True, False])
def test_a_sparse_gradient_without_an_entry_is_zero(last):
    model = nn.ModuleDict({"linear": nn.Linear(WIDTH, 1)})
    model["table"] = nn.Embedding(10, WIDTH, sparse=True)
    model = nn.ModuleDict(dict(model.items() if last else reversed(model.items())))
    model.forward = lambda x: model["linear"](x + model["table"](torch.empty(0, dtype=torch.long)).sum(0))
    recording = record(model).recording
    assert recording.params.set_index("name").loc["table.weight", "grad_norm"] == 0.0


@pytest.mark.parametrize("std", [1e-2, 1e-3, 1e-4])
def test_the_size_of_a_small_input_is_exact_where_only_its_deviation_is_kept(std):
    x = std * torch.randn(50, 64, generator=torch.Generator().manual_seed(0))
    model = nn.LayerNorm(64)
    with gradlens.attach(model) as lens:
        model(x.requires_grad_()).square().sum().backward()
        lens.step()
    (row,) = lens.recording.activations.to_dict("records")
    assert row["rms"] == pytest.approx(float(x.detach().double().square().mean().sqrt()), rel=1e-3)


def test_a_backward_pass_inside_of_autocast_gives_the_same_numbers():
    def numbers(inside: bool):
        model = stack()
        with gradlens.attach(model) as lens:
            with torch.autocast("cpu", torch.bfloat16):
                loss = loss_of(model(vectors(0)))
                if inside:
                    loss.backward()
            if not inside:
                loss.backward()
            lens.step()
        return lens.recording.norms.select_dtypes("number").to_numpy()

    assert numbers(True) == pytest.approx(numbers(False), rel=1e-6, nan_ok=True)


def replace_weights(model):
    model.load_state_dict({name: 2 * value for name, value in model.state_dict().items()}, assign=True)


def add_an_adapter(model):
    model[2] = nn.Sequential(model[2], nn.Linear(WIDTH, WIDTH))


def parametrize_a_matrix(model):
    nn.utils.parametrizations.weight_norm(model[0])


@pytest.mark.parametrize("change", [replace_weights, add_an_adapter, parametrize_a_matrix])
def test_parameters_that_came_after_the_lens_are_read_and_it_is_said(change):
    model = stack()
    with gradlens.attach(model) as lens:
        change(model)
        backward(model, vectors(0))
        lens.step()
        assert any("replaced or added" in problem for problem in lens.audit().problems())
    gradients = {name: p.grad for name, p in model.named_parameters()}
    params = lens.recording.params.set_index("name")["grad_norm"]
    assert set(params.index) == set(gradients)
    for name, gradient in gradients.items():
        assert params[name] == pytest.approx(float(gradient.norm()), rel=1e-5), name


def test_an_optimizer_that_steps_inside_of_backward_is_named():
    model = stack()
    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
    problems = record(model).audit().problems()
    assert any("No parameter held a gradient" in problem for problem in problems)


def test_clipping_of_a_part_of_the_model_is_no_one_factor():
    model = stack()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradlens.attach(model, optimizer=optimizer) as lens:
        backward(model, vectors(0))
        nn.utils.clip_grad_norm_(model[0].parameters(), 1e-4)
        optimizer.step()
    assert lens.recording.steps["clip_coef"].isna().all()


def test_one_scaler_for_two_optimizers_counts_the_steps_of_one():
    model = nn.ModuleDict({"g": stack(), "d": stack()})
    model.forward = lambda x, both: model["d"](model["g"](x) if both else model["g"](x).detach())
    first, second = (torch.optim.Adam(model[part].parameters()) for part in "gd")
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    with gradlens.attach(model, optimizer=first, scaler=scaler) as lens:
        for step in range(3):
            for optimizer in (first, second):
                optimizer.zero_grad()
                scaler.scale(loss_of(model(vectors(step), optimizer is first))).backward()
                scaler.step(optimizer)
            scaler.update()
    assert lens.recording.steps["step"].tolist() == [0, 1, 2]


def test_a_backward_pass_that_raised_and_was_repeated_counts_once():
    model = stack()
    with gradlens.attach(model) as lens:
        failing = model[0].weight.register_hook(lambda grad: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            backward(model, vectors(0))
        failing.remove()
        model.zero_grad()
        backward(model, vectors(0))
        lens.step()
    expected = record(stack()).recording.norms
    got = lens.recording.norms[expected.columns]
    assert got["call"].eq(0).all()
    assert got["vectors"].tolist() == expected["vectors"].tolist()
    assert got["grad_output_norm"].tolist() == pytest.approx(expected["grad_output_norm"].tolist(), rel=1e-6)


def test_micro_batches_of_a_model_whose_forward_is_never_called_merge():
    model = nn.ModuleDict({"encoder": stack(), "decoder": stack()})

    def numbers(parts):
        with gradlens.attach(model) as lens:
            for part in parts:
                model["decoder"](model["encoder"](part)).square().sum().backward()
            lens.step()
        return lens.recording.norms

    whole, split = numbers([vectors(0)]), numbers(vectors(0).split([1, 3]))
    assert split["call"].eq(0).all()
    assert split["kept"].tolist() == pytest.approx(whole["kept"].tolist(), rel=1e-5)


def test_hooks_of_others_on_a_norm_are_named():
    model = stack()
    model[2].register_forward_hook(lambda module, args, output: 0.5 * output)
    problems = record(model).audit().problems()
    assert any("Other hooks stand on 2" in problem for problem in problems)


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.float8_e4m3fn])
def test_updates_of_quantized_weights_are_missing(dtype):
    model = stack()
    model.frozen = nn.Parameter(torch.zeros(4).to(dtype), requires_grad=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradlens.attach(model, optimizer=optimizer, watch=("params", "updates")) as lens:
        backward(model, vectors(0))
        optimizer.step()
    updates = lens.recording.params.set_index("name")["update_norm"]
    assert updates.isna().to_dict() == {name: name == "frozen" for name in updates.index}
