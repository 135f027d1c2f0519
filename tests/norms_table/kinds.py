"""The formulas that many classes share, and how an entry is written."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import nn

from tests.norms_table.formula import Formula

LAYER = Formula()
RMS = Formula(centered=False, bias=None)
RMS_OF_ONE_PLUS = replace(RMS, offset=1.0)
#: Layer norm and RMS norm of a channel axis that comes second.
CHANNELS, CHANNELS_RMS = Formula(axes=(1,), at=1), Formula(axes=(1,), at=1, centered=False, bias=None)
GROUPS = Formula(groups="num_groups", at=1)
ONE_GROUP = Formula(groups=1, at=1)
ROWS = Formula(axes=(0,), at=1)  # batch norm of [B, C]
BATCH_1D, BATCH_2D, BATCH_3D = (Formula(axes=(0, *range(2, 3 + n)), at=1) for n in range(3))
INSTANCE_1D, INSTANCE_2D = Formula(axes=(2,), at=1), Formula(axes=(2, 3), at=1)


def unit(gain: object = None, *, axis: int = -1, eps: object = 1e-12, bias: object = None) -> Formula:
    """Return x divided by its length (of which ``eps`` is the least), times the root of its size, times gain."""
    return Formula(axes=(axis,), at=axis, centered=False, eps=eps, place="floor", gain=gain, bias=bias)


def length_one(width: int, gain: Callable[[Any], Any] = lambda module: 1.0, **more: Any) -> Formula:
    """Return x divided by its length, times gain: of a mean square of one, a root of the width less."""
    return unit(lambda module, *further: gain(module) / width**0.5, **more)


#: What torch's own norms compute.
OF_TORCH: dict[type[nn.Module], Formula] = {
    nn.LayerNorm: LAYER,
    nn.RMSNorm: RMS,
    nn.GroupNorm: GROUPS,
    nn.BatchNorm1d: BATCH_1D,
    nn.BatchNorm2d: BATCH_2D,
    nn.BatchNorm3d: BATCH_3D,
    nn.InstanceNorm1d: INSTANCE_1D,
    nn.InstanceNorm2d: INSTANCE_2D,
}


def of_torch(module: nn.Module) -> Formula:
    """Return the formula of one of torch's own norms, in training."""
    formula = OF_TORCH[type(module)]
    shape = getattr(module, "normalized_shape", (0,))
    return formula if len(shape) == 1 else replace(formula, axes=tuple(range(-len(shape), 0)))
