"""Every site proves itself on its first recorded call, or writes nothing and is named."""

import importlib

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gradlens
from tests.oracles import Case, assert_row, expected_row
from tests.recognition.shapes import (
    SHAPES,
    C,
    ChannelsFirst,
    GateAfter,
    GateFirst,
    GateFirstCentered,
    OfEachSample,
    OfEverything,
    UnitLength,
)


def run(norm: nn.Module, *more: Tensor, shape: tuple[int, ...] = (), steps: int = 2):
    """Record steps of SGD of a norm in a network; return the lens, and input and gradient of the last step."""
    generator = torch.Generator().manual_seed(1)
    shape = shape or norm.shape
    model = nn.ModuleDict({"before": nn.Linear(shape[-1], shape[-1]), "norm": norm})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    net = Net(model, more)
    with gradlens.attach(net, optimizer=optimizer) as lens:
        for _ in range(steps):
            optimizer.zero_grad()
            x = 3 * torch.randn(shape, generator=generator) + torch.randn(shape[0], *[1] * (len(shape) - 1))
            weight = torch.randn(shape, generator=generator)
            y = net(x)
            y.retain_grad()
            (y * weight + 0.3 * y.square()).sum().backward()
            state = net.parts["before"](x).detach(), y.grad.clone()
            case = norm.case(x) if hasattr(norm, "case") else None
            if case is not None and case.gain is not None:
                case.gain = case.gain.clone()  # as it was, before the optimizer changes it
            optimizer.step()
    return lens, *state, case


class Net(nn.Module):
    def __init__(self, parts: nn.ModuleDict, more: tuple[Tensor, ...]) -> None:
        super().__init__()
        self.parts, self.more = parts, more

    def forward(self, x: Tensor) -> Tensor:
        return self.parts["norm"](self.parts["before"](x), *self.more)


def check(lens, x: Tensor, grad: Tensor, case: Case) -> None:
    row = lens.recording.norms.iloc[-1]
    assert row["step"] == 1
    assert_row(row, expected_row(x, grad, case))


@pytest.mark.parametrize("cls", SHAPES)
def test_every_shape_of_behaviour_is_recorded_as_autograd_in_float64_has_it(cls):
    torch.manual_seed(0)
    lens, x, grad, case = run(cls())
    assert lens.audit().problems() == []
    assert len(lens.recording.norms) == 2
    check(lens, x, grad, case)


@pytest.mark.parametrize("cls", SHAPES)
def test_the_same_of_a_graph_that_was_compiled_from_the_first_step_or_named(cls):
    torch.manual_seed(0)
    torch._dynamo.reset()
    norm = cls()
    lens, x, grad, case = compiled(norm)
    if not len(lens.recording.norms):
        assert any("norm" in problem for problem in lens.audit().problems())
        return
    check(lens, x, grad, case)


def compiled(norm: nn.Module):
    norm.compile(backend="aot_eager")
    return run(norm)


@pytest.mark.parametrize(
    ("cls", "axes", "centered"),
    [
        (UnitLength, -1, False), (UnitLength, -1, True), (OfEachSample, (1, 2), True), (OfEachSample, -1, True),
        (OfEverything, (0, 1), True), (OfEverything, -1, True), (ChannelsFirst, 1, True), (ChannelsFirst, -1, True),
    ],
)  # fmt: skip
def test_what_a_user_registers_proves_itself_too_and_is_recorded_as_it_is(cls, axes, centered):
    class Registered(cls):
        pass

    gradlens.register_norm(Registered, axes=axes, centered=centered)
    torch.manual_seed(0)
    lens, x, grad, case = run(Registered())
    check(lens, x, grad, case)
    was_right = (axes, centered) in ((-1, False), ((1, 2), True), ((0, 1), True), (1, True))
    assert bool(lens.audit().problems()) == (not was_right), "whoever was wrong is told"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("cls", [GateFirst, GateFirstCentered, GateAfter])
def test_what_is_normalized_is_measured_on_the_right_side_of_a_gate(cls, dtype):
    torch.manual_seed(0)
    norm = cls().to(dtype)
    h_grad = gated(norm, dtype)
    lens, h, grad = h_grad
    split = lambda x: x.unflatten(-1, (norm.groups, -1))  # noqa: E731
    expected = expected_row(h, grad, Case((-1,), 1e-6, centered=norm.centered, to_view=split))
    row = lens.recording.norms.iloc[-1]
    share = 1e-4 if dtype == torch.float32 else 5e-3
    for name in ("recentering", "rescaling", "kept", "inv_sigma"):
        assert row[name] == pytest.approx(expected[name], abs=share, rel=1e-3), name
    assert lens.audit().problems() == []


