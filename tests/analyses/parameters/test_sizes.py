"""GL404 of matrices that leave their size; GL402 of single numbers that hold the gradient."""

import re

import pytest
import torch
from torch import Tensor, nn

from gradlens.analysis import Finding
from tests.analyses.parameters.test_what_steps_change import judged, plain, sgd, train
from tests.analyses.trained import points


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(("factor", "word"), [(1.02, "grows"), (0.98, "shrinks")])
def test_matrices_that_leave_their_size_are_told_with_the_step_and_the_remedy(factor: float, word: str) -> None:
    def change(step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        for p in model.parameters() if step > 40 else ():
            if p.dim() > 1:
                p.data *= factor

    model = plain()
    found = judged(train(model, points(), sgd(model, 1e-2), change, steps=160))["GL404"]
    assert found.status == "warn"
    said = re.search(rf"{word} to ([\d.]+) times its size", found.claim)
    assert said is not None, found.claim
    assert float(said[1]) == pytest.approx(factor**100, rel=0.1)
    assert found.onset == pytest.approx(50, abs=10)
    assert ("decay" in found.remedies[0]) == (word == "shrinks")
    assert found.claim.startswith("run: matrices leave the size that they had: ")


class Scaled(nn.Module):
    """A learned scale that a factor stands beside."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor, self.scale = factor, nn.Parameter(torch.tensor(1 / factor))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale * self.factor


def test_a_single_number_that_holds_the_gradient_is_named_but_where_each_block_has_its_like() -> None:
    def found(*factors: float) -> Finding:
        layers = [(nn.Linear(16, 16), Scaled(factor), nn.ReLU()) for factor in factors]
        model = nn.Sequential(*(layer for three in layers for layer in three), nn.Linear(16, 5))
        return judged(train(model, points(), torch.optim.Adam(model.parameters(), 1e-5), steps=20))["GL402"]

    assert found(1.0, 1.0, 1.0).status == "pass"
    one = found(1.0, 100.0, 1.0)
    assert (one.status, one.sites) == ("warn", ("4.scale",)), one.claim
    assert "factor" in one.remedies[0]
    assert found(100.0, 100.0, 100.0).status == "pass"
