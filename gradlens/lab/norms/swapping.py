"""Put a norm of ``NORMS`` in place of the norms of a model that exists."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from gradlens.errors import ModelError
from gradlens.lab.norms import NORMS
from gradlens.lab.norms.vector_norms import VectorNorm, read


@dataclass(frozen=True)
class Place:
    """One module of the model.

    Attributes:
        paths: all names it goes by; more than one where it is shared.
        was: its class before.
        width: of the vectors it normalizes; None where it was left.
        reason: why it was left; empty where it was replaced.
    """

    paths: tuple[str, ...]
    was: str
    width: int | None = None
    reason: str = ""


@dataclass(frozen=True)
class Swap:
    """What ``swap`` did; ``str()`` says it in words.

    Attributes:
        norm: the new norm's name in ``NORMS``.
        replaced: the norms that were.
        left: the norms that were not, with the reason.
        removed: names of gains and biases that the model no longer has.
        added: names of gains and biases that it did not have before.
        notes: what else was changed, or is for the caller to do.
    """

    norm: str
    replaced: tuple[Place, ...]
    left: tuple[Place, ...]
    removed: tuple[str, ...]
    added: tuple[str, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        kinds = [f"{place.was} of width {place.width}" for place in self.replaced]
        counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
        lines = [f"{_counted(self.replaced)} replaced by {self.norm}" + (f": {counts}" if counts else "")]
        lines += [f"  {' = '.join(place.paths)}" for place in self.replaced]
        if self.left:
            lines.append(f"{_counted(self.left)} left as before")
            lines += [f"  {' = '.join(place.paths)} ({place.was}): {place.reason}" for place in self.left]
        return "\n".join([*lines, *(f"Note: {note}" for note in self.notes)])


def swap(model: nn.Module, norm: str, **options: Any) -> Swap:
    """Replace the vector norms of a model, in place, by one of ``NORMS``.

    The new norms have the old ones' width, eps and mode, and the very gain and bias parameters where they take any;
    a gain or bias that only the new norm has starts at 1 or 0, in the type and on the device of the parameters
    around it. A shared norm stays shared. Norms that are none of vectors, or not understood, are left, and named.
    The same swap again changes nothing.

    Swap before the optimizer is made and before the model is wrapped or compiled. Code that reads a norm's
    ``weight`` itself is not seen, but for the fused inference path of ``torch.nn.TransformerEncoder``, which is
    turned off where it would.

    Args:
        model: any module that holds norms.
        norm: a name in ``NORMS``.
        options: further arguments of that norm, such as ``scale`` and ``k`` of AdaNorm.

    Returns:
        What was replaced, what was left, and what to mind.

    Raises:
        UnknownNameError: there is no such norm.
        ModelError: the model is itself a norm, or the norm does not take the options.
    """
    cls = NORMS[norm]
    if not isinstance(model, nn.Module):
        raise ModelError(f"swap needs a torch.nn.Module, whose norms it replaces; got {type(model).__name__}.")
    paths = _paths(model)
    found = {module: read(module) for module in paths}
    if model in found and found[model] is not None:
        raise ModelError(
            f"swap replaces the norms inside a model; this model is itself one, {type(model).__name__}, and has no "
            f"place to be replaced in. Give the model that holds it."
        )
    before = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    replaced, left = [], []
    new: dict[nn.Module, nn.Module] = {}
    offset_gains: dict[nn.Parameter, nn.Parameter] = {}
    for module, kind in found.items():
        was = type(module).__name__
        if isinstance(kind, VectorNorm):
            built = _built(cls, norm, kind, options, _beside(model, paths[module][0]), offset_gains)
            if type(module) is cls and repr(module) == repr(built):  # which says eps and options too
                left.append(Place(tuple(paths[module]), was, reason=f"it is {norm} already"))
                continue
            new[module] = built.train(module.training)
            replaced.append(Place(tuple(paths[module]), was, kind.width))
        elif kind is not None:
            left.append(Place(tuple(paths[module]), was, reason=kind))
    for module, norm_module in new.items():
        for path in paths[module]:
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, norm_module)
    after = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    removed, added = tuple(sorted(before - after)), tuple(sorted(after - before))
    notes = [*(_without_fast_path(model) if new else ()), *_for_the_optimizer(removed, added)]
    return Swap(norm, tuple(replaced), tuple(left), removed, added, tuple(notes))


def _counted(places: tuple[Place, ...]) -> str:
    return f"{len(places)} norm{'' if len(places) == 1 else 's'}"


def _paths(model: nn.Module) -> dict[nn.Module, list[str]]:
    """Return each module's names, without the parts of norms that are made of others."""
    made = tuple({NORMS[name] for name in NORMS if name.startswith("adanorm")})
    found: dict[nn.Module, list[str]] = {}
    parts: set[nn.Module] = set()
    for path, module in model.named_modules(remove_duplicate=False):
        if module not in parts:
            found.setdefault(module, []).append(path)
        if isinstance(module, made):
            parts.update(module.children())
    return found