@pytest.mark.parametrize(
    ("path", "arguments", "first", "groups"),
    [
        ("bamba.modeling_bamba.BambaRMSNormGated", {"group_size": 4}, True, 4),
        ("mamba2.modeling_mamba2.MambaRMSNormGated", {"group_size": C}, True, 1),
        ("falcon_h1.modeling_falcon_h1.FalconH1RMSNormGated", {"n_groups": 2, "norm_before_gate": True}, False, 2),
        ("falcon_h1.modeling_falcon_h1.FalconH1RMSNormGated", {"n_groups": 2, "norm_before_gate": False}, True, 2),
        ("qwen3_next.modeling_qwen3_next.Qwen3NextRMSNormGated", {}, False, 1),
    ],
)
def test_the_gated_norms_of_transformers_in_either_order(path, arguments, first, groups):
    pytest.importorskip("transformers")
    module, _, name = f"transformers.models.{path}".rpartition(".")
    torch.manual_seed(0)
    norm = getattr(importlib.import_module(module), name)(C, **arguments)
    norm.first, norm.groups = first, groups
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    lens, h, grad = gated(norm, torch.float32)
    split = lambda x: x.unflatten(-1, (groups, -1))  # noqa: E731
    expected = expected_row(h, grad, Case((-1,), 1e-6, centered=False, to_view=split))
    for share in ("rescaling", "kept"):
        assert lens.recording.norms[share].iloc[-1] == pytest.approx(expected[share], abs=1e-5), share
    assert lens.audit().problems() == []


def gated(norm: nn.Module, dtype: torch.dtype):
    """Record two calls; return the lens, what was normalized last, and the gradient at x̂."""
    net = Net(nn.ModuleDict({"before": nn.Linear(C, C).to(dtype), "norm": norm}), ())
    with gradlens.attach(net) as lens:
        for _ in range(2):
            z = torch.randn(4, 5, C, dtype=dtype)
            z[0, 0] = 0.0  # a padded token: its gate is shut
            net.more = (z,)
            x = torch.randn(4, 5, C, dtype=dtype)
            y = net(x)
            y.retain_grad()
            (y.float() * torch.randn(4, 5, C) + 0.2 * y.float().square()).sum().backward()
            lens.step()
    act, h, g = F.silu(z.float()), net.parts["before"](x).detach().float(), y.grad.float() * norm.weight.detach()
    return (lens, h * act, g) if norm.first else (lens, h, g * act)


def test_a_gate_that_some_calls_lack_is_no_gate_there():
    torch.manual_seed(0)
    norm = GateFirst()
    with gradlens.attach(norm) as lens:
        x, z = torch.randn(4, 5, C, requires_grad=True), torch.randn(4, 5, C)
        (norm(x, z).pow(3).sum() + norm(x).pow(3).sum()).backward()
        lens.step()
    sigma = [h.unflatten(-1, (4, -1)).square().mean(-1).add(1e-6).sqrt() for h in (x * F.silu(z), x)]
    expected = [float((1 / one).mean().detach()) for one in sigma]
    assert lens.recording.norms["inv_sigma"].tolist() == pytest.approx(expected, rel=1e-5)
    assert lens.recording.norms["kept"].between(0.01, 0.99).all()


def test_gates_in_a_compiled_graph_are_named():
    torch._dynamo.reset()
    norm = GateAfter()
    net = Net(nn.ModuleDict({"before": nn.Linear(C, C), "norm": norm}), (torch.randn(4, 5, C),))
    compiled_net = torch.compile(net, backend="aot_eager")
    with gradlens.attach(net) as lens:
        compiled_net(torch.randn(4, 5, C)).square().sum().backward()
        lens.step()
    assert not len(lens.recording.norms)
    assert any("further tensors" in problem for problem in lens.audit().problems())


# ------------------------------------------------------------------ what fails


class SaysItIsCentered(nn.Module):
    normalizes = {"name": "layernorm", "axes": (-1,)}  # noqa: RUF012
    shape, eps = (4, 5, C), 1e-5

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x - x.mean(-1, keepdim=True))


class OtherGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return F.rms_norm(x, (C,), eps=1e-5)

    @staticmethod
    def backward(ctx, grad):
        return 0.5 * grad


class OtherGradientNorm(nn.Module):
    shape, eps = (4, 5, C), 1e-5

    def forward(self, x: Tensor) -> Tensor:
        return OtherGradient.apply(x)


