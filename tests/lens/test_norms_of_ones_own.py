"""Norms that nobody declared: told by what they do, whatever they and their parameters are called."""

import itertools

import pytest
import torch
from torch import nn

import gradlens

WIDTH = 64


def make(name: str, gain: str, unbiased: bool) -> type[nn.Module]:
    class Norm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_parameter(gain, nn.Parameter(torch.empty(WIDTH).uniform_(0.2, 2.0)))
            self.shift, self.eps = nn.Parameter(torch.zeros(WIDTH)), 1e-6

        def forward(self, x):
            centred = x - x.mean(-1, keepdim=True)
            spread = x.std(-1, keepdim=True) + self.eps if unbiased else (x.var(-1, False, keepdim=True) + 1e-6).sqrt()
            return getattr(self, gain) * centred / spread + self.shift

    Norm.__name__ = Norm.__qualname__ = name
    return Norm


@pytest.mark.parametrize("registered", [True, False])
@pytest.mark.parametrize(
    ("name", "gain", "unbiased"), [*itertools.product(("LayerNorm", "Zort"), ("gamma", "a_2"), (0, 1))]
)
def test_gain_and_deviation_are_found_whatever_they_are_called(name, gain, unbiased, registered):
    torch.manual_seed(0)
    cls = make(name, gain, bool(unbiased))
    if registered:
        gradlens.register_norm(cls, axes=-1)
    model = nn.Sequential(nn.Linear(16, WIDTH), cls(), nn.Linear(WIDTH, 4)).double()
    x = torch.randn(50, 16, dtype=torch.float64)
    with gradlens.attach(model) as lens:
        hidden = model[0](x)
        y = model[1](hidden)
        y.retain_grad()
        (model[2](y) * torch.randn(50, 4, dtype=torch.float64)).sum().backward()
        lens.step()
    g = y.grad * getattr(model[1], gain)
    deviation = hidden.std(-1, unbiased=bool(unbiased)) + (1e-6 if unbiased else 0.0)
    normalized = (hidden - hidden.mean(-1, keepdim=True)) / hidden.std(-1, unbiased=False, keepdim=True)
    removed = WIDTH * (g * normalized).mean(-1).square().sum() / g.square().sum()
    row = lens.recording.norms.iloc[0]
    assert row["rescaling"] == pytest.approx(removed.item(), rel=1e-4)
    assert row["recentering"] == pytest.approx((WIDTH * g.mean(-1).square().sum() / g.square().sum()).item(), rel=1e-6)
    assert row["inv_sigma"] == pytest.approx((1 / deviation).mean().item(), rel=1e-4)


def test_a_class_with_a_gain_that_normalizes_nothing_is_no_norm_and_no_problem():
    class LayerScale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gamma = nn.Parameter(torch.ones(WIDTH))

        def forward(self, x):
            return self.gamma * x

    model = nn.Sequential(nn.LayerNorm(WIDTH), LayerScale(), nn.Linear(WIDTH, 1))
    with gradlens.attach(model) as lens:
        model(torch.randn(5, WIDTH)).sum().backward()
        lens.step()
    assert lens.recording.norms["site"].tolist() == ["0"]
    assert lens.audit().problems() == []


class NoNorm(nn.Module):
    """MobileBERT's: an affine map that is called a norm, of an input far smaller than any eps of one."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(WIDTH).uniform_(0.8, 1.4))
        self.bias = nn.Parameter(torch.empty(WIDTH).uniform_(-0.2, 0.4))

    def forward(self, x):
        return x * self.weight + self.bias


class PairNorm(nn.Module):
    """Centred by column and scaled as a whole: affine in every feature, by statistics of the batch."""

    def forward(self, x):
        x = x - x.mean(0, keepdim=True)
        return x / (1e-5 + x.square().sum(-1).mean()).sqrt()


class FieldsNorm(nn.Module):
    """Each half of the features scaled by its own statistic of the batch, behind a view: affine in every feature."""

    def forward(self, x):
        fields = x.unsqueeze(-1).chunk(2, dim=-2)
        return torch.cat([field / (1e-5 + field.square().mean()).sqrt() for field in fields], dim=-2).squeeze(-1)


class Cumulated(nn.Module):
    """Centred and scaled by all tokens so far, as in causal models of sound: x̂ over no axes, and not called a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma, self.beta = (nn.Parameter(torch.empty(WIDTH).uniform_(0.5, 1.5)) for _ in range(2))

    def forward(self, x):
        count = WIDTH * torch.arange(1, x.shape[1] + 1).unsqueeze(-1)
        mean = x.sum(-1, keepdim=True).cumsum(1) / count
        variance = x.square().sum(-1, keepdim=True).cumsum(1) / count - mean.square()
        return self.gamma * (x - mean) / (variance + 1e-8).sqrt() + self.beta