def _built(
    cls: Any,
    name: str,
    kind: VectorNorm,
    options: dict[str, Any],
    beside: Tensor | None,
    offset_gains: dict[nn.Parameter, nn.Parameter],
) -> nn.Module:
    """Make the new norm, with the old one's parameters."""
    try:
        norm: nn.Module = cls(kind.width, kind.eps, **options)
    except TypeError as error:
        raise ModelError(f"The norm {name!r} must take the options given to swap; it does not: {error}.") from error
    beside = next((p for p in (kind.gain, kind.bias) if p is not None), beside)
    if beside is not None and beside.is_floating_point():
        norm.to(device=beside.device, dtype=beside.dtype)
    gain = kind.gain
    if gain is not None and kind.gain_offset:
        if gain not in offset_gains:  # a gain that two norms share stays shared
            offset_gains[gain] = nn.Parameter(gain.detach() + kind.gain_offset, requires_grad=gain.requires_grad)
        gain = offset_gains[gain]
    own = dict(norm.named_parameters())
    for key, parameter in (("weight", gain), ("bias", kind.bias)):
        # A norm with one gain for all features keeps its own.
        if key in own and parameter is not None and own[key].shape == parameter.shape:
            setattr(norm, key, parameter)
    return norm


def _beside(model: nn.Module, path: str) -> Tensor | None:
    """Return a parameter of the nearest module around a path that has one."""
    while path:
        path = path.rpartition(".")[0]
        parameter = next(model.get_submodule(path).parameters(), None)
        if parameter is not None:
            return parameter
    return None


def _without_fast_path(model: nn.Module) -> Iterable[str]:
    """Turn off the fused inference path of torch's encoder where it would read a LayerNorm that is gone.

    In evaluation it takes the norms' weights and computes LayerNorm from them, whatever the norms are.
    """
    layers, encoders = [], []
    for path, module in model.named_modules():
        if isinstance(module, nn.TransformerEncoderLayer) and module.activation_relu_or_gelu and not _has_own(module):
            module.activation_relu_or_gelu = 0  # what it looks at first; it is used for nothing else
            layers.append(path)
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder) and module.use_nested_tensor:
            first: Any = next(iter(module.layers), None)
            if isinstance(first, nn.TransformerEncoderLayer) and not _has_own(first):
                module.use_nested_tensor = False
                encoders.append(module)
    if layers or encoders:
        yield (
            "torch's fused inference path, which computes LayerNorm from the norms' weights itself, was turned off in "
            f"{', '.join(layers) or 'the encoder'}; evaluation is as slow as training's forward pass there"
        )


def _has_own(layer: nn.TransformerEncoderLayer) -> bool:
    """Whether both norms of a layer are those that the fused path stands for."""
    return all(type(norm) is nn.LayerNorm and norm.weight is not None for norm in (layer.norm1, layer.norm2))


def _for_the_optimizer(removed: tuple[str, ...], added: tuple[str, ...]) -> Iterable[str]:
    if removed or added:
        yield (
            f"make the optimizer now: the model has {len(removed)} gains and biases less and {len(added)} more. Groups "
            "without weight decay must be chosen anew, and by name rather than by isinstance(module, nn.LayerNorm), "
            "which no longer finds these norms"
        )
