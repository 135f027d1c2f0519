"""What goes into and comes out of watched modules: the numbers are numpy's, and what has none is named."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import gradlens
from tests.lens.networks import WIDTH, stack
from tests.lens.passes import vectors


class Give(nn.Module):
    """Returns what it is told to."""

    def __init__(self, give) -> None:
        super().__init__()
        self.give = give

    def forward(self, x, **more):
        return self.give(x)


class Around(nn.Module):
    """Calls a module as it is told to, and returns a loss of its own."""

    def __init__(self, inner: nn.Module, call=lambda inner, x: inner(x)) -> None:
        super().__init__()
        self.inner, self.call = inner, call
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        self.call(self.inner, self.scale * x)
        return (self.scale * x.nan_to_num(posinf=0.0)).sum()


def watched(model: nn.Module, x: torch.Tensor) -> gradlens.lens.Lens:
    with gradlens.attach(model, watch=("inner",)) as lens:
        model(x).backward()
        lens.step()
    return lens


def rows_of(lens: gradlens.lens.Lens) -> pd.DataFrame:
    return lens.recording.activations.set_index("tensor")


@pytest.mark.parametrize("shape", [(7,), (3, 7), (2, 3, 7), (2, 3, 4, 5), (2, 3, 2, 2, 3)], ids=str)
def test_input_and_output_have_the_moments_of_all_their_entries(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) + 0.5
    rows = rows_of(watched(Around(Give(lambda x: 3 * x.square() - 20)), x))
    assert set(rows.index) == {"input", "output"}
    for tensor, exact in {"input": x.double().numpy(), "output": 3 * x.double().numpy() ** 2 - 20}.items():
        assert rows.loc[tensor, "numel"] == exact.size
        assert rows.loc[tensor, "nonfinite"] == 0
        assert rows.loc[tensor, "mean"] == pytest.approx(exact.mean(), rel=1e-5), tensor
        assert rows.loc[tensor, "rms"] == pytest.approx(np.sqrt((exact**2).mean()), rel=1e-5), tensor
        assert rows.loc[tensor, "absmax"] == pytest.approx(np.abs(exact).max(), rel=1e-6), tensor


@pytest.mark.parametrize(
    ("shape", "vectors_lost", "kept"),
    [((2, 3, 7), 1, 35), ((2, 3, 4, 5), 1, 60), ((2, 3, 2, 2, 3), 1, 36)],
    ids=["tokens", "images", "volumes"],
)
def test_one_infinite_entry_costs_its_token_or_its_whole_sample(shape, vectors_lost, kept):
    x = torch.ones(shape)
    x[1] = 2
    x.view(-1)[0] = float("inf")
    row = rows_of(watched(Around(Give(lambda x: x)), x)).loc["output"]
    left = np.array([1] * (kept - x[1].numel()) + [2] * x[1].numel())
    assert row["nonfinite"] == vectors_lost
    assert row["mean"] == pytest.approx(left.mean(), rel=1e-6)
    assert row["rms"] == pytest.approx(np.sqrt((left**2).mean()), rel=1e-6)
    assert np.isnan(row["absmax"])


def test_an_input_that_is_handed_over_by_its_name_is_measured():
    rows = rows_of(watched(Around(Give(lambda x: 2 * x), lambda inner, x: inner(x=x)), torch.full((2, 3), 5.0)))
    assert rows["mean"].to_dict() == pytest.approx({"input": 5, "output": 10})


def test_what_stands_before_by_its_place_is_the_input_though_more_is_handed_over_by_name():
    call = lambda inner, x: inner(x, mask=-x)  # noqa: E731
    assert rows_of(watched(Around(Give(lambda x: x), call), torch.ones(2, 3))).loc["input", "mean"] == 1


@pytest.mark.parametrize("give", [lambda x: None, lambda x: x.sum(), lambda x: x > 0], ids=["None", "scalar", "bool"])
def test_an_output_without_numbers_is_named_and_its_input_is_measured(give):
    lens = watched(Around(Give(give)), torch.ones(2, 3))
    assert rows_of(lens).index.tolist() == ["input"]
    assert lens.audit().unsupported == {"inner": "its output holds no floating tensor"}


@pytest.mark.parametrize("nothing", [torch.tensor([1, 2]), torch.tensor(1.0)], ids=["integers", "scalar"])
def test_an_input_without_numbers_is_passed_over_in_silence(nothing):
    lens = watched(Around(Give(lambda x: torch.ones(2, 3)), lambda inner, x: inner(nothing)), torch.ones(2, 3))
    assert rows_of(lens).index.tolist() == ["output"]
    assert lens.audit().unsupported == {}


def test_nested_tensors_and_empty_ones_have_no_row():
    nested = torch.nested.nested_tensor([torch.randn(3, 4), torch.randn(5, 4)], layout=torch.jagged)
    lens = watched(Around(Give(lambda x: x), lambda inner, x: inner(nested)), torch.ones(2, 3))
    assert lens.recording.activations.empty
    assert lens.audit().unsupported == {"inner": "a nested tensor"}
    lens = watched(Around(Give(lambda x: x), lambda inner, x: inner(x[:0])), torch.ones(2, 3))
    assert lens.recording.activations.empty
    assert lens.audit().unsupported == {}


def test_of_a_stack_of_blocks_the_first_one_is_measured_at_both_ends_and_the_others_where_they_end():
    model = stack()
    tensors = []
    for block in model[1]:
        block.register_forward_hook(lambda module, args, output: tensors.append((args[0].detach(), output.detach())))
    with gradlens.attach(model, watch=("blocks",)) as lens:
        model(vectors(0)).square().sum().backward()
        lens.step()
    rows = lens.recording.activations.set_index(["site", "tensor"])
    (first, _), *_ = tensors
    expected = {("1.0", "input"): first} | {(f"1.{i}", "output"): output for i, (_, output) in enumerate(tensors)}
    assert set(rows.index) == set(expected)
    for place, tensor in expected.items():
        exact = tensor.double()
        assert rows.loc[place, "numel"] == 4 * 5 * WIDTH
        assert rows.loc[place, "mean"] == pytest.approx(float(exact.mean()), rel=1e-5)
        assert rows.loc[place, "rms"] == pytest.approx(float(exact.square().mean().sqrt()), rel=1e-6)


@pytest.mark.parametrize("reentrant", [True, False])
def test_an_evaluation_and_the_second_pass_of_a_checkpoint_add_nothing(reentrant):
    model = Around(nn.Linear(3, 3), lambda inner, x: None)
    x = torch.ones(2, 3, requires_grad=True)
    with gradlens.attach(model, watch=("inner",)) as lens:
        with torch.no_grad():
            model.inner(5 * x)
        checkpoint(model.inner, x, use_reentrant=reentrant).sum().backward()
        lens.step()
    rows = lens.recording.activations
    assert sorted(rows["tensor"]) == ["input", "output"]
    assert rows.set_index("tensor").loc["input", ["mean", "numel"]].tolist() == [1, 6]


def test_steps_that_are_left_out_have_no_rows():
    model = Around(nn.Linear(3, 3))
    with gradlens.attach(model, watch=("inner",), every=2) as lens:
        for step in range(4):
            model(torch.full((2, 3), float(step))).backward()
            lens.step()
    assert lens.recording.activations.query("tensor == 'input'")["mean"].tolist() == [0, 2]