class Attention(nn.Module):
    """At initialization all its outputs are nearly alike, and so of one length."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in "qkv")

    def forward(self, x):
        return nn.functional.scaled_dot_product_attention(self.q(x) / 9, self.k(x), self.v(x))


@pytest.mark.parametrize(
    ("make_it", "tokens", "named"),
    [
        (NoNorm, 4, False),
        (PairNorm, 7, True),
        (FieldsNorm, 7, True),
        (Cumulated, 5, True),
        (Attention, 4, False),
        (nn.GELU, 4, False),
    ],
)
def test_named_is_what_normalizes_and_nothing_else(make_it, tokens, named):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, WIDTH), make_it(), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 4))
    with torch.no_grad():
        model[0].weight.mul_(0.2)
        model[0].bias.zero_()
    with gradlens.attach(model) as lens:
        model(torch.randn(2, tokens, 16)).square().mean().backward()
        lens.step()
    assert lens.recording.norms["site"].tolist() == ["2"]
    problems = lens.audit().problems()
    assert len(problems) == named, problems
    assert all("recorded at 1:" in problem for problem in problems)


class TwoNorm(nn.Module):
    """Takes a second tensor: no copy of it can be tried, it must be seen running."""

    def forward(self, x, factor):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * factor


class SoftmaxNorm(nn.Module):
    def forward(self, x, shift):
        return x.softmax(-1) + shift


class Scaled(nn.Module):
    """Has the parameter of a norm, and neither the name nor the behaviour."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x, shift):
        return self.gain * x + shift


def test_a_stranger_is_what_is_called_a_norm_and_was_never_seen_running():
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.proved, self.refuted = nn.Linear(WIDTH, WIDTH), TwoNorm(), SoftmaxNorm()
            self.idle, self.idle_known, self.idle_unnamed = TwoNorm(), nn.LayerNorm(WIDTH), Scaled()

        def forward(self, x):
            x, ones = self.linear(x), torch.ones(WIDTH)
            return self.proved(x, ones) + self.refuted(x, ones)

    model = Model()
    with gradlens.attach(model) as lens:
        model(torch.randn(4, 5, WIDTH)).square().sum().backward()
        lens.step()
    audit = lens.audit()
    assert audit.strangers == ("idle",)
    assert audit.silent == ("idle_known",)
    assert list(audit.unsupported) == ["refuted"]
    assert lens.recording.norms["site"].tolist() == ["proved"]


class InPlaceNorm(nn.Module):
    normalizes = {"name": "rmsnorm", "axes": (-1,), "centered": False, "mean_gradient": False}  # noqa: RUF012
    eps = 1e-5

    def forward(self, x):
        x *= torch.rsqrt(x.double().square().mean(-1, keepdim=True) + self.eps).to(x.dtype)
        return x


@pytest.mark.parametrize("after", [torch.tanh, torch.relu_])
def test_a_norm_that_changes_its_input_in_place_is_named_and_has_no_row(after):
    """Its output is that of its formula; but what would be measured of its input is what it left there."""
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), InPlaceNorm())
    with gradlens.attach(model) as lens:
        after(model(torch.randn(4, 5, WIDTH))).sum().backward()
        lens.step()
    assert lens.recording.norms.empty
    assert lens.audit().unsupported == {"1": "it changes its input in place"}


def test_a_class_of_torchs_that_somebody_gave_another_forward_is_named_at_the_steps_end_and_left_alone():
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH))
    model[1].forward = torch.tanh
    with gradlens.attach(model) as lens:
        model(torch.randn(4, 5, WIDTH)).sum().backward()
        lens.step()
        assert not model[1]._forward_pre_hooks
    assert lens.recording.norms.empty
    assert lens.audit().unsupported["1"].startswith("its output is not that of a layernorm: off by ")


class Table(nn.Module):
    """Takes numbers of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(WIDTH))

    def forward(self, tokens):
        return self.weight[tokens]


class Unpacked(nn.Module):
    """Takes no tensor."""

    def forward(self, batch):
        return batch["tokens"]


class Raised(nn.Module):
    """Takes a number."""

    def forward(self, x):
        return x.exp()


def test_modules_whose_input_no_norm_could_take_are_passed_over_in_silence():
    model = nn.Sequential(Unpacked(), Table(), nn.LayerNorm(WIDTH), nn.Flatten(0), nn.Linear(4 * WIDTH, 1))
    model.append(nn.Flatten(0)).append(nn.Unflatten(0, ())).append(Raised())
    model[6].forward = lambda x: x[0]
    with gradlens.attach(model) as lens:
        model({"tokens": torch.randint(WIDTH, (4, WIDTH))}).backward()
        lens.step()
    assert lens.audit().problems() == []
    assert lens.recording.norms["site"].tolist() == ["2"]