@pytest.mark.parametrize(
    ("cls", "part"), [(SaysItIsCentered, "its output is not"), (OtherGradientNorm, "its gradient is not")]
)
def test_a_site_that_fails_writes_no_rows_and_says_which_part_and_by_how_much(cls, part):
    lens, *_ = run(cls())
    assert not len(lens.recording.norms)
    (problem,) = (problem for problem in lens.audit().problems() if "Nothing is recorded at parts.norm" in problem)
    assert part in problem
    assert "off by" in problem
    assert lens.audit().silent == ()


@pytest.mark.parametrize(("mean", "scale"), [(False, False), (True, False), (False, True)])
def test_derivatives_that_do_not_flow_are_found_out(mean, scale):
    class PartlyDetachedNorm(nn.Module):
        shape, eps = (4, 5, C), 1e-5

        def forward(self, x: Tensor) -> Tensor:
            mu, var = x.mean(-1, keepdim=True), x.var(-1, correction=0, keepdim=True)
            sigma = (var + self.eps).sqrt()
            return (x - (mu if mean else mu.detach())) / (sigma if scale else sigma.detach())

    lens, *_ = run(PartlyDetachedNorm())
    rows = lens.recording.norms
    assert ((rows["recentering"] > 1e-3) == mean).all()
    assert ((rows["rescaling"].abs() > 1e-3) == scale).all()
    assert lens.audit().problems() == []


def test_vectors_that_are_not_finite_prove_nothing_and_refute_nothing():
    norm, x = nn.LayerNorm(C), torch.full((4, C), float("nan"), requires_grad=True)
    with gradlens.attach(norm) as lens:
        for value in (x, torch.randn(4, C, requires_grad=True)):
            norm(value).square().sum().backward()
            lens.step()
    assert lens.recording.norms["kept"].notna().tolist() == [False, True]
    assert lens.audit().unsupported == {}


@pytest.mark.parametrize("order", [(True, False), (False, True)], ids=["train first", "eval first"])
def test_batch_norm_is_right_in_both_modes_whichever_comes_first(order):
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(C)
    norm.running_var.uniform_(0.5, 2.0)
    with gradlens.attach(norm) as lens:
        for training in order:
            norm.train(training)
            norm.zero_grad()
            norm(torch.randn(8, C, requires_grad=True)).pow(3).sum().backward()
            lens.step()
    kept = dict(zip(order, lens.recording.norms["kept"], strict=True))
    assert kept[False] == pytest.approx(1.0, rel=1e-5)
    assert kept[True] < 0.9
    assert lens.audit().problems() == []


class Rewritten(nn.Module):
    """A norm for its first calls; then it is something else."""

    shape, eps, calls = (4, 5, C), 1e-5, 0

    def forward(self, x: Tensor, extra: Tensor) -> Tensor:
        self.calls += 1
        y = F.rms_norm(x, (C,), eps=self.eps)
        return y if self.calls == 1 else y * extra


Rewritten.__name__ = "RewrittenNorm"


def test_a_call_with_further_tensors_is_held_against_the_formula_each_time():
    lens, *_ = run(Rewritten(), torch.rand(5, C) + 0.5)
    assert lens.recording.norms["step"].tolist() == [0]
    assert any("parts.norm" in problem for problem in lens.audit().problems())


# ------------------------------------------------------------------ what is named, and what is not


class ThereAndBack(nn.Module):
    """Normalizes in one call and undoes it in another, over time."""

    shape = (4, 50, C)

    def __init__(self) -> None:
        super().__init__()
        self.gain, self.shift = drawn_pair()

    def forward(self, x: Tensor, back: bool = False) -> Tensor:
        if back:
            return (x - self.shift) / self.gain * self.sigma + self.mean
        self.mean, self.sigma = x.mean(1, keepdim=True).detach(), x.std(1, keepdim=True, correction=0).detach() + 1e-5
        return (x - self.mean) / self.sigma * self.gain + self.shift


def drawn_pair() -> tuple[nn.Parameter, nn.Parameter]:
    return nn.Parameter(torch.rand(C) + 0.5), nn.Parameter(torch.rand(C))


class BackAgain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scaling, self.linear = ThereAndBack(), nn.Linear(C, C)

    def forward(self, x: Tensor) -> Tensor:
        return self.scaling(self.linear(self.scaling(x)), back=True)


class WithActivation(nn.BatchNorm1d):
    """relu(BatchNorm(x)) in one module."""

    shape = (400, C)

    def __init__(self) -> None:
        super().__init__(C)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(super().forward(x))


