"""Outputs that are views, and changed in place afterwards: autograd moves their hooks away, the numbers stay right."""

import pytest
import torch
from torch import nn

import gradlens
from gradlens.lens.taps.views import hook_traced_output
from tests.lens.networks import stir
from tests.lens.passes import loss_of, pictures, record
from tests.lens.witness import Witness


class ChannelsFirst(nn.LayerNorm):
    """A LayerNorm over the channels of a picture, as ConvNeXt writes it; its output is a transposed view."""

    def forward(self, x):
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class Behind(nn.LayerNorm):
    """Normalizes a token of its own besides, which stands before the others; returns the others."""

    def forward(self, x):
        return super().forward(torch.cat([x[:1] + 1, x]))[1:]


class Head(nn.LayerNorm):
    """Returns a part of what it normalized."""

    def forward(self, x):
        return super().forward(x)[:, :3]


def relu(y):
    return nn.functional.relu(y, inplace=True)


def add(y):
    y += y.detach().tanh()
    return y


def scale_half(y):
    y[:, :1] *= 3
    return y


def two(y):
    y.mul_(2)
    return y.clamp_(max=1)


CHANGES = {"relu": relu, "+=": add, "a part": scale_half, "twice": two, "nothing": lambda y: y.tanh()}
NORMS = {
    "instance norm": lambda: nn.InstanceNorm2d(4, affine=True),
    "instance norm without a gain": lambda: nn.InstanceNorm2d(4),
    "batch norm": lambda: nn.BatchNorm2d(4),
    "group norm": lambda: nn.GroupNorm(2, 4),
}


