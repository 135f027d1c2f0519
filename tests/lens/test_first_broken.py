"""The first broken place: the first output, in forward order, that was not finite; else the first gradient."""

import pytest
import torch
from torch import Tensor, nn

import gradlens
from tests.lens.networks import WIDTH, Block, stack
from tests.lens.passes import loss_of, vectors


class RootBackward(torch.autograd.Function):
    """A square root of zero: finite forward, infinite backward."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return grad * float("inf")


class Fault(Block):
    """Breaks inside its branch, behind its norm, once it is told to."""

    breaks = ""

    def branch(self, x):
        y = super().branch(x)
        if self.breaks == "output":
            return y / torch.zeros_like(y)
        return RootBackward.apply(y) if self.breaks == "gradient" else y


def first(model: nn.Module, block: nn.Module, breaks: str, compiled: bool, watch=("norms", "blocks", "params")) -> str:
    torch.compiler.reset()
    with gradlens.attach(model, watch=watch) as lens:
        if compiled:
            model.compile(backend="aot_eager", fullgraph=True)
        for step in range(4):
            block.breaks = breaks if step >= 2 else ""
            model.zero_grad()
            loss_of(model(vectors(step))).backward()
            lens.step()
        return lens.audit().nonfinite


PLACES = {
    "output": "the output of 1.1, in the forward pass, step 2",
    "gradient": "the gradient at 1.1.norm, in the backward pass; all outputs were finite, step 2",
}


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("breaks", PLACES)
def test_the_block_is_named_in_which_it_breaks(breaks, compiled):
    model = stack(Fault)
    assert first(model, model[1][1], breaks, compiled) == PLACES[breaks]


def test_where_blocks_are_not_watched_it_is_the_first_norm_behind():
    model = stack(Fault, 6)
    named = first(model, model[1][3], "output", False, watch=("norms",))
    assert named == "the input of 1.4.norm, in the forward pass, step 2"


def test_blocks_that_run_in_another_order_than_they_stand_in():
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.linear, self.blocks = nn.Linear(WIDTH, WIDTH), nn.ModuleList([Fault() for _ in range(4)])

        def forward(self, x):
            x = self.linear(x)
            for block in reversed(self.blocks):
                x = block(x)
            return x

    model = Backwards()
    assert first(model, model.blocks[2], "output", False) == "the output of blocks.2, in the forward pass, step 2"
    model = Backwards()
    named = first(model, model.blocks[2], "gradient", False)
    assert named.startswith("the gradient at blocks.2.norm, in the backward pass")


def test_a_gradient_that_breaks_below_every_norm_names_a_parameter():
    class Below(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.linear, self.rest = nn.Linear(WIDTH, WIDTH), stack(Block, 2)

        def forward(self, x):
            return self.rest(RootBackward.apply(self.linear(x)))

    model = Below()
    with gradlens.attach(model) as lens:
        loss_of(model(vectors(0))).backward()
        lens.step()
    assert lens.audit().nonfinite == "the gradient of linear.bias, in the backward pass, step 0"
    assert lens.recording.norms["nonfinite"].eq(0).all()
