"""What the audit says of the setting that the numbers were taken in."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import gradlens
from tests.lens.networks import stack
from tests.lens.passes import backward, loss_of, record, vectors


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_precision_of_autocast_is_that_of_the_last_forward_pass(dtype):
    model = stack()
    with gradlens.attach(model) as lens:
        assert lens.audit().setting["autocast"] == ""
        with torch.autocast("cpu", dtype):
            y = model(vectors(0))
        loss_of(y).backward()
        lens.step()
        assert lens.audit().setting["autocast"] == str(dtype).removeprefix("torch.")
        backward(model, vectors(1))
        lens.step()
        assert lens.audit().setting["autocast"] == ""


@pytest.mark.parametrize("reentrant", [True, False])
def test_the_norms_whose_forward_pass_ran_again_are_those_in_the_checkpoint(reentrant):
    class Part(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside, self.outside = stack(blocks=1), nn.LayerNorm(16)

        def forward(self, x):
            return self.outside(checkpoint(self.inside, x.requires_grad_(), use_reentrant=reentrant))

    model = Part()
    assert record(model).audit().setting["checkpointed"] == ["inside.1.0.norm", "inside.2"]
    assert record(stack()).audit().setting["checkpointed"] == []


def test_the_dtypes_of_inputs_are_counted_by_norm():
    model = nn.Sequential(nn.LayerNorm(16), nn.LayerNorm(16), nn.Linear(16, 16, dtype=torch.float64))
    model.forward = lambda x: model[2](model[1](model[0](x)).double())
    assert record(model).audit().setting["input_dtypes"] == {"float32": 2}
    assert record(stack().double(), batch=lambda step: vectors(step).double()).audit().setting["input_dtypes"] == {
        "float64": 4
    }
