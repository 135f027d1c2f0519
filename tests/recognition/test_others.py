"""What ran and was no norm is not looked at again in its like, and nothing that may differ is taken for its like."""

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gradlens
from gradlens.lens.taps import proving
from gradlens.recognition.others import is_no_norm, is_other

X = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))


@dataclass
class Options:
    normalize: bool = False


class Layer(nn.Module):
    """Normalizes where its options, or an attribute, say so."""

    def __init__(self, options: object = None, normalize: bool = False, width: int = 8) -> None:
        super().__init__()
        self.options, self.normalize = options, normalize
        self.mix = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        if self.normalize or getattr(self.options, "normalize", False):
            return F.layer_norm(x, x.shape[-1:])
        return self.mix(x)


@pytest.fixture(autouse=True)
def nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradlens.recognition.others._others", {})


def test_a_twin_with_other_weights_is_known() -> None:
    is_no_norm(Layer(Options()), X)
    assert is_other(Layer(Options()), X)


@pytest.mark.parametrize(
    ("module", "x"),
    [
        (Layer(Options(normalize=True)), X),
        (Layer(Options(), normalize=True), X),
        (Layer(Options(), width=16), X),
        (Layer(Options()).eval(), X),
        (Layer(Options()), X[0]),
        (nn.Linear(8, 8), X),
    ],
    ids=["in its options", "in an attribute", "in its shapes", "in its mode", "in its input", "in its class"],
)
def test_what_differs_is_not_known(module: nn.Module, x: Tensor) -> None:
    is_no_norm(Layer(Options()), X)
    assert not is_other(module, x)


@pytest.mark.parametrize("hidden", [object(), lambda x: x], ids=["an object", "a function of nobody's"])
def test_where_an_attribute_cannot_be_read_nothing_is_known(hidden: object) -> None:
    layer = Layer(hidden)
    is_no_norm(layer, X)
    assert not is_other(layer, X)


@pytest.mark.parametrize("x", [torch.zeros(2, 3, 8), torch.full((2, 3, 8), torch.nan)], ids=["zeros", "nan"])
def test_an_input_that_cannot_tell_says_nothing_of_its_like(x: Tensor) -> None:
    is_no_norm(Layer(), x)
    assert not is_other(Layer(), x)


def test_blocks_that_are_alike_are_looked_at_once_and_a_norm_among_them_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked: list[nn.Module] = []
    likeness = proving.likeness
    monkeypatch.setattr(proving, "likeness", lambda module, *rest: (looked.append(module), likeness(module, *rest))[1])
    model = nn.Sequential(*(Layer(Options(normalize=place == 2)) for place in range(4)))
    model.append(nn.Linear(8, 1))
    with gradlens.attach(model) as lens:
        for _ in range(3):
            model(X).square().mean().backward()
            lens.step()
    assert looked == [model[0]]
    assert set(lens.recording.norms["site"]) == {"2"}
