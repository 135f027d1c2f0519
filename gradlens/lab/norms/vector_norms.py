"""Which modules of anybody's model normalize vectors, as LayerNorm and RMSNorm do, and with which eps, gain and bias.

What is a norm says ``gradlens.recognition``, for the lens and here. Replaced can be what normalizes the last axis, with
a gain and a bias that another norm can have; every other norm is named with a reason.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules import batchnorm, instancenorm, normalization

from gradlens.lab.norms import NORMS
from gradlens.recognition import NormKind, recognise

_OTHER_AXES: dict[type[nn.Module], str] = {
    instancenorm._InstanceNorm: "it normalizes each channel of a sample over space, not a vector of features",
    batchnorm._NormBase: "it normalizes over the batch, not a vector of features",
    nn.GroupNorm: "it normalizes groups of channels over space, not a vector of features",
    normalization.LocalResponseNorm: "it normalizes over neighbouring channels, not a vector of features",
    normalization.CrossMapLRN2d: "it normalizes over neighbouring channels, not a vector of features",
}


@dataclass(frozen=True, eq=False)
class VectorNorm:
    """A norm over the last dimension of its input.

    Attributes:
        width: H, the length of that dimension.
        eps: as it applies it, inside the root.
        gain: its parameter, None where it has none.
        bias: the same.
        gain_offset: what it adds to the parameter to give the gain: 1 in Gemma's norms, which start at 0.
    """

    width: int
    eps: float
    gain: nn.Parameter | None = None
    bias: nn.Parameter | None = None
    gain_offset: float = 0.0


def read(module: nn.Module) -> VectorNorm | str | None:
    """Return how a module normalizes, or why it cannot be replaced; None where nothing says that it is a norm."""
    for other, reason in _OTHER_AXES.items():
        if isinstance(module, other):
            return reason
    read = _of_ours(module) or _recognised(module)
    if read is not None and hasattr(module, "parametrizations"):
        return "its parameters are parametrized"
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    if isinstance(read, VectorNorm) and any(hooks):
        return "it has hooks, which would be lost; take them off before (a lens: detach it)"
    return read


def _of_ours(module: nn.Module) -> VectorNorm | None:
    """Read one of ``NORMS``: their differences are what a swap is for."""
    if type(module) not in [NORMS[name] for name in NORMS if name not in ("none", "layernorm")]:
        return None
    inner: Any = getattr(module, "normalize", module)
    return VectorNorm(int(inner.normalized_shape[0]), float(inner.eps), getattr(inner, "weight", None))


def _recognised(module: nn.Module) -> VectorNorm | str | None:
    taken = recognise(module)
    if taken is None or (taken.kind is None and not taken.named):
        return None
    kind = taken.kind
    if kind is None:
        own = next((base.__name__ for base in (nn.LayerNorm, nn.RMSNorm) if isinstance(module, base)), "")
        what = f"it is a {own} with a forward of its own, and a" if own else "a"
        return f"{what} copy of it does not " + ("give what LayerNorm or RMSNorm would" if taken.odd else "run")
    shape = getattr(module, "normalized_shape", None)
    shape = (shape,) if isinstance(shape, int) else shape
    if kind.layout == "trailing" and len(shape or ()) > 1:
        return f"it normalizes the last {len(shape or ())} dimensions together"
    if kind.layout != "trailing" and (kind.layout, kind.axes) != ("axes", (-1,)):
        return "it normalizes other axes than the last, not a vector of features"
    gain, bias = getattr(module, kind.gain_name, None), getattr(module, kind.bias_name, None)
    further = {id(parameter) for parameter in module.parameters()} - {id(gain), id(bias)}
    if further or kind.gain_factor != 1.0 or any(p is not None and p.dim() != 1 for p in (gain, bias)):
        return "it has other parameters than a gain and a bias of its width"
    if not _is_plain(kind):
        return "its σ is not the root of variance and eps"
    width = len(gain) if gain is not None else len(bias) if bias is not None else int(shape[0]) if shape else None
    if width is None:
        return "nothing tells its width"
    dtype = torch.float32 if gain is None else gain.dtype
    return VectorNorm(width, kind.eps(module, dtype), gain, bias, kind.gain_offset)


def _is_plain(kind: NormKind) -> bool:
    """Whether its σ² is the variance, or the mean square, plus eps, and its derivatives flow."""
    flows = kind.scale_gradient and (kind.mean_gradient or not kind.centered)
    return kind.scaled and flows and not kind.unbiased and kind.eps_at in (None, "root") and kind.gate is None
