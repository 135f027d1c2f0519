"""How a model is wired is read also where it has no norm, and nothing else is made of that."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradlens
from gradlens.lens.structure import structure
from tests.analyses.architecture.wired import CLASSES, LENGTH, SEQUENCES, WIDTH, Sum, add, flagged, judged, run


class Branch(nn.Module):
    def __init__(self, odd: Sum) -> None:
        super().__init__()
        self.up, self.down, self.odd = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH), odd

    def forward(self, x: Tensor) -> Tensor:
        return self.odd(x, self.down(torch.tanh(self.up(x))))


def network(odd: Sum = add) -> nn.Module:
    """Four residual blocks without a norm; ``odd`` is what the second does in place of an addition."""
    torch.manual_seed(0)
    blocks = [Branch(odd if at == 1 else add) for at in range(4)]
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), *blocks, nn.Flatten(), nn.Linear(LENGTH * WIDTH, CLASSES))


@pytest.mark.parametrize(
    ("odd", "code"), [(lambda x, f: f, "GL801"), (lambda x, f: f - x, "GL802")], ids=["missing", "taken away"]
)
def test_a_skip_that_is_at_fault_is_named(odd: Sum, code: str) -> None:
    sound = judged(run(network()))
    assert (sound["GL801"].status, sound["GL802"].status) == ("pass", "pass")
    found = flagged(network(odd))[code]
    assert (found.status, found.sites) == ("fail", ("2",))


def test_it_is_read_once_and_the_recording_is_otherwise_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def counted(*given: Any) -> dict[str, list[Any]]:
        read.append(1)
        return structure(*given)

    monkeypatch.setattr("gradlens.lens.placing.structure", counted)
    model = network()
    with gradlens.attach(model) as lens:
        for step in range(3):
            model.zero_grad()
            model(SEQUENCES(step)[0]).mean().backward()
            lens.step()
    assert len(read) == 1
    assert lens.recording.sites.empty
    assert lens.audit().notes == ()


def test_a_graph_that_cannot_be_read_is_passed_over_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*given: object) -> None:
        raise ValueError("too large")

    monkeypatch.setattr("gradlens.lens.placing.Architecture", refused)
    model = network()
    with gradlens.attach(model) as lens:
        model(SEQUENCES(0)[0]).mean().backward()
        lens.step()
    assert lens.audit().notes == ()
    assert not lens.recording.meta["structure"]