class Masked(nn.GroupNorm):
    """GroupNorm over those entries that a mask keeps."""

    shape = (4, C, 7)

    def __init__(self) -> None:
        super().__init__(1, C)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        kept = mask.unsqueeze(1).float()
        n = C * kept.sum((1, 2), keepdim=True)
        mean = (x * kept).sum((1, 2), keepdim=True) / n
        var = ((x - mean).square() * kept).sum((1, 2), keepdim=True) / n
        return (x - mean) * torch.rsqrt(var + self.eps) * kept


class Adaptive(nn.Module):
    """LayerNorm whose gain and bias are computed from a condition."""

    shape = (4, 9, C)

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2 * C)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.linear(condition).unsqueeze(1).chunk(2, -1)
        c = x - x.mean(-1, keepdim=True)
        return c * torch.rsqrt(c.square().mean(-1, keepdim=True) + 1e-5) * (1 + scale) + shift


MASK = torch.arange(7) < torch.tensor([7, 4, 5, 3]).unsqueeze(1)


@pytest.mark.parametrize(
    ("cls", "more"),
    [
        (BackAgain, ()), (WithActivation, ()), (Masked, (MASK,)), (Adaptive, (torch.randn(4, 3),)),
        (OfEverything, (torch.arange(20) // 5,)),
    ],
)  # fmt: skip
def test_what_normalizes_but_is_no_gain_and_bias_is_named_by_what_it_does(cls, more):
    torch.manual_seed(0)
    norm = cls()
    lens, *_ = run(norm, *more, shape=(4, 50, C) if cls is BackAgain else norm.shape)
    recorded = lens.recording.norms
    assert not len(recorded)
    assert [path for path in lens.audit().unsupported if path.startswith("parts.norm")]


class ConvNormAct(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv1d(C, C, 1), nn.BatchNorm1d(C), nn.ReLU())


class PreNormOutput(nn.Module):
    """Called for the arrangement that it is part of."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(C, C)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(x) + x


class NormFreeBlock(PreNormOutput):
    pass


class Saturating(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * x * (1 + torch.tanh(0.8 * (x + 0.04 * x**3)))


class LayerScaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(C))

    def forward(self, x: Tensor) -> Tensor:
        return self.gamma * x


class FrozenNorm(nn.Module):
    """Scales and shifts by constants, as a batch norm does that is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.rand(C) + 0.5)
        self.register_buffer("bias", torch.rand(C))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight + self.bias


class NoNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = drawn_pair()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight + self.bias


class Softmax(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.softmax(-1)


@pytest.mark.parametrize(
    "cls", [PreNormOutput, NormFreeBlock, Saturating, LayerScaled, FrozenNorm, NoNorm, Softmax, nn.Identity]
)
def test_what_does_not_normalize_is_not_named(cls):
    torch.manual_seed(0)
    lens, *_ = run(cls(), shape=(4, 9, C))
    assert lens.audit().norms == ()
    assert [
        problem for problem in lens.audit().problems() if "norm" in problem and "No normalization" not in problem
    ] == []


def test_a_wrapper_is_not_named_beside_the_norm_in_it():
    lens, *_ = run(ConvNormAct(), shape=(4, C, 9))
    assert lens.audit().norms == ("parts.norm.1",)
    assert lens.audit().problems() == []


class Own(nn.Module):
    """A norm that nothing but its behaviour tells, with a part in it."""

    shape = (4, 9, C)

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.part(F.rms_norm(x, (C,), eps=1e-5))


def test_what_nobody_would_have_guessed_is_recorded_from_its_second_call_on():
    lens, x, grad, *_ = run(Own())
    assert lens.recording.norms["step"].tolist() == [1]
    check(lens, x, grad, Case((-1,), 1e-5, centered=False))
    assert any("its first call showed" in problem for problem in lens.audit().problems())


@pytest.mark.parametrize("cls", [PreNormOutput, Saturating, Softmax, Adaptive])
def test_looking_at_a_module_does_not_change_a_bit(cls):
    def weights(attached: bool) -> list[Tensor]:
        torch.manual_seed(0)
        norm, more = cls(), (torch.randn(4, 3),) if cls is Adaptive else ()
        blocks = nn.ModuleList(nn.Linear(C, C) for _ in range(2))
        net = nn.ModuleDict({"norm": norm, "blocks": blocks})
        lens = gradlens.attach(net) if attached else None
        for _ in range(2):
            x = torch.randn(4, 9, C)
            for linear in blocks:
                x = x + linear(x) + norm(x, *more) + norm(x, *more).sin()
            x.square().sum().backward()
        if lens is not None:
            lens.step()
            lens.detach()
        return [p.grad for p in net.parameters() if p.grad is not None]

    assert all(torch.equal(a, b) for a, b in zip(weights(True), weights(False), strict=True))
