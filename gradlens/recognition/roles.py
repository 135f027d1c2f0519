"""Which parameters of a norm may be its gain and its bias, and along which axes they lie."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from gradlens.recognition.samples import Picks

#: More parameters than these are not tried in all roles.
_MOST_PARAMETERS = 4
_GAIN_NAMES = ("weight", "gamma", "gain", "g", "scale", "a_2", "affine_weight")
_BIAS_NAMES = ("bias", "beta", "b", "shift", "b_2", "affine_bias")


@dataclass(frozen=True)
class Role:
    """A parameter in a role: its name (empty for none), what is added to it, the axis that it lies along."""

    name: str = ""
    offset: float = 0.0
    axis: int | None = None


def roles(module: nn.Module, picks: Picks) -> Iterator[tuple[Role, Role]]:
    """Yield who may be gain and who bias, the usual names first."""
    names = _parameters(module)
    gains = [
        Role(name, offset, axis)
        for name in sorted(names, key=lambda n: (n in _BIAS_NAMES, n not in _GAIN_NAMES))
        for axis in _axes(module, name, picks)
        for offset in (0.0, 1.0)
    ]
    biases = [
        Role(name, 0.0, axis)
        for name in sorted(names, key=lambda n: (n in _GAIN_NAMES, n not in _BIAS_NAMES))
        for axis in _axes(module, name, picks)
    ]
    for gain in (*gains, Role()):
        for bias in (*biases, Role()):
            if not bias.name or bias.name != gain.name:
                yield gain, bias


def _parameters(module: nn.Module) -> list[str]:
    """Return the module's own parameters of at least one number, by name."""
    own = getattr(module, "_parameters", {})
    return [name for name, parameter in own.items() if parameter is not None and parameter.numel()][:_MOST_PARAMETERS]


def _axes(module: nn.Module, name: str, picks: Picks) -> Sequence[int | None]:
    """Return the axes of the input that a parameter may lie along; None: as it broadcasts."""
    parameter, shape = getattr(module, name), picks.shape
    if parameter.numel() == 1:
        return [None]
    apart = picks.kind.layout in ("groups", "instances")
    if parameter.dim() == 1:
        last = len(shape) - 1
        found = [axis for axis in range(len(shape)) if shape[axis] == len(parameter)]
        if apart:
            return [1] if 1 in found else []
        return sorted([-1 if axis == last else axis for axis in found], key=lambda axis: (axis != -1, axis != 1))
    try:
        fits = not apart and torch.broadcast_shapes(parameter.shape, shape) == shape  # type: ignore[no-untyped-call]
    except RuntimeError:
        return []
    return [None] if fits else []
