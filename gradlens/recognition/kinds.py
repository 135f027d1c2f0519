"""What is known of a norm: which entries share one μ and σ, which σ it divides by, where its gain and bias are."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Layout = Literal["axes", "trailing", "channels", "features", "groups", "instances", "chunks", "all"]
EpsAt = Literal["root", "sigma", "norm"]

#: What a gate may be put through before it is multiplied by.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "identity": lambda z: z,
    "sigmoid": torch.sigmoid,
    "gelu": F.gelu,
    "gelu-tanh": lambda z: F.gelu(z, approximate="tanh"),
    "tanh": torch.tanh,
    "relu": F.relu,
    "one-plus": lambda z: 1 + z,
}
_INSTANCE_DIMS = {nn.InstanceNorm1d: 3, nn.InstanceNorm2d: 4, nn.InstanceNorm3d: 5}
_EPS = ("eps", "variance_epsilon", "epsilon", "norm_eps")


@dataclass(frozen=True)
class Gate:
    """A second tensor that a norm's forward takes and multiplies by.

    Attributes:
        place: which of the positional arguments it is.
        name: its name as a keyword.
        activation: what it is put through, a name in ``ACTIVATIONS``.
        first: whether it multiplies the input, so that the product is normalized, rather than what is normalized.
    """

    place: int
    name: str
    activation: str
    first: bool

    def value(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
        """Return the tensor of a call; None where the call has none."""
        given = args[self.place] if self.place < len(args) else kwargs.get(self.name)
        return given.detach() if isinstance(given, Tensor) else None

    def factor(self, value: Tensor) -> Tensor:
        """Return what it multiplies by, in float32 or better."""
        wide = value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
        return ACTIVATIONS[self.activation](wide)


@dataclass(frozen=True, kw_only=True)
class NormKind:
    """How one class normalizes: y = γ ⊙ (x − μ)/σ + β, with γ = ``gain_factor`` (parameter + ``gain_offset``).

    Attributes:
        name: the kind's name in the ``norm`` column.
        axes: the axes that share one μ and σ, for layout "axes".
        layout: how vectors lie in the input: fixed "axes"; "trailing" axes of ``normalized_shape``; over batch and
            space for each of the "channels" (axis 1) or "features" (the last axis); "groups" of channels with space;
            "instances" (a channel of a sample); "chunks" of the last axis; "all" axes.
        groups: number of "groups" or "chunks"; None where the module says it (``num_groups``).
        centered: whether μ is subtracted.
        scaled: whether it divides by σ.
        mean_gradient: whether the derivative of μ flows.
        scale_gradient: whether the derivative of σ flows.
        gain_name: the module's attribute that γ is in.
        gain_offset: what is added to it (1 for Gemma's norms).
        gain_factor: what it is multiplied by, or γ itself where there is no parameter.
        gain_axis: the axis of the input that a gain of one dimension lies along; None for the layout's own. One of
            several dimensions broadcasts as it is.
        bias_name: the attribute that β is in.
        bias_axis: as ``gain_axis``.
        eps_value: eps, where the module has no attribute that tells.
        eps_at: where eps stands: under the "root" with the variance; added to "sigma"; or as the least value of the
            "norm" ‖x − μ‖ = √H σ. By default under the root, or at sigma if ``unbiased``, as hand-written norms have it
            (and the code of Xu et al. 2019).
        unbiased: whether the variance is over H − 1.
        gate: the tensor that is multiplied by besides, None for most.
    """

    name: str
    axes: tuple[int, ...] = (-1,)
    layout: Layout = "axes"
    groups: int | None = None
    centered: bool = True
    scaled: bool = True
    mean_gradient: bool = True
    scale_gradient: bool = True
    gain_name: str = "weight"
    gain_offset: float = 0.0
    gain_factor: float = 1.0
    gain_axis: int | None = None
    bias_name: str = "bias"
    bias_axis: int | None = None
    eps_value: float | None = None
    eps_at: EpsAt | None = None
    unbiased: bool = False
    gate: Gate | None = None

    # ------------------------------------------------------------------ where vectors lie

    def vectors(self, module: nn.Module, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """View x so that some dimensions are the entries of a vector, and say which.

        Returns:
            x itself or a reshaped view, and the entry dimensions (negative, ascending).
        """
        if self.layout == "trailing":
            count = len(module.normalized_shape)  # type: ignore[arg-type]
            return x, tuple(range(-count, 0))
        if self.layout == "all":
            return x, tuple(range(-x.dim(), 0))
        if self.layout == "axes":
            return x, tuple(sorted(axis % x.dim() - x.dim() for axis in self.axes))
        if self.layout in ("channels", "features"):
            apart = 1 if self.layout == "channels" else x.dim() - 1
            return x, tuple(axis - x.dim() for axis in range(x.dim()) if axis != apart)
        if self.layout == "chunks":
            return x.reshape(*x.shape[:-1], self.count(module), -1), (-1,)
        if self.layout == "groups":
            groups = self.count(module)
            return x.reshape(x.shape[0], groups, x.shape[1] // groups, -1), (-2, -1)
        x = x.unsqueeze(0) if _unbatched(module, x.dim()) else x
        return x.reshape(x.shape[0], x.shape[1], -1), (-1,)

    def count(self, module: nn.Module) -> int:
        """Return the number of groups."""
        return self.groups if self.groups is not None else int(module.num_groups)  # type: ignore[arg-type]

    # ------------------------------------------------------------------ gain and bias

    def gain(self, module: nn.Module, ndim: int, given: Tensor | None = None) -> Tensor | None:
        """Return γ, shaped to broadcast to ``vectors`` of an ``ndim``-dimensional input; None where it is 1.

        Args:
            module: the norm.
            ndim: dimensions of its input.
            given: its gain parameter; by default as the module has it.
        """
        weight = self.placed_gain(module, ndim, given)
        if weight is None or weight.numel() == 1:
            return weight
        if self.layout == "groups":
            return weight.view(self.count(module), -1, 1)
        if self.layout == "instances":
            return weight.view(-1, 1)
        return weight.view(self.count(module), -1) if self.layout == "chunks" else weight

    def placed_gain(self, module: nn.Module, ndim: int, given: Tensor | None = None) -> Tensor | None:
        """Return γ, shaped to broadcast to an ``ndim``-dimensional input; None where it is 1."""
        weight = self._parameter(module, self.gain_name, given)
        if weight is None:
            return None if self.gain_factor == 1.0 else torch.tensor(self.gain_factor, device=_device(module))
        if self.gain_offset:
            weight = weight + self.gain_offset
        if self.gain_factor != 1.0:
            weight = weight * self.gain_factor
        return self._placed(module, weight, self.gain_axis, ndim)

    def placed_bias(self, module: nn.Module, ndim: int) -> Tensor | None:
        """Return β, shaped to broadcast to an ``ndim``-dimensional input; None where there is none."""
        bias = self._parameter(module, self.bias_name)
        return None if bias is None else self._placed(module, bias, self.bias_axis, ndim)

    def _parameter(self, module: nn.Module, name: str, given: Tensor | None = None) -> Tensor | None:
        given = getattr(module, name, None) if name and given is None else given
        if not isinstance(given, Tensor):
            return None
        weight: Tensor = given.detach()
        # The part of a DTensor that is here (a world's business, but a gain is asked for in every hook).
        weight = weight.to_local() if hasattr(weight, "to_local") else weight
        return weight.float() if weight.dtype in (torch.float16, torch.bfloat16) else weight

    def _placed(self, module: nn.Module, weight: Tensor, axis: int | None, ndim: int) -> Tensor:
        if weight.dim() != 1 or len(weight) == 1:
            return weight
        if axis is None and self.layout in ("channels", "groups", "instances"):
            axis = 0 if self.layout == "instances" and _unbatched(module, ndim) else 1
        elif axis is None:
            axis = self.axes[0] if self.layout == "axes" else -1
        after = ndim - 1 - axis % ndim
        return weight.view(-1, *([1] * after)) if after else weight

    # ------------------------------------------------------------------ σ

    def eps(self, module: nn.Module, dtype: torch.dtype = torch.float32) -> float:
        """Return eps as the layer applies it (torch's RMSNorm takes the dtype's own where it is None)."""
        if self.eps_value is not None:
            return self.eps_value
        stated = stated_eps(module)
        # torch computes half precision in float32, with float32's eps.
        wide = torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
        return torch.finfo(wide).eps if stated is None else stated

    def inv_sigma(self, norm: Tensor, width: int, eps: float) -> Tensor:
        """Return 1/σ of vectors of H = ``width`` entries from ‖x − μ‖ (or ‖x‖)."""
        if not self.scaled:
            return torch.ones_like(norm)
        at = self.eps_at or ("sigma" if self.unbiased else "root")
        freedom = width - 1 if self.unbiased else width
        if at == "sigma":
            return torch.reciprocal(norm / math.sqrt(freedom) + eps)
        if at == "norm":
            return math.sqrt(freedom) / norm.clamp_min(eps)
        return torch.rsqrt(norm.square() / freedom + eps)

    def slope(self, norm: Tensor, width: int, eps: float) -> Tensor:
        """Return dσ/d‖x − μ‖, at the same."""
        at = self.eps_at or ("sigma" if self.unbiased else "root")
        freedom = width - 1 if self.unbiased else width
        if not self.scaled:
            return torch.zeros_like(norm)
        if at == "root":
            return norm * self.inv_sigma(norm, width, eps) / freedom
        return ((norm > eps).to(norm.dtype) if at == "norm" else torch.ones_like(norm)) / math.sqrt(freedom)

    def running(self, module: nn.Module) -> tuple[Tensor, Tensor] | None:
        """Return running mean and variance where the layer uses them as constants (evaluation), else None."""
        if self.layout not in ("channels", "instances") or module.training:
            return None
        mean, var = getattr(module, "running_mean", None), getattr(module, "running_var", None)
        return None if mean is None or var is None else (mean, var)


def stated_eps(module: nn.Module) -> float | None:
    """Return the eps that an attribute of the module tells, by the names that are usual."""
    for attribute in _EPS:
        value = getattr(module, attribute, None)
        if isinstance(value, float | int):
            return float(value)
    return None


def _unbatched(module: nn.Module, ndim: int) -> bool:
    return any(isinstance(module, cls) and ndim < dims for cls, dims in _INSTANCE_DIMS.items())


def _device(module: nn.Module) -> torch.device | None:
    return next((tensor.device for tensor in (*module.parameters(), *module.buffers())), None)
