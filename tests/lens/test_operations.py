"""How many tensor operations measuring takes where the native core does not: on an accelerator each may be a launch."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import gradlens
from gradlens.lens.parameter_sums import on_device
from gradlens.native import core


class Counted(TorchDispatchMode):
    """Counts operations that compute or copy something; a view does neither."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.number += not (func.is_view or func in (torch.ops.aten.detach.default, torch.ops.aten.split.Tensor))
        return out


def of_parameters(number: int, size: int) -> int:
    # On a device that computes nothing, as on an accelerator what torch is asked for.
    tensors = [torch.empty(size, size, device="meta") for _ in range(2 * number)]
    with Counted() as counted, torch.no_grad():
        on_device(tensors[:number], tensors[number:], [size] * number)
    return counted.number


@pytest.mark.parametrize("size", [4, 80])
def test_a_further_parameter_takes_two_operations(size):
    assert of_parameters(20, size) - of_parameters(10, size) <= 2 * 10


def of_a_step(norms: int, watched: bool) -> int:
    """Operations of the fourth step of a model with so many norms."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), *(nn.LayerNorm(8) for _ in range(norms)))
    lens = gradlens.attach(model, watch=("norms",)) if watched else None
    x = torch.randn(4, 8)
    for _ in range(4):
        with Counted() as counted:
            model(x).square().mean().backward()
            if lens is not None:
                lens.step()
    if lens is not None:
        lens.detach()
    return counted.number


def test_a_further_norm_takes_ten_operations(monkeypatch):
    monkeypatch.setattr(core, "library", None)
    own = [of_a_step(norms, watched=True) - of_a_step(norms, watched=False) for norms in (4, 14)]
    assert own[1] - own[0] <= 10 * 10


def test_with_the_native_core_a_norm_takes_one_operation_a_copy_of_its_gain():
    if core.library is None:
        pytest.skip("the native core was not compiled")
    own = [of_a_step(norms, watched=True) - of_a_step(norms, watched=False) for norms in (4, 14)]
    assert own[1] - own[0] <= 10
