"""What ran how often, under which name: calls, shared modules, tied weights, frozen parts, unusual signatures."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

import gradlens
from tests.lens import networks
from tests.lens.networks import WIDTH, Block, stack
from tests.lens.passes import backward, loss_of, record, vectors
from tests.lens.witness import NEEDS_GRAD_INPUT


class Repeated(nn.Module):
    """Calls its norms as often as it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH), nn.RMSNorm(WIDTH)
        self.times = {"first": 1, "second": 1}

    def forward(self, x):
        for name, times in self.times.items():
            for _ in range(times):
                x = self.linear(getattr(self, name)(x))
        return x


def test_each_call_of_a_norm_is_a_row_of_its_own_in_order_of_calls():
    norms = record(stack(networks.Thrice, 2), 2).recording.norms
    assert norms.groupby(["step", "site"])["call"].apply(list).tolist() == [[0, 1, 2], [0, 1, 2], [0]] * 2
    # Inputs x, 3x and x²: the second call's 1/σ is a third of the first's.
    first, second = (norms.query(f"call == {call} and site == '1.0.norm'")["inv_sigma"].to_numpy() for call in (0, 1))
    assert second == pytest.approx(first / 3, rel=1e-3)


def test_a_module_that_did_not_run_has_no_row_in_that_step_and_one_again_when_it_runs():
    model = Repeated()
    with gradlens.attach(model) as lens:
        for step, times in enumerate([(1, 1), (2, 0), (0, 3), (1, 1)]):
            model.zero_grad()
            model.times = dict(zip(("first", "second"), times, strict=True))
            backward(model, vectors(step))
            lens.step()
    counts = lens.recording.norms.groupby(["step", "site"]).size().to_dict()
    assert counts == {
        **{(0, "first"): 1, (0, "second"): 1, (1, "first"): 2},
        **{(2, "second"): 3, (3, "first"): 1, (3, "second"): 1},
    }
    params = lens.recording.params.set_index(["step", "name"])
    assert params.loc[(1, "second.weight")][["grad_norm", "grad_absmax"]].isna().all()
    assert lens.audit().problems() == []


def test_a_norm_that_never_runs_is_named():
    model = Repeated()
    model.times = {"first": 2}
    lens = record(model)
    assert lens.audit().silent == ("second",)
    assert any("second" in problem and "never ran" in problem for problem in lens.audit().problems())


def test_a_norm_shared_by_two_parents_is_one_site_under_its_first_name():
    lens = record(networks.shared())
    assert lens.audit().norms == lens.audit().fired == ("first.norm",)
    assert lens.recording.norms[["site", "call"]].values.tolist() == [["first.norm", 0], ["first.norm", 1]]
    # Its parameters are tied too: once, and the gradient is the sum over both calls.
    assert lens.audit().tied["first.norm.weight"] == ["second.norm.weight"]
    assert "second.norm.weight" not in set(lens.recording.params["name"])


def test_tied_weights_are_reported_once_with_all_names_and_their_whole_gradient():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.block, self.head = nn.Embedding(8, WIDTH), Block(), nn.Linear(WIDTH, 8, bias=False)
            self.head.weight = self.alias = self.embed.weight

        def forward(self, tokens):
            return self.head(self.block(self.embed(tokens)))

    model, tokens = Tied(), lambda step: torch.arange(8).view(2, 4)
    lens = record(model, batch=tokens)
    assert {first: sorted(others) for first, others in lens.audit().tied.items()} == {
        "alias": ["embed.weight", "head.weight"]
    } or lens.audit().tied == {"embed.weight": ["alias", "head.weight"]}
    named = lens.recording.params.set_index("name")
    (name,) = lens.audit().tied
    assert named.loc[name, "grad_norm"] == pytest.approx(float(model.head.weight.grad.norm()), rel=1e-5)
    assert len(named) == len(list(model.parameters()))


def test_an_input_that_needs_no_gradient_is_absent_not_zero():
    recording = record(nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH))).recording
    row = recording.norms.iloc[0]
    assert row[list(NEEDS_GRAD_INPUT)].isna().all()
    assert row[["recentering", "mean_share", "grad_output_norm", "var_detached", "inv_sigma"]].notna().all()


def test_frozen_parameters_have_no_gradient_and_let_gradients_through():
    model = stack()
    model[1].requires_grad_(False)  # the middle: gradients still flow through it
    lens = record(model)
    frozen = lens.recording.params[lens.recording.params["name"].str.startswith("1.")]
    assert len(frozen) == 12
    assert frozen[["grad_norm", "grad_absmax"]].isna().all(axis=None)
    assert lens.recording.norms[["kept", "grad_input_norm"]].notna().all(axis=None)
    assert lens.audit().problems() == []


