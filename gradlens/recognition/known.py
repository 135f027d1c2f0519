"""Which modules are taken for norms before they have run, and for which.

A module is recognised, in this order, by
1. the user's registry (``register_norm``);
2. a class attribute ``normalizes``: a mapping with the keywords of ``NormKind`` (the project's own norms say it so,
   and anybody's class may, without importing gradlens);
3. its class, for PyTorch's own norms (a subclass only where it does not replace ``forward``);
4. the behaviour of a copy (``trial``), for any class whose name or whose parameters look like a norm's.

Whatever it is taken for, its first call must prove it (``proof``); and one that is taken for nothing is looked at when
it first runs, if it may be one at all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from weakref import WeakSet

from torch import nn

from gradlens.errors import GradlensError
from gradlens.recognition.kinds import NormKind
from gradlens.recognition.trial import forgets_size, tried

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
#: Classes with a norm's parameters that do something else.
_others: "WeakSet[type[nn.Module]]" = WeakSet()
#: A module of at most so many others may be one norm; of more it is an architecture.
_MOST_PARTS = 4


@dataclass(frozen=True)
class Taken:
    """What a module is taken for.

    Attributes:
        kind: how it normalizes; None where it must be seen running to be told.
        by: who says so: its "class", a "declaration" of it, the user's "registry", or a "trial" of a copy. Empty where
            nobody does.
        named: whether its class is called a norm.
        likely: whether it has a norm's name, or a norm's parameters and nothing else.
        found: what a copy does, where that is not what was said of it.
        odd: whether a copy of it was run, and did what no formula gives.
        sizeless: whether that copy gave the same output for an input of any size.
    """

    kind: NormKind | None
    by: Literal["class", "declaration", "registry", "trial", ""]
    named: bool = False
    likely: bool = False
    found: NormKind | None = None
    odd: bool = False
    sizeless: bool = False

    @property
    def told(self) -> NormKind | None:
        """The axes that the class, its author or the user says; None where nobody did."""
        return self.kind if self.by in ("class", "declaration", "registry") else None


def register_norm(
    cls: type[nn.Module], *, axes: int | Sequence[int], centered: bool = True, scaled: bool = True
) -> None:
    """Tell the lens that a class is a normalization.

    It must prove itself like any other: by its first call. Which of its parameters is the gain, along which axis, and
    which σ it divides by, is told from what it does there.

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


def recognise(module: nn.Module) -> Taken | None:
    """Return what a module is taken for; None where it is no norm, or is not for us to say before it has run.

    Args:
        module: any module; nothing of it is run.
    """
    cls = type(module)
    known, declared = _by_class(_registered, cls), getattr(cls, "normalizes", ...)
    if known is not None:
        # What a copy does over other axes is of use where it turns out that the user was wrong.
        kind = tried(module, known)
        return Taken(kind or known, "registry", found=(None if kind else tried(module)) or None)
    if isinstance(declared, dict):
        return Taken(NormKind(**declared), "declaration")
    known = _by_class(TORCH_KINDS, cls)
    if known is not None:
        return Taken(known, "class")
    if declared is None or (cls.__module__.split(".")[0] == "torch" and not _is_called_norm(cls)):
        return None
    # A torch norm's subclass with a forward of its own is one, whatever it is called.
    named = looks_like_norm(module) or isinstance(module, tuple(TORCH_KINDS))
    if named or _has_parameters_of_one(module):
        kind = tried(module)
        if kind:
            return Taken(kind, "trial", named)
        sizeless = kind is False and forgets_size(module)
        if named or kind is None or sizeless:
            return Taken(None, "", named, likely=True, odd=kind is False, sizeless=sizeless)
        _others.add(cls)
    return Taken(None, "") if _may_be_one(module) else None


def _by_class(table: dict[type[nn.Module], NormKind], cls: type[nn.Module]) -> NormKind | None:
    """Look the class up; a subclass inherits its kind unless it replaces ``forward``."""
    for base in cls.__mro__:
        if base in table:
            return table[base] if cls.forward is base.forward else None
    return None


def looks_like_norm(module: nn.Module) -> bool:
    """Whether the class's name says that it normalizes and nothing in it does so itself."""
    if type(module).__module__.startswith("torch.nn.utils"):
        return False  # parametrizations of weights (weight norm, spectral norm)
    return _is_called_norm(type(module)) and not any(
        _is_called_norm(type(part)) for part in module.modules() if part is not module
    )


def _is_called_norm(cls: type[nn.Module]) -> bool:
    # wav2vec 2.0's NoLayerNormConvLayer, say, is called so for having none.
    return "norm" in cls.__name__.lower() and "NoLayerNorm" not in cls.__name__


def _may_be_one(module: nn.Module) -> bool:
    """Whether a module is of a class of somebody's own, with hardly anything in it and no norm in that."""
    if type(module).__module__.split(".")[0] == "torch" or isinstance(module, nn.Sequential | nn.ModuleList):
        return False
    parts = list(module.modules())[1:]
    return len(parts) <= _MOST_PARTS and not any(
        _is_called_norm(type(part)) or _by_class(_registered, type(part)) or _has_parameters_of_one(part)
        for part in parts
    )


def _has_parameters_of_one(module: nn.Module) -> bool:
    """Whether a class of the user's has nothing but one or two vectors of one length, as a gain and a bias are."""
    cls, sizes = type(module), [parameter.shape for parameter in module.parameters()]
    if cls in _others or cls.__module__.startswith("torch.") or next(module.children(), None) is not None:
        return False
    return 1 <= len(sizes) <= 2 and len(set(sizes)) == 1 and max(sizes[0], default=0) == sizes[0].numel() > 1
