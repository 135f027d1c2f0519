import typing

import pytest
import torch

from gradlens.errors import ModelError
from gradlens.lab.training.config import Optimizer, TrainingConfig
from gradlens.lab.training.optimization import build_optimizer, learning_rate, set_learning_rate


def rates(**settings) -> list[float]:
    config = TrainingConfig(**settings)
    return [learning_rate(config, step) for step in range(config.steps)]


def test_without_warmup_and_decay_the_learning_rate_never_changes():
    assert rates(steps=5, lr=0.3) == [0.3] * 5


def test_warmup_rises_linearly_and_reaches_the_full_rate_at_its_last_step():
    assert rates(steps=6, lr=0.4, warmup=4) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])


def test_inverse_sqrt_is_the_schedule_of_vaswani_and_xiong():
    steps, warmup = 40, 8
    expected = [min(t / warmup, (warmup / t) ** 0.5) for t in range(1, steps + 1)]
    assert rates(steps=steps, lr=1.0, warmup=warmup, decay="inverse-sqrt") == pytest.approx(expected)


def test_linear_decay_would_reach_zero_one_step_after_the_last():
    got = rates(steps=10, lr=1.0, warmup=2, decay="linear")
    assert got[:2] == [0.5, 1.0]
    assert got[2:] == pytest.approx([8 / 9, 7 / 9, 6 / 9, 5 / 9, 4 / 9, 3 / 9, 2 / 9, 1 / 9])


@pytest.mark.parametrize("decay", ["constant", "inverse-sqrt", "linear"])
def test_two_runs_that_differ_in_warmup_alone_have_the_same_rate_after_it(decay):
    warm = rates(steps=30, warmup=6, decay=decay)
    cold = rates(steps=30, decay=decay, decay_from=6)
    assert warm[5:] == cold[5:]
    assert set(cold[:6]) == {1e-3}


@pytest.mark.parametrize("name", typing.get_args(Optimizer))
def test_every_optimizer_takes_its_settings_and_the_rate_it_is_given(name):
    config = TrainingConfig(optimizer=name, weight_decay=0.1, momentum=0.5, betas=(0.7, 0.8))
    model = torch.nn.Linear(2, 2)
    model.bias.requires_grad = False
    optimizer = build_optimizer(model, config)
    set_learning_rate(optimizer, 0.25)
    (group,) = optimizer.param_groups
    assert type(optimizer).__name__.lower() == name
    assert (group["lr"], group["weight_decay"]) == (0.25, 0.1)
    assert group["momentum"] == 0.5 if name == "sgd" else group["betas"] == (0.7, 0.8)
    assert [p.shape for p in group["params"]] == [(2, 2)]


def test_a_model_without_anything_to_train_is_refused():
    with pytest.raises(ModelError, match="ReLU has none"):
        build_optimizer(torch.nn.ReLU(), TrainingConfig())
