"""How many tensor operations measuring takes, by torch's own count: on an accelerator each may be a launch."""

import contextlib
from collections.abc import Iterator

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


@contextlib.contextmanager
def without_native_core() -> Iterator[None]:
    """Measure with torch's operations."""
    library, core.library = core.library, None
    try:
        yield
    finally:
        core.library = library


def on_device_of_parameters(number: int, size: int) -> int:
    """Operations on the gradients and weights of so many square matrices on a device."""
    # On a device that computes nothing, as on an accelerator what torch is asked for.
    tensors = [torch.empty(size, size, device="meta") for _ in range(2 * number)]
    with Counted() as counted, torch.no_grad():
        on_device(tensors[:number], tensors[number:], [size] * number)
    return counted.number


def of_a_step(model: nn.Module, width: int, watch: tuple[str, ...]) -> int:
    """Operations that a lens adds to the fourth step of a model; with parameters it is one whose samples are read."""
    numbers = []
    for watched in (True, False):
        lens = gradlens.attach(model, watch=watch) if watched else None
        x = torch.randn(4, width)
        for _ in range(4):
            with Counted() as counted:
                model(x).square().mean().backward()
                if lens is not None:
                    lens.step()
        if lens is not None:
            lens.detach()
        numbers.append(counted.number)
    return numbers[0] - numbers[1]


def of_a_norm() -> float:
    """Operations of a further norm in a step."""
    chains = [nn.Sequential(nn.Linear(8, 8), *(nn.LayerNorm(8) for _ in range(norms))) for norms in (4, 14)]
    few, many = (of_a_step(model, 8, ("norms",)) for model in chains)
    return (many - few) / 10


def of_a_parameter() -> float:
    """Operations of a further parameter of a linear layer in a step, on the host."""
    chains = [nn.Sequential(*(nn.Linear(80, 80) for _ in range(layers))) for layers in (5, 15)]
    few, many = (of_a_step(model, 80, ("params",)) for model in chains)
    return (many - few) / 20
