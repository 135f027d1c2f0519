"""GL410 to GL412: planted networks whose weights have no scale, trained by torch's optimizers."""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn

import gradlens
from analyses.scale_free import ANALYSIS
from analyses.scale_free.free import free
from gradlens.analysis import Finding
from gradlens.lens.optimizer_facts import optimizer_facts
from gradlens.recording import Recording
from gradlens.theory.kosson2024 import adamw, sgd
from tests.analyses.trained import points

STEPS = 160
Schedule = Callable[[int], float]


class Net(nn.Module):
    """Without a scale are: what stands in front of LayerNorm alone, and what stands in front of BatchNorm."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(16, 32, bias=bias), nn.LayerNorm(32)
        self.second, self.batch_norm = nn.Linear(32, 32, bias=False), nn.BatchNorm1d(32)
        self.head = nn.Linear(32, 5)
        if bias:
            nn.init.normal_(self.first.bias, std=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.batch_norm(self.second(self.norm(self.first(x)).tanh())).relu())


@cache
def trained(
    kind: str, lr: float, decay: float, steps: int = STEPS, bias: bool = False, told: bool = True, falls: bool = False,
    momentum: float = 0.0,
) -> Recording:  # fmt: skip
    torch.manual_seed(0)
    model, batches = Net(bias), points()
    extra = {"momentum": momentum} if kind == "SGD" else {}
    # Gains do without decay, as they do in most recipes; they come first, and the rate that is recorded is theirs.
    gains = [p for p in model.parameters() if p.dim() == 1]
    rest = [p for p in model.parameters() if p.dim() > 1]
    groups = [{"params": gains, "weight_decay": 0.0, "lr": lr / 2}, {"params": rest}]
    optimizer = getattr(torch.optim, kind)(groups, lr=lr, weight_decay=decay, **extra)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 1 - 0.95 * t / steps if falls else 1.0)
    with gradlens.attach(model, optimizer=optimizer if told else None, label="run") as lens:
        for step in range(steps):
            x, y = batches(step)
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            lens.step(loss=loss)
            schedule.step()
    return lens.recording


def judged(recording: Recording) -> dict[str, Finding]:
    return {finding.code: finding for finding in ANALYSIS.judge(ANALYSIS.compute([recording]))}


def test_the_weights_in_front_of_a_norm_are_found_and_no_others():
    found = free(trained("SGD", 0.1, 0.05).params)
    assert list(found.index[found["free"]]) == ["first.weight", "second.weight"]
    assert found.loc["head.weight", "cosine"] > 0.1
    assert not found["joint"].any()
    claim = judged(trained("SGD", 0.1, 0.05))["GL410"].claim
    assert "2 of 8 parameters" in claim


def test_a_bias_takes_part_in_the_scale():
    found = free(trained("SGD", 0.1, 0.0, steps=30, bias=True).params)
    assert list(found.index[found["free"]]) == ["second.weight"]
    assert list(found.index[found["joint"]]) == ["first.weight", "first.bias"]


def test_one_gradient_at_right_angles_by_chance_is_not_enough():
    rows = {"step": [0], "name": ["w"], "numel": [10_000], "grad_norm": [1.0], "weight_norm": [1.0]}
    by_chance, by_rule = (pd.DataFrame(rows | {"grad_weight": [value]}) for value in (5e-4, 5e-6))
    assert not free(by_chance)["free"].item()
    assert free(by_rule)["free"].item()
    often = pd.concat([by_chance.assign(step=step) for step in range(5)])
    assert free(often)["free"].item()


CASES: dict[str, tuple[dict[str, Any], float]] = {
    "sgd": ({"kind": "SGD", "lr": 0.2, "decay": 0.05}, sgd().rotation(0.2, 0.05)),
    "momentum": (
        {"kind": "SGD", "lr": 0.05, "decay": 0.05, "momentum": 0.8},
        sgd(0.8).rotation(0.05, 0.05),
    ),
    "adamw": ({"kind": "AdamW", "lr": 0.01, "decay": 1.5}, adamw().rotation(0.01, 1.5)),
}


@pytest.mark.parametrize("name", CASES)
def test_a_step_turns_them_by_what_decay_and_rate_set(name):
    settings, expected = CASES[name]
    recording = trained(**settings)
    found, table = judged(recording), ANALYSIS.compute([recording])
    assert found["GL411"].status == "pass"
    assert found["GL411"].value == pytest.approx(1.0, abs=0.35)
    drawn = table[(table["panel"] == "turn") & (table["quantity"] == "equilibrium")]
    assert drawn["value"].to_numpy() == pytest.approx(expected)
    # The gradient over the size, which SGD's decay sets: √(2λ/γ) without momentum.
    if name == "sgd":
        late = recording.params[(recording.params["name"] == "second.weight") & (recording.params["step"] > 100)]
        ratio = math.sqrt((late["grad_norm"] ** 2 / late["weight_norm"] ** 2).mean())
        assert ratio == pytest.approx(math.sqrt(2 * 0.05 / 0.2), rel=0.2)
        shown = ANALYSIS.show(table)["run: parameters without a scale."].set_index("parameter")
        assert float(shown.loc["second.weight", "‖g‖/‖w‖"]) == pytest.approx(ratio, rel=0.2)
        assert float(shown.loc["second.weight", "in equilibrium"]) == pytest.approx(math.sqrt(0.5), abs=0.01)


def test_decay_that_had_no_time_is_not_judged_and_without_decay_they_grow():
    early = judged(trained("SGD", 0.1, 1e-3, steps=40))["GL411"]
    assert early.status == "inconclusive"
    assert "5,000 steps" in early.claim
    grown = judged(trained("SGD", 4.0, 0.0))["GL411"]
    assert grown.status == "warn", grown.claim
    assert grown.value is not None
    assert grown.value > 4


def test_what_is_not_known_is_said():
    assert "optimizer=optimizer" in judged(trained("SGD", 0.1, 1e-3, steps=40, told=False))["GL411"].claim
    assert "no equilibrium is known of Adam" in judged(trained("Adam", 0.01, 0.1, steps=40))["GL411"].claim


def test_a_decay_that_is_not_applied_is_told():
    recording = trained("SGD", 0.1, 1e-3, steps=40)
    group = {"lr": 0.1, "weight_decay": 2.0}
    said = Recording({**recording.meta, "optimizer": {"class": "SGD", "groups": {"0": group}}}, recording._stored,
                     public=recording._public)  # fmt: skip
    found = judged(said)["GL411"]
    assert found.status == "warn"
    assert found.value is not None
    assert found.value < 0.5


def test_a_gradient_that_rises_as_they_shrink_is_told_and_one_that_falls_is_not():
    rises = judged(trained("AdamW", 0.02, 1.5, falls=True))["GL412"]
    assert rises.status == "warn", rises.claim
    assert rises.value is not None
    assert rises.value > 1.5
    assert "AdamC" in " ".join(rises.remedies)
    assert judged(trained("SGD", 4.0, 0.0))["GL412"].status == "pass"


def test_the_settings_of_an_optimizer_stand_in_the_manifest():
    groups = trained("SGD", 0.05, 0.05, momentum=0.8).meta["optimizer"]["groups"]
    assert [(group["lr"], group["weight_decay"], group["momentum"]) for group in groups.values()] == [
        (0.025, 0.0, 0.8),
        (0.05, 0.05, 0.8),
    ]
    assert groups["1"]["names"] == ["first.weight", "second.weight", "head.weight"]


def test_settings_that_are_no_numbers_are_left_out():
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=torch.tensor(0.1), foreach=False)
    optimizer.param_groups[0] |= {"weight_decay": "none", "betas": (0.9, None)}
    facts = optimizer_facts(model, optimizer)["groups"]["0"]
    assert facts["lr"] == pytest.approx(0.1)
    assert "weight_decay" not in facts
    assert facts["betas"] == [0.9]
