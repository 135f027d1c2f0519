"""Batches of one label, labels that no longer fit from a step on, inputs that are lost."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from analyses.objective import ANALYSIS
from tests.analyses.objective.test_objective import changed, judged, plain, shuffled
from tests.analyses.trained import mlp, points, train


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def of_one_class(step: int) -> tuple[Tensor, Tensor]:
    x, _ = points()(step)
    return x, torch.full((len(x),), step % 5)


def test_batches_of_one_label_are_told_by_the_output_s_bias() -> None:
    model = plain()
    x, y = of_one_class(0)
    rows = model(x).double().softmax(-1) - F.one_hot(y, 5)
    rows = rows.detach()
    agree = float(rows.mean(0).square().sum() / rows.square().sum(1).mean())
    one = ANALYSIS.compute([train(model, of_one_class, steps=1)])
    assert one.loc[one["quantity"] == "rows that agree", "value"].item() == pytest.approx(agree, rel=1e-3)
    found = judged(train(plain(), of_one_class, steps=60))["GL707"]
    assert found.status == "warn", found.claim
    assert found.value is not None
    assert found.value > 0.9
    drawn = judged(train(plain(), points(), steps=60))["GL707"]
    assert drawn.status == "pass", drawn.claim


def test_labels_that_no_longer_fit_are_told_with_the_step_they_come_at() -> None:
    found = judged(train(mlp(), lambda step: (shuffled if step >= 80 else points())(step), steps=160))["GL704"]
    assert (found.status, found.onset) == ("warn", pytest.approx(80, abs=4)), found.claim


def test_an_input_that_is_lost_is_said_to_be_0() -> None:
    found = judged(train(plain(), changed(points(), x=torch.zeros_like), steps=5))["GL705"]
    assert found.status == "warn"
    assert "are 0" in found.claim
