"""Which modules are normalizations, over which axes, centered or not, and where their gain and eps are.

A module is recognised, in this order, by
1. the user's registry (``register_norm``);
2. a class attribute ``normalizes``: a mapping with the keywords of ``NormKind`` (the project's own norms say it so,
   and anybody's class may, without importing gradlens);
3. its class, for PyTorch's own norms (a subclass only where it does not replace ``forward``);
4. its behaviour (``gradlens.lens.probing``), for any class whose name or whose parameters look like a norm's.

What a registered class says of its axes is completed by its behaviour: which parameter is the gain, which σ it takes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal
from weakref import WeakSet

import torch
from torch import Tensor, nn

from gradlens.errors import GradlensError
from gradlens.lens.world import local, placements

Layout = Literal["axes", "trailing", "channels", "groups", "instances"]


@dataclass(frozen=True, kw_only=True)
class NormKind:
    """How one class normalizes.

    Attributes:
        name: the kind's name in the ``norm`` column.
        axes: the axes that share one μ and σ, for layout "axes".
        layout: how vectors lie in the input: fixed "axes"; "trailing" axes of ``normalized_shape``; over batch and
            space for each of the "channels"; "groups" of channels with space; "instances" (a channel of a sample).
        centered: whether μ is subtracted.
        scaled: whether it divides by σ.
        mean_gradient: whether the derivative of μ flows.
        scale_gradient: whether the derivative of σ flows.
        gain_name: the module's attribute that γ is in.
        gain_offset: what is added to it to give γ (1 for Gemma's norms).
        eps_value: eps, where the module has no attribute that tells.
        unbiased: whether σ is the deviation over H − 1 plus eps, as hand-written norms have it (and the code of Xu et
            al. 2019), instead of the root of variance plus eps.
    """

    name: str
    axes: tuple[int, ...] = (-1,)
    layout: Layout = "axes"
    centered: bool = True
    scaled: bool = True
    mean_gradient: bool = True
    scale_gradient: bool = True
    gain_name: str = "weight"
    gain_offset: float = 0.0
    eps_value: float | None = None
    unbiased: bool = False

    def eps(self, module: nn.Module, dtype: torch.dtype = torch.float32) -> float:
        """Return eps as the layer applies it (torch's RMSNorm takes the dtype's own where it is None)."""
        if self.eps_value is not None:
            return self.eps_value
        for attribute in ("eps", "variance_epsilon", "epsilon", "norm_eps"):
            value = getattr(module, attribute, None)
            if isinstance(value, float | int):
                return float(value)
        # torch computes half precision in float32, with float32's eps.
        return torch.finfo(torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype).eps

    def gain(self, module: nn.Module, ndim: int, given: Tensor | None = None) -> Tensor | None:
        """Return γ, shaped to broadcast to ``vectors`` of an ``ndim``-dimensional input; None where there is none.

        Args:
            module: the norm.
            ndim: dimensions of its input.
            given: its gain parameter; by default as the module has it.
        """
        given = getattr(module, self.gain_name, None) if given is None else given
        if not isinstance(given, Tensor):
            return None
        weight: Tensor = local(given.detach())
        if weight.dtype in (torch.float16, torch.bfloat16):
            weight = weight.float()
        if self.gain_offset:
            weight = weight + self.gain_offset
        if self.layout == "channels":
            return weight.view(-1, *([1] * (ndim - 2)))
        if self.layout == "groups":
            return weight.view(int(module.num_groups), -1, 1)  # type: ignore[arg-type]
        if self.layout == "instances":
            return weight.view(-1, 1)
        if self.layout == "axes" and weight.dim() == 1 and self.axes != (-1,):
            axis = self.axes[0] % ndim
            return weight.view(-1, *([1] * (ndim - 1 - axis)))
        return weight

    def vectors(self, module: nn.Module, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """View x so that some dimensions are the entries of a vector, and say which.

        Returns:
            x itself or a reshaped view, and the entry dimensions (negative, ascending).
        """
        if self.layout == "trailing":
            count = len(module.normalized_shape)  # type: ignore[arg-type]
            return x, tuple(range(-count, 0))
        if self.layout == "axes":
            return x, tuple(sorted(axis % x.dim() - x.dim() for axis in self.axes))
        if self.layout == "channels":
            return x, tuple(axis - x.dim() for axis in range(x.dim()) if axis != 1)
        if self.layout == "groups":
            groups = int(module.num_groups)  # type: ignore[arg-type]
            return x.reshape(x.shape[0], groups, x.shape[1] // groups, -1), (-2, -1)
        unbatched = any(isinstance(module, cls) and x.dim() < ndim for cls, ndim in _INSTANCE_DIMS.items())
        x = x.unsqueeze(0) if unbatched else x
        return x.reshape(x.shape[0], x.shape[1], -1), (-1,)

    def split(self, module: nn.Module, x: Tensor) -> bool:
        """Whether processes hold parts of one vector: no part says what happens to the whole."""
        if isinstance(module, nn.SyncBatchNorm):
            return module.training
        sharded = [placement.dim - x.dim() for placement in placements(x) if placement.is_shard()]
        if self.layout in ("groups", "instances"):
            return any(dim + x.dim() > 0 for dim in sharded)
        return bool(sharded) and any(dim in self.vectors(module, x)[1] for dim in sharded)

    def running(self, module: nn.Module) -> tuple[Tensor, Tensor] | None:
        """Return running mean and variance where the layer uses them as constants (evaluation), else None."""
        if self.layout not in ("channels", "instances") or module.training:
            return None
        mean, var = getattr(module, "running_mean", None), getattr(module, "running_var", None)
        return None if mean is None or var is None else (mean, var)


_INSTANCE_DIMS = {nn.InstanceNorm1d: 3, nn.InstanceNorm2d: 4, nn.InstanceNorm3d: 5}

TORCH_KINDS: dict[type[nn.Module], NormKind] = {
    nn.LayerNorm: NormKind(name="layernorm", layout="trailing"),
    nn.RMSNorm: NormKind(name="rmsnorm", layout="trailing", centered=False, mean_gradient=False),
    nn.GroupNorm: NormKind(name="groupnorm", layout="groups"),
    **dict.fromkeys(
        (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
        NormKind(name="batchnorm", layout="channels"),
    ),
    **dict.fromkeys(
        (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
        NormKind(name="instancenorm", layout="instances"),
    ),
}
_registered: dict[type[nn.Module], NormKind] = {}


def register_norm(
    cls: type[nn.Module], *, axes: int | Sequence[int], centered: bool = True, scaled: bool = True
) -> None:
    """Tell the lens that a class is a normalization.

    Which of its parameters is the gain, and which σ it divides by, is told from what it does to random vectors; where
    it cannot be run on them the gain is taken to be ``weight``. Its eps is read from ``eps`` (or ``variance_epsilon``,
    ``epsilon``).

    Args:
        cls: the module class; subclasses that do not replace ``forward`` count too.
        axes: the axes of the input whose entries share one μ and σ.
        centered: whether the mean is subtracted.
        scaled: whether it divides by σ.

    Raises:
        GradlensError: cls is not a module class, or axes is empty.
    """
    axes = (axes,) if isinstance(axes, int) else tuple(axes)
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise GradlensError(f"register_norm needs a class derived from nn.Module; got {cls!r}. Pass the class itself.")
    if not axes:
        raise GradlensError(f"register_norm needs the axes that share one mean; got none for {cls.__name__}.")
    _registered[cls] = NormKind(
        name=cls.__name__.lower(), axes=axes, centered=centered, scaled=scaled, mean_gradient=centered
    )


def _by_class(table: dict[type[nn.Module], NormKind], cls: type[nn.Module]) -> NormKind | None:
    """Look the class up; a subclass inherits its kind unless it replaces ``forward``."""
    for base in cls.__mro__:
        if base in table:
            return table[base] if cls.forward is base.forward else None
    return None


def recognise(module: nn.Module, probe: Callable[[nn.Module], NormKind | None]) -> NormKind | None:
    """Return how a module normalizes, or None where it is no normalization that is understood.

    Args:
        module: any module.
        probe: asked for classes that only their behaviour can tell.
    """
    cls = type(module)
    declared: Any = getattr(cls, "normalizes", None)
    known = _by_class(_registered, cls)
    if known is None and isinstance(declared, dict):
        known = NormKind(**declared)
    elif known is not None:
        known = _completed(known, probe(module))
    known = known or _by_class(TORCH_KINDS, cls)
    if known is None and (looks_like_norm(module) or _has_parameters_of_one(module)):
        known = probe(module)
        if known is None and not looks_like_norm(module):
            _others.add(cls)
    return known


def _completed(registered: NormKind, found: NormKind | None) -> NormKind:
    """Return what was registered, with what its behaviour tells besides, if that agrees."""
    if found is None or found.centered != registered.centered or not registered.scaled:
        return registered
    # Channels first are tried on four dimensions.
    dims = 4 if found.axes == (-3,) else 0
    axes = tuple(axis - dims if axis >= 0 else axis for axis in registered.axes)
    return replace(found, axes=registered.axes, name=registered.name) if axes == found.axes else registered


def looks_like_norm(module: nn.Module) -> bool:
    """Whether the class's name says that it normalizes and nothing in it does so itself."""
    if type(module).__module__.startswith("torch.nn.utils"):
        return False  # parametrizations of weights (weight norm, spectral norm)
    return "norm" in type(module).__name__.lower() and not any(
        "norm" in type(child).__name__.lower() for child in module.children()
    )


#: Classes with a norm's parameters that do something else.
_others: "WeakSet[type[nn.Module]]" = WeakSet()


def _has_parameters_of_one(module: nn.Module) -> bool:
    """Whether a class of the user's has nothing but one or two vectors of one length, as a gain and a bias are."""
    cls, sizes = type(module), [parameter.shape for parameter in module.parameters()]
    if cls in _others or cls.__module__.startswith("torch.") or next(module.children(), None) is not None:
        return False
    return 1 <= len(sizes) <= 2 and len(set(sizes)) == 1 and len(sizes[0]) == 1 and sizes[0][0] > 1
