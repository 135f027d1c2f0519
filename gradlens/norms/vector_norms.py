"""Which modules of anybody's model normalize vectors, as LayerNorm and RMSNorm do, and with which eps, gain and bias.

Recognised are torch's own two, those of ``NORMS``, and classes of others that are called norms, have the attributes
of one, and on a trial give what one gives. Everything else that is called a norm is named with a reason, never guessed.
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import batchnorm, instancenorm, normalization

from gradlens.norms import NORMS

_EPS = ("eps", "variance_epsilon", "epsilon", "norm_eps")
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
    """Return how a module normalizes, or why it is not understood; None where nothing says that it is a norm."""
    kind = _known(module)
    if kind is None and _is_called_norm(module):
        kind = _by_trial(module)
    if isinstance(kind, VectorNorm):
        if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks:
            return "it has hooks, which would be lost; take them off before (a lens: detach it)"
        if hasattr(module, "parametrizations"):
            return "its parameters are parametrized"
    return kind


def _known(module: nn.Module) -> VectorNorm | str | None:
    """Read torch's norms and those of ``NORMS``."""
    cls = type(module)
    for other, reason in _OTHER_AXES.items():
        if isinstance(module, other):
            return reason
    own = cls in [NORMS[name] for name in NORMS if name != "none"]
    for base in (nn.LayerNorm, nn.RMSNorm):
        if isinstance(module, base) and not own and cls.forward is not base.forward:
            return f"it is a {base.__name__} with a forward of its own"
    if not own and not isinstance(module, nn.LayerNorm | nn.RMSNorm):
        return None
    inner: Any = getattr(module, "normalize", module)
    if len(inner.normalized_shape) != 1:
        return f"it normalizes the last {len(inner.normalized_shape)} dimensions together"
    gain, bias = getattr(inner, "weight", None), getattr(inner, "bias", None)
    # torch's RMSNorm takes the type's own eps where it was given none, and half precision is computed in float32.
    dtype = torch.float32 if gain is None or gain.dtype in (torch.float16, torch.bfloat16) else gain.dtype
    eps = torch.finfo(dtype).eps if inner.eps is None else float(inner.eps)
    return VectorNorm(int(inner.normalized_shape[0]), eps, gain, bias)


def _is_called_norm(module: nn.Module) -> bool:
    """Whether its class is called a norm, and nothing in it is."""
    name = type(module).__name__.lower()
    return (
        "norm" in name
        and "nolayernorm" not in name  # wav2vec 2.0's Wav2Vec2NoLayerNormConvLayer
        and not type(module).__module__.startswith("torch.nn.utils")  # parametrizations of weights
        and not any("norm" in type(child).__name__.lower() for child in module.children())
    )


def _by_trial(module: nn.Module) -> VectorNorm | str:
    """Read a class of somebody else's by its attributes, and hold a copy of it against the formulas."""
    own = dict(module.named_parameters())
    gain, bias = own.pop("weight", None), own.pop("bias", None)
    eps = next((float(v) for v in (getattr(module, n, None) for n in _EPS) if isinstance(v, float)), None)
    if gain is None or gain.dim() != 1 or own or any(True for _ in module.buffers()):
        return "its class is not known, and has not the parameters of a LayerNorm or RMSNorm"
    if eps is None:
        return f"its class is not known, and no attribute tells its eps ({', '.join(_EPS)})"
    width = len(gain)
    try:
        trial = copy.deepcopy(module).to("cpu", torch.float32).eval()
        x = 3 * torch.randn(2, 3, width, generator=torch.Generator().manual_seed(0)) + 1.5
        with torch.no_grad():
            for i, parameter in enumerate(trial.parameters()):  # a gain of one would hide that it is there
                parameter.uniform_(0.3, 1.7, generator=torch.Generator().manual_seed(i))
            # Once more at the size of the root of eps, which must be the one that is stated.
            outputs = [(scaled, trial(scaled)) for scaled in (x, 0.3 * max(eps, 1e-12) ** 0.5 * x)]
    except Exception as error:  # whatever a stranger's module raises, it is left as it is
        return f"its class is not known, and a copy of it does not run on [2, 3, {width}] ({type(error).__name__})"
    for offset in (0.0, 1.0):
        for centered in (True, False):
            if all(_gives(trial, x, y, eps, offset, centered=centered) for x, y in outputs):
                return VectorNorm(width, eps, gain, bias, offset)
    return "its class is not known, and does not give what LayerNorm or RMSNorm would"


def _gives(trial: Any, x: Tensor, y: Any, eps: float, offset: float, *, centered: bool) -> bool:
    if not isinstance(y, Tensor) or y.shape != x.shape:
        return False
    c = x - x.mean(-1, keepdim=True) if centered else x
    expected = c * torch.rsqrt(c.square().mean(-1, keepdim=True) + eps) * (trial.weight + offset)
    expected = expected + (0.0 if getattr(trial, "bias", None) is None else trial.bias)
    return torch.allclose(y, expected, rtol=1e-4, atol=1e-5)
