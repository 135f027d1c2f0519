"""Gradients and weights of parameters: those of backward, exact, tied ones once."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import gradlens
from gradlens.lens import parameter_sums
from tests.lens.networks import stack
from tests.lens.training_loop import train


def test_parameter_gradients_are_those_of_backward_before_clipping():
    torch.manual_seed(0)
    model = stack()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradlens.attach(model, optimizer=optimizer, watch=("norms", "params", "updates")) as lens:
        model(torch.randn(4, 5, 16)).square().sum().backward()
        named = list(model.named_parameters())
        expected = {n: (p.grad.norm().item(), p.grad.abs().max().item(), p.norm().item()) for n, p in named}
        total = float(nn.utils.clip_grad_norm_(model.parameters(), 0.5))
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        optimizer.step()
        lens.step()
    params = lens.recording.params.set_index("name")
    for name, (norm, absmax, weight) in expected.items():
        assert params.loc[name, "grad_norm"] == pytest.approx(norm, rel=1e-6)
        assert params.loc[name, "grad_absmax"] == pytest.approx(absmax, rel=1e-6)
        assert params.loc[name, "weight_norm"] == pytest.approx(weight, rel=1e-6)
        change = float((dict(model.named_parameters())[name] - before[name]).norm())
        assert params.loc[name, "update_norm"] == pytest.approx(change, rel=1e-5)
    step = lens.recording.steps.iloc[0]
    assert step["grad_norm"] == pytest.approx(total, rel=1e-6)
    assert step["clip_coef"] == pytest.approx(0.5 / total, rel=1e-5)


@pytest.mark.parametrize("shape", [(2500, 2001), (5_000_001,)], ids=["matrix", "flat"])
def test_norms_of_millions_of_entries_are_exact(shape):
    model = nn.Module()
    model.weight = nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    model.forward = lambda factors: (model.weight * factors).sum()
    factors = 1e-6 * torch.randn(shape, generator=torch.Generator().manual_seed(1))
    with gradlens.attach(model, watch=("params", "updates")) as lens:
        model(factors).backward()
        before = model.weight.detach().double()
        with torch.no_grad():
            model.weight -= 0.1 * model.weight
        lens.step()
    (row,) = lens.recording.params.to_dict("records")
    expected = {"grad_norm": factors.double(), "weight_norm": before, "update_norm": model.weight.double() - before}
    for column, tensor in expected.items():
        assert row[column] == pytest.approx(float(tensor.detach().norm()), rel=1e-6), column


def test_tied_weights_are_reported_once_with_all_their_names():
    model = nn.Sequential(nn.Linear(16, 16, bias=False), nn.LayerNorm(16), nn.Linear(16, 16, bias=False))
    model[2].weight = model[0].weight
    with gradlens.attach(model) as lens:
        train(model, steps=1, lens=lens)
        assert lens.audit().tied == {"0.weight": ["2.weight"]}
    assert lens.recording.params["name"].tolist() == ["0.weight", "1.weight", "1.bias"]


class Weights(nn.Module):
    """Parameters whose gradients are what the model is called with."""

    def __init__(self, **weights: torch.Tensor) -> None:
        super().__init__()
        for name, weight in weights.items():
            self.register_parameter(name, nn.Parameter(weight))

    def forward(self, **gradients: torch.Tensor) -> torch.Tensor:
        return sum((self.get_parameter(name) * gradient).sum() for name, gradient in gradients.items())


def rows_of(model: nn.Module, **gradients: torch.Tensor) -> pd.DataFrame:
    """What is recorded of each parameter in a step in which it has this gradient."""
    with gradlens.attach(model, watch=("params",)) as lens:
        model(**gradients).backward()
        lens.step()
    return lens.recording.params.set_index("name")


def numbers(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_gradient_and_the_norms_are_those_of_the_parameter_whatever_its_size(sign):
    sizes = [1, 70_000, 2, 4095, 4096, 4097, 65_535, 3, 65_536, 65_537, 131_072]
    weights = {f"p{size}": numbers(size, size) for size in sizes}
    gradients = {name: numbers(len(name), len(weight)) for name, weight in weights.items()}
    for size, gradient in zip(sizes, gradients.values(), strict=True):
        gradient[-1] = sign * (10 + size)
    rows = rows_of(Weights(**weights), **gradients)
    for name, gradient in gradients.items():
        assert rows.loc[name, "grad_absmax"] == float(gradient.abs().max()), name
        assert rows.loc[name, "grad_norm"] == pytest.approx(np.linalg.norm(gradient.double()), rel=1e-6), name
        assert rows.loc[name, "weight_norm"] == pytest.approx(np.linalg.norm(weights[name].double()), rel=1e-6), name


def test_a_parameter_without_a_gradient_has_no_numbers_and_nothing_that_is_not_finite():
    rows = rows_of(Weights(used=torch.ones(3), unused=torch.ones(2), empty=torch.ones(0)), used=torch.ones(3))
    assert rows["numel"].to_dict() == {"used": 3, "unused": 2, "empty": 0}
    assert rows["nonfinite"].to_dict() == {"used": 0, "unused": 0, "empty": 0}
    assert rows.loc[["unused", "empty"], ["grad_norm", "grad_absmax", "weight_norm"]].isna().all(axis=None)
    assert rows.loc["used", "grad_norm"] == pytest.approx(3**0.5, rel=1e-6)


@pytest.mark.parametrize("size", [12, 5000])
def test_entries_that_are_not_finite_are_counted_and_left_out_of_the_norms(size):
    gradient = numbers(1, size)
    gradient[3], gradient[5], gradient[-1] = float("nan"), float("inf"), float("-inf")
    finite = gradient[torch.isfinite(gradient)].double().numpy()
    other = numbers(2, 7)
    model = Weights(first=numbers(3, 7), broken=numbers(4, size), lost=numbers(5, 4), last=numbers(6, 7))
    rows = rows_of(model, first=other, broken=gradient, lost=torch.full((4,), float("nan")), last=2 * other)
    assert rows["nonfinite"].to_dict() == {"first": 0, "broken": 3, "lost": 4, "last": 0}
    norms = {"first": np.linalg.norm(other), "broken": np.linalg.norm(finite), "lost": 0.0}
    assert rows["grad_norm"].to_dict() == pytest.approx(norms | {"last": 2 * norms["first"]}, rel=1e-6)
    largest = float(other.abs().max())
    peaks = {"first": largest, "broken": np.abs(finite).max(), "lost": 0.0, "last": 2 * largest}
    assert rows["grad_absmax"].to_dict() == pytest.approx(peaks, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.complex64])
def test_parameters_of_every_dtype_are_measured_beside_those_of_another(dtype):
    gradients = {"a": numbers(1, 40).to(dtype), "b": numbers(2, 30), "c": 3 * numbers(3, 20).to(dtype)}
    if dtype.is_complex:
        gradients["a"] = torch.complex(numbers(1, 40), numbers(4, 40))
    model = Weights(**{name: torch.ones_like(gradient) for name, gradient in gradients.items()})
    with gradlens.attach(model, watch=("params",)) as lens:
        value = model(**gradients)
        (value.real if dtype.is_complex else value).backward()
        lens.step()
    rows = lens.recording.params.set_index("name")
    for name, gradient in gradients.items():
        exact = gradient.to(torch.complex128).numpy()
        assert rows.loc[name, "grad_norm"] == pytest.approx(np.linalg.norm(exact), rel=1e-6), name
        assert rows.loc[name, "weight_norm"] == pytest.approx(len(exact) ** 0.5, rel=1e-6), name
        parts = np.concatenate([exact.real, exact.imag])
        assert rows.loc[name, "grad_absmax"] == pytest.approx(np.abs(parts).max(), rel=1e-6), name


@pytest.mark.parametrize("rows", [[1, 4, 1], []], ids=["a word twice", "no word"])
def test_a_sparse_gradient_is_the_sum_of_what_came_for_each_word(rows):
    model = nn.Embedding(6, 3, sparse=True)
    factors = numbers(1, len(rows), 3)
    with gradlens.attach(model, watch=("params",)) as lens:
        (model(torch.tensor(rows, dtype=torch.long)) * factors).sum().backward()
        lens.step()
    dense = np.zeros((6, 3))
    np.add.at(dense, np.array(rows, dtype=int), factors.double().numpy())
    (row,) = lens.recording.params.to_dict("records")
    assert row["grad_norm"] == pytest.approx(np.linalg.norm(dense), rel=1e-6)
    assert row["grad_absmax"] == pytest.approx(np.abs(dense).max(), rel=1e-6)


@pytest.mark.parametrize("size", [100, 5000])
def test_the_norm_of_a_gradient_whose_squares_float32_cannot_hold_is_exact(size):
    gradient = 1e25 * numbers(1, size)
    rows = rows_of(Weights(weight=torch.ones(size)), weight=gradient)
    assert rows.loc["weight", "nonfinite"] == 0
    assert rows.loc["weight", "grad_norm"] == pytest.approx(np.linalg.norm(gradient.double()), rel=1e-6)


class Parts(nn.Module):
    """Two parts, one larger than the other."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(first, 1, bias=False), nn.Linear(second, 1, bias=False)

    def forward(self) -> torch.Tensor:
        return self.first.weight.sum() + self.second.weight.sum()