class Net(nn.Module):
    """nnU-Net's and CycleGAN's: convolution, norm, an activation in place."""

    def __init__(self, norm, change, ends: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.change, self.ends = nn.Conv2d(2, 4, 3), norm(), change, ends
        self.last = nn.Identity() if ends else nn.Conv2d(4, 2, 3)

    def forward(self, x):
        y = self.norm(self.conv(x))
        return y if self.ends else self.last(self.change(y))


def oracle(model: Net, x) -> dict[str, torch.Tensor]:
    """The gradients at the norm's output, before the change, and at its input: in float64, where the change is one of a
    copy."""
    double = Net(lambda: model.norm, model.change).double()
    double.load_state_dict(model.state_dict())
    h = double.conv(x.double()).detach().requires_grad_()
    y = double.norm(h)
    y.retain_grad()
    loss_of(double.last(model.change(y.clone()))).backward()
    model.float()
    return {"grad_output": y.grad, "grad_input": h.grad}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("norm", NORMS)
def test_the_gradient_of_an_output_is_that_of_before_the_change(norm, change):
    model = stir(Net(NORMS[norm], CHANGES[change]))
    lens = record(model, batch=pictures)
    expected = oracle(model, pictures(0))
    row = lens.recording.norms.iloc[0]
    assert lens.audit().problems() == []
    assert row["grad_output_norm"] == pytest.approx(float(expected["grad_output"].norm()), rel=1e-5)
    assert row["grad_input_norm"] == pytest.approx(float(expected["grad_input"].norm()), rel=1e-4)


@pytest.mark.parametrize("change", CHANGES)
def test_the_shares_at_an_instance_norm_are_those_of_autograd_in_float64(change):
    model = stir(Net(NORMS["instance norm"], CHANGES[change]))
    x = pictures(0)
    row = record(model, batch=pictures).recording.norms.iloc[0]
    expected = oracle(model, x)
    h = model.conv(x).detach().double()
    gain = model.norm.weight.detach().double().view(-1, 1, 1)
    g = gain * expected["grad_output"]
    mean, sigma = h.mean((2, 3), keepdim=True), (h.var((2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
    width, total = h[0, 0].numel(), float(g.square().sum())
    assert row["recentering"] == pytest.approx(float(width * g.mean((2, 3)).square().sum()) / total, abs=1e-4)
    along = (g * (h - mean) / sigma).mean((2, 3))
    assert row["rescaling"] == pytest.approx(float(width * along.square().sum()) / total, abs=1e-4)
    assert row["kept"] == pytest.approx(float((expected["grad_input"] * sigma).square().sum()) / total, abs=1e-4)


def fail(error):
    raise error


#: A tensor, a view of it, and whether a change of the view in place loses no gradient.
VIEWS = {
    "with one axis made two": ((3, 4, 2), lambda h: h.unflatten(1, (2, 2)), True),
    "with one axis more": ((3, 4, 2), lambda h: h.unsqueeze(1), True),
    "transposed": ((3, 4, 2), lambda h: h.transpose(0, 1), True),
    "its axes in a ring": ((3, 4, 2), lambda h: h.permute(1, 2, 0), True),
    "axes of one length": ((3, 3, 3), lambda h: h.transpose(0, 2), True),
    "axes of length one": ((1, 1, 3, 2), lambda h: h.transpose(2, 3).transpose(0, 1), True),
    "transposed, with one axis more": ((3, 4, 2), lambda h: h.transpose(0, 1).unsqueeze(0), False),
    "transposed, with one axis less": ((3, 4, 2, 1), lambda h: h.transpose(0, 1).squeeze(-1), False),
    "a part": ((3, 4, 2), lambda h: h[:, 1:], False),
    "a part that lies in one piece": ((3, 4, 2), lambda h: h[1:], False),
    "as many entries, of a part": ((3, 4, 2), lambda h: h[:, :, :1].expand(3, 4, 2), False),
}


@pytest.mark.parametrize("laid", [lambda h: h * 1, lambda h: h.mT.contiguous().mT * 1], ids=["in order", "otherwise"])
@pytest.mark.parametrize("name", VIEWS)
def test_the_gradient_of_a_view_is_read_off_its_base_where_that_has_all_of_it(name, laid):
    shape, view, lasts = VIEWS[name]
    base, came = laid(torch.randn(shape, requires_grad=True)), []
    y = view(base)
    hook_traced_output(y, torch.zeros(()), came.append, fail)
    weight, lasts = torch.randn(y.shape), lasts and base.is_contiguous()
    (weight * (y.mul_(2) if lasts else y)).sum().backward()
    (grad,) = came
    assert torch.equal(grad, weight * (2 if lasts else 1))


@pytest.mark.parametrize("change", CHANGES)
def test_in_a_compiled_graph_they_are_the_same(change):
    def numbers(compiled: bool):
        torch.compiler.reset()
        model = stir(Net(NORMS["instance norm"], CHANGES[change]))
        with gradlens.attach(model) as lens:
            run = torch.compile(model, backend="aot_eager", fullgraph=True) if compiled else model
            for step in range(2):
                loss_of(run(pictures(step))).backward()
                lens.step()
        return lens.recording.norms.select_dtypes("number").to_numpy()

    assert numbers(True) == pytest.approx(numbers(False), rel=1e-4, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize(
    ("norm", "axes", "compiled"), [(ChannelsFirst, 1, False), (ChannelsFirst, 1, True), (Behind, -1, False)]
)
def test_a_norm_that_returns_a_view_is_recorded_whatever_follows_in_place(norm, axes, compiled):
    """Its output is transposed, or a part; the same network, with a copy before the change, loses no hook."""

    def numbers(change):
        torch.compiler.reset()
        model = stir(Net(lambda: norm(4 if axes == 1 else 3), change))
        gradlens.register_norm(norm, axes=axes)
        with gradlens.attach(model) as lens:
            run = torch.compile(model, backend="aot_eager", fullgraph=True) if compiled else model
            loss_of(run(pictures(0))).backward()
            lens.step()
        assert lens.audit().problems() == []
        return lens.recording.norms.select_dtypes("number").to_numpy()

    assert numbers(relu) == pytest.approx(numbers(lambda y: relu(y.clone())), rel=1e-5, abs=1e-9)


def beside(y):
    return torch.cat([y, y.detach()], -1)


class TwoViewsNorm(nn.LayerNorm):
    """Returns what it normalized as it is, and transposed."""

    def forward(self, x):
        y = super().forward(x)
        return y.view(y.shape), y.transpose(0, 1)


@pytest.mark.parametrize("use", [lambda y: y, lambda y: beside(y.transpose(0, 1))])
def test_a_gradient_that_comes_by_another_view_of_the_output_is_the_outputs(use):
    """It lies in memory as its consumers have it, and is read as the output lies."""

    def numbers(norm, transposed):
        torch.manual_seed(0)
        model = stir(nn.Sequential(nn.Linear(8, 8), norm(8)))
        with gradlens.attach(model) as lens:
            loss_of(use(transposed(model(torch.randn(4, 5, 8))))).backward()
            lens.step()
        return lens.recording.norms.select_dtypes("number").to_numpy()

    gradlens.register_norm(TwoViewsNorm, axes=-1)
    expected = numbers(nn.LayerNorm, lambda y: y.transpose(0, 1))
    assert numbers(TwoViewsNorm, lambda views: views[1]) == pytest.approx(expected, rel=1e-5, abs=1e-9)


def test_several_passes_through_one_graph_count_each_gradient_once():
    model = stir(Net(NORMS["instance norm"], lambda y: y.tanh()))
    x = pictures(0)

    def energy(backward):
        with gradlens.attach(model) as lens:
            model.zero_grad()
            backward(loss_of(model(x)))
            lens.step()
        return lens.recording.norms["grad_output_norm"][0] ** 2

    def twice(loss):
        loss.backward(retain_graph=True)
        loss.backward()

    assert energy(twice) == pytest.approx(2 * energy(lambda loss: loss.backward()), rel=1e-5)


def test_a_part_of_what_was_normalized_is_named():
    model = nn.Sequential(nn.Linear(8, 8), Head(8))
    gradlens.register_norm(Head, axes=-1)
    with gradlens.attach(model) as lens:
        y = relu(model(torch.randn(2, 5, 8)))
        y.square().sum().backward()
        lens.step()
    # Output and input have different vectors: such a norm is left alone and named, and the training went on.
    assert any("Nothing is recorded at 1" in problem for problem in lens.audit().problems())
    assert lens.recording.norms.empty


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("view", [False, True])
def test_a_models_own_output_may_be_changed_in_place(view, compiled):
    """The parameters' gradients are read at the end of backward, before clipping."""
    torch.compiler.reset()
    model = stir(Net(lambda: nn.InstanceNorm2d(4, affine=True) if view else nn.BatchNorm2d(4), None, ends=True))
    with gradlens.attach(model) as lens:
        run = torch.compile(model, backend="aot_eager", fullgraph=True) if compiled else model
        y = run(pictures(0))
        relu(y)
        (100 * loss_of(y)).backward()
        grads = [p.grad.double().norm() for p in model.parameters()]
        nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        lens.step()
    assert lens.recording.steps["grad_norm"][0] == pytest.approx(float(torch.stack(grads).norm()), rel=1e-5)
    assert lens.audit().problems() == []


def test_a_parameter_whose_view_the_model_returns_keeps_no_hook():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.scale = nn.LayerNorm(8), nn.Parameter(torch.ones(2, 4))

        def forward(self, x):
            return self.norm(x), self.scale.view(8)

    model = Tied()
    with gradlens.attach(model) as lens:
        y, scale = model(torch.randn(3, 8))
        (y * scale).sum().backward()
        lens.step()
    assert not model.scale._backward_hooks


def test_a_witness_of_float64_agrees_over_several_steps():
    model = stir(nn.Sequential(Net(NORMS["instance norm"], relu), nn.Conv2d(2, 4, 1), NORMS["instance norm"]()))
    copying = Net(NORMS["instance norm"], lambda y: relu(y.clone()))
    witness_model = stir(nn.Sequential(copying, nn.Conv2d(2, 4, 1), NORMS["instance norm"]()))
    witness_model.load_state_dict(model.state_dict())
    witness = Witness(witness_model)
    with gradlens.attach(model) as lens:
        rows = []
        for step in range(3):
            for one in (model, witness_model):
                loss_of(one(2 + pictures(step).repeat(1, 1, 2, 2))).backward()
            lens.step()
            rows.append(witness.step())
    norms = lens.recording.norms.set_index(["step", "site"])
    for step, expected in enumerate(rows):
        for (site, _), one in expected.items():
            one.check(norms.loc[(step, site)], 1e-4, 1e-3)