def test_a_model_frozen_as_a_whole_is_recorded_forward_and_said_to_have_no_gradient():
    model = stack().requires_grad_(False)
    head = nn.Linear(WIDTH, WIDTH)
    lens = record(model, backward=lambda model, x: loss_of(head(model(x))).backward())
    assert lens.recording.norms["inv_sigma"].notna().all()
    assert lens.recording.norms[["grad_output_norm", "recentering", "kept"]].isna().all(axis=None)
    assert lens.audit().without_grad_output == ("1.0.norm", "1.1.norm", "1.2.norm", "2")


def test_an_output_that_is_detached_is_named():
    class Detached(Block):
        def branch(self, x):
            return self.linear(self.norm(x).detach())

    audit = record(stack(Detached, 2)).audit()
    assert audit.without_grad_output == ("1.0.norm", "1.1.norm")
    assert any("No gradient reached the output of 1.0.norm" in problem for problem in audit.problems())


class ConditionedNorm(nn.Module):
    """Another keyword, and another tensor, can stand before the input."""

    def __init__(self) -> None:
        super().__init__()
        self.eps = 1e-5

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        y = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps)
        return y if scale is None else y * scale


@pytest.mark.parametrize("call", ["norm(x, scale)", "norm(x=x, scale=scale)", "norm(scale=scale, x=x)"])
def test_the_input_is_found_by_its_place_in_the_signature_not_by_the_order_of_keywords(call):
    class Conditioned(Block):
        def __init__(self) -> None:
            super().__init__()
            self.norm = ConditionedNorm()

        def branch(self, x):
            return self.linear(eval(call, {"norm": self.norm, "x": x, "scale": torch.ones(WIDTH)}))

    gradlens.register_norm(ConditionedNorm, axes=-1, centered=False)
    norms = record(stack(Conditioned, 1)).recording.norms
    expected = record(stack(lambda: Rms(), 1)).recording.norms
    for column in ("vectors", "kept", "inv_sigma", "grad_input_norm"):
        assert norms[column].to_numpy() == pytest.approx(expected[column].to_numpy(), rel=1e-4), column


class Rms(Block):
    """What ConditionedNorm with a scale of one computes."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(WIDTH, eps=1e-5, elementwise_affine=False)


def odd(take, give):
    """A registered norm that takes and gives its tensor in some wrapping."""

    class OddNorm(nn.Module):
        eps = 1e-5

        def forward(self, wrapped):
            x = take(wrapped)
            return give(x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps))

    gradlens.register_norm(OddNorm, axes=-1, centered=False)
    return OddNorm()


@pytest.mark.parametrize(
    ("give", "take"),
    [
        (lambda y: {"y": y}, lambda out: out["y"]),
        (lambda y: networks.Output(hidden=y, loss=y.detach()), lambda out: out.hidden),
        (lambda y: networks.ModelOutput(hidden=y), lambda out: out.hidden),
        (lambda y: [[torch.arange(3)], y], lambda out: out[1]),
    ],
    ids=["dict", "dataclass", "ModelOutput", "nested list after integers"],
)
def test_the_output_of_a_norm_is_found_in_any_container(give, take):
    class Wrapping(Block):
        def __init__(self) -> None:
            super().__init__()
            self.norm = odd(lambda x: x, give)

        def branch(self, x):
            return self.linear(take(self.norm(x)))

    lens = record(stack(Wrapping, 1))
    expected = record(stack(lambda: Rms(), 1)).recording.norms
    assert lens.recording.norms["kept"].to_numpy() == pytest.approx(expected["kept"].to_numpy(), rel=1e-4)
    assert lens.audit().problems() == []


@pytest.mark.parametrize("place", ["input", "output"])
def test_what_cannot_be_read_is_named_with_its_reason(place):
    class Opaque(Block):
        def __init__(self) -> None:
            super().__init__()
            wrap, unwrap = (lambda x: SimpleNamespace(x=x)), (lambda wrapped: wrapped.x)
            same = lambda x: x  # noqa: E731
            self.wrap, self.unwrap = (wrap, same) if place == "input" else (same, unwrap)
            self.norm = odd(unwrap, same) if place == "input" else odd(same, wrap)

        def branch(self, x):
            return self.linear(self.unwrap(self.norm(self.wrap(x))))

    audit = record(stack(Opaque, 1)).audit()
    assert f"its {place} is a SimpleNamespace" in audit.unsupported["1.0.norm"]
    assert any("Nothing is recorded at 1.0.norm" in problem for problem in audit.problems())