def coefficient(model: nn.Module, change, size: float = 1.0) -> float:
    """The coefficient of clipping of a step in which gradients of this size were changed before the optimizer."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradlens.attach(model, optimizer=optimizer) as lens:
        (size * model()).backward()
        change(model)
        optimizer.step()
    return lens.recording.steps["clip_coef"].item()


@pytest.mark.parametrize("sizes", [(2, 5), (5, 2)])
@pytest.mark.parametrize("part", ["first", "second"])
def test_one_factor_is_one_of_all_parts_not_of_a_smaller_or_a_larger_one(sizes, part):
    def halve(*names: str):
        return lambda model: [getattr(model, name).weight.grad.mul_(0.5) for name in names]

    assert np.isnan(coefficient(Parts(*sizes), halve(part)))
    for size in (1.0, 1e-6, 1e6):
        assert coefficient(Parts(*sizes), halve("first", "second"), size) == pytest.approx(0.5, rel=1e-6), size


def test_a_gradient_of_zero_does_not_hide_by_how_much_the_others_were_clipped():
    model = Parts(2, 5)
    model.first.weight.register_hook(torch.zeros_like)
    clip = lambda model: nn.utils.clip_grad_norm_(model.parameters(), 0.25 * 5**0.5)  # noqa: E731
    assert coefficient(model, clip) == pytest.approx(0.25, rel=1e-5)


def test_an_update_is_zero_where_nothing_changed_and_missing_where_nobody_wrote_or_could():
    model = Weights(moved=numbers(1, 5), still=numbers(2, 4), skipped=numbers(3, 3), frozen=numbers(4, 2))
    model.frozen.requires_grad_(False)
    gradients = {name: torch.ones_like(p) for name, p in model.named_parameters()}
    with gradlens.attach(model, watch=("params", "updates")) as lens:
        model(**gradients).backward()
        with torch.no_grad():
            model.moved -= torch.tensor([0.0, 3.0, 0.0, 4.0, 0.0])
            model.still -= 0.0
        lens.step()
    updates = lens.recording.params.set_index("name")["update_norm"].to_dict()
    assert updates == pytest.approx(
        {"moved": 5, "still": 0, "skipped": np.nan, "frozen": np.nan}, rel=1e-6, nan_ok=True
    )


def test_on_an_accelerator_a_gradient_that_is_not_finite_is_told_and_its_norms_are_missing():
    gradients, weights = [numbers(1, 5), numbers(2, 6), numbers(3, 7)], [numbers(4, 5), numbers(5, 6), numbers(6, 7)]
    gradients[1][2] = float("inf")
    squares, largest, of_weights, wrong, dots = parameter_sums.on_device(
        gradients, weights, [0, 0, 0], True
    ).numbers.tolist()
    exact = [float(gradient.double().square().sum()) for gradient in gradients]
    assert squares == pytest.approx([exact[0], np.nan, exact[2]], rel=1e-6, nan_ok=True)
    peaks = [float(gradient.abs().max()) for gradient in gradients]
    assert largest == pytest.approx([peaks[0], np.nan, peaks[2]], nan_ok=True)
    assert of_weights == pytest.approx([float(weight.double().square().sum()) for weight in weights], rel=1e-6)
    assert wrong == [0, 1, 0]
    exact = [float((g.double() * w.double()).sum()) for g, w in zip(gradients, weights, strict=True)]
    assert dots == pytest.approx([exact[0], np.nan, exact[2]], rel=1e-6, nan_ok=True)
