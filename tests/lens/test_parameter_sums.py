"""Rows without a gradient, gains, moments, and grad·w."""

import numpy as np
import pytest
import torch
from torch import nn

import gradlens
from gradlens.lens import parameter_sums
from gradlens.recording.parameter_columns import IDLE
from tests.lens.test_sampled_updates import Weights, exact, numbers, stepped
from tests.lens.training_loop import train

pytestmark = pytest.mark.usefixtures("measured_by")


@pytest.mark.parametrize("size", [10, 5000, 200_000])
@pytest.mark.parametrize("device", [False, True])
def test_the_sum_of_gradient_times_weight_is_that_of_all_entries(size, device):
    grad, weight = numbers(1, size).abs(), numbers(2, size).abs()
    small = numbers(3, 4, 5)
    measured = parameter_sums.on_device if device else parameter_sums.measure
    dots = measured([grad, small], [weight, small], [0, 4]).numbers[-1]
    assert float(dots[0]) == pytest.approx(exact(grad) @ exact(weight), rel=2e-6)
    assert float(dots[1]) == pytest.approx((exact(small) ** 2).sum(), rel=1e-6)


@pytest.mark.parametrize("shape", [(20, 8), (40, 300), (30, 3, 70), (3, 70_000)])
@pytest.mark.parametrize("device", [False, True])
def test_rows_whose_gradient_is_0_are_counted_and_the_norms_stay(shape, device):
    gradient, weight = numbers(1, *shape), numbers(2, *shape)
    gradient[[0, 2]] = 0.0
    gradient[1] = 0.0
    gradient[1].view(-1)[-1] = 1e-12
    measured = parameter_sums.on_device if device else parameter_sums.measure
    sums = measured([gradient, weight], [weight, gradient], [shape[0], 0])
    assert sums.rows == (shape[0],)
    assert np.flatnonzero(np.asarray(sums.dead)).tolist() == [0, 2]
    squares = [(exact(gradient) ** 2).sum(), (exact(weight) ** 2).sum()]
    assert np.asarray(sums.numbers)[0] == pytest.approx(squares, rel=1e-6)
    assert np.asarray(sums.numbers)[2] == pytest.approx(squares[::-1], rel=1e-6)


def test_rows_are_idle_once_their_gradient_was_0_in_ten_steps_and_embeddings_have_none():
    model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 20), nn.ReLU(), nn.Linear(20, 2))
    with torch.no_grad():
        model[1].bias[:5] = -100.0
    with gradlens.attach(model) as lens:
        for step in range(IDLE + 2):
            with torch.no_grad():
                model[1].bias[5] = -100.0 if step % 3 else 100.0  # not for good
            model.zero_grad()
            model(torch.arange(3)).square().sum().backward()
            lens.step()
    rows = lens.recording.params.set_index(["name", "step"])
    assert rows.loc["1.weight", "rows"].eq(20).all()
    assert rows.loc["1.weight", "dead_rows"].between(5, 19).all()
    assert rows.loc["1.weight", "idle_rows"].tolist()[: IDLE - 1] == [0] * (IDLE - 1)
    assert rows.loc[("1.weight", IDLE + 1), "idle_rows"] >= 5
    dead = rows.loc["1.weight", "dead_rows"]
    assert (rows.loc["1.weight", "idle_rows"] <= dead).all()
    assert rows.loc["0.weight", ["rows", "dead_rows", "idle_rows"]].isna().all(axis=None)


def test_of_gains_the_extremes_and_the_mean_are_taken_and_of_biases_none():
    gain = numbers(1, 5000)
    rows = stepped(Weights(gain=gain, bias=gain, scale=torch.tensor(2.0)), lambda m: None, gain=gain, bias=gain,
                   scale=torch.tensor(1.0))  # fmt: skip
    found = rows.loc["gain", ["weight_least", "weight_most", "weight_mean"]].tolist()
    assert found == pytest.approx([float(gain.min()), float(gain.max()), exact(gain).mean()], rel=1e-6)
    assert rows.loc["scale", ["weight_least", "weight_most", "weight_mean"]].tolist() == [2.0, 2.0, 2.0]
    assert rows.loc["bias", ["weight_least", "weight_most", "weight_mean"]].isna().all()


@pytest.mark.parametrize("optimizer", ["Adam", "AdamW", "SGD"])
def test_moments_are_those_of_the_optimizer_that_was_given(optimizer):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 300), nn.Linear(300, 16))
    own = getattr(torch.optim, optimizer)(model.parameters(), lr=1e-3)
    with gradlens.attach(model, optimizer=own) as lens:
        train(model, steps=3, lens=lens, optimizer=own)
    last = lens.recording.params.query("step == 2").set_index("name")
    for name, parameter in model.named_parameters():
        for column, key in (("first_moment_norm", "exp_avg"), ("second_moment_norm", "exp_avg_sq")):
            if optimizer == "SGD":
                assert np.isnan(last.loc[name, column])
            else:
                truth = np.linalg.norm(exact(own.state[parameter][key]))
                # Of 4,800 entries a fifth is taken.
                assert last.loc[name, column] == pytest.approx(truth, rel=1e-6 if parameter.numel() <= 1024 else 0.2)
