"""Recognising a normalization by what it does, from inputs and outputs: which axes, which σ, which parameters.

For every way that vectors may lie and every parameter that may be the gain or the bias, the output less the bias must
have the direction of γ ⊙ (x − μ) in each vector, and its length there must be 1/σ for one of the usual σ.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gradlens.recognition.kinds import ACTIVATIONS, Gate, NormKind, stated_eps
from gradlens.recognition.roles import Role, roles
from gradlens.recognition.samples import Picks, centred, tolerance

#: No norm has an eps of so many times the largest variance that it meets.
_MOST_EPS = 3.0


class Seen(NamedTuple):
    """One call: the input, the output, and tensors of the input's shape that were given besides."""

    x: Tensor
    y: Tensor
    gates: tuple[tuple[Gate, Tensor], ...] = ()


def layouts(module: nn.Module, name: str) -> list[NormKind]:
    """Return the ways in which vectors may lie, whatever the number of dimensions; the likeliest first."""
    base, counts = NormKind(name=name), _counts(module)
    return [
        base,
        replace(base, axes=(1,)),
        replace(base, layout="groups", groups=1),
        replace(base, layout="channels"),
        replace(base, layout="instances"),
        replace(base, layout="features"),
        *(replace(base, layout="chunks", groups=count) for count in counts),
        *(replace(base, layout="groups", groups=count) for count in counts),
        replace(base, axes=(-2, -1)),
        replace(base, axes=(-3, -2, -1)),
        replace(base, layout="all"),
    ]


def all_axes(ndim: int, name: str) -> list[NormKind]:
    """Return a kind for every choice of axes of an input of so many dimensions."""
    choices = itertools.chain.from_iterable(itertools.combinations(range(ndim), n) for n in range(1, ndim + 1))
    return [NormKind(name=name, axes=axes) for axes in choices]


def _counts(module: nn.Module) -> list[int]:
    """Return the numbers in a module's attributes that may be those of groups, or sizes of them."""
    numbers = [value for value in vars(module).values() if type(value) is int and value > 1]
    width = max((p.numel() for p in module.parameters(recurse=False)), default=0)
    return list(dict.fromkeys([*numbers, *(width // n for n in numbers if width % n == 0 and width > n)]))[:6]


def best(fitting: Iterator[NormKind]) -> NormKind | None:
    """Return the first kind that needs no factor of its own, or else the first."""
    first = None
    for kind in fitting:
        if kind.gain_factor == 1.0:
            return kind
        first = first or kind
    return first


def fits(
    module: nn.Module,
    seen: Sequence[Seen],
    kinds: Sequence[NormKind],
    *,
    both: bool = True,
    linear: bool = True,
    least: int = 1,
) -> Iterator[NormKind]:
    """Yield the kinds that give these outputs for these inputs, completed by σ, gain, bias and gate.

    Args:
        module: the norm; its parameters are looked at as they are.
        seen: calls of it, with inputs of one shape.
        kinds: how vectors may lie.
        both: whether μ may be subtracted or not, whatever the kinds say.
        linear: whether a kind counts, too, where a constant in place of σ would give the same.
        least: so many vectors must there be.
    """
    for kind in kinds:
        for variant in [replace(kind, centered=c, mean_gradient=c) for c in (True, False)] if both else [kind]:
            gated = kind.layout == "chunks" or (kind.layout == "axes" and kind.axes == (-1,))
            for gate in (None, *(_gates(seen) if gated else ())):
                try:
                    picks = Picks(replace(variant, gate=gate), module, seen[0].x)
                except (RuntimeError, ValueError, IndexError):  # too few axes, or groups that do not divide one
                    continue
                if picks.width > 1 and picks.vectors >= least:
                    yield from _roles_that_fit(module, seen, picks, _gains(seen, gate), linear)


def _gates(seen: Sequence[Seen]) -> list[Gate]:
    found = [gate for gate, _ in seen[0].gates]
    return [
        replace(gate, activation=activation, first=first)
        for gate in found
        for first in (False, True)
        for activation in ACTIVATIONS
    ]


def _gains(seen: Sequence[Seen], gate: Gate | None) -> list[Tensor | None]:
    """Return what the gate multiplies by in each call."""
    if gate is None:
        return [None] * len(seen)
    return [next(gate.factor(z) for g, z in one.gates if g.place == gate.place) for one in seen]


class Sample:
    """The vectors of all calls in one layout, with what does not depend on who is gain and bias."""

    def __init__(self, seen: Sequence[Seen], picks: Picks, factors: Sequence[Tensor | None]) -> None:
        self.kind = kind = picks.kind
        x = torch.cat([picks.take(one.x) for one in seen])
        self.y = torch.cat([picks.take(one.y) for one in seen])
        factor = None if factors[0] is None else torch.cat([picks.take(one) for one in factors if one is not None])
        first = kind.gate is not None and kind.gate.first
        self.x = x * factor if factor is not None and first else x
        self.after = None if first else factor
        self.c, self.norm = centred(self.x, kind)
        self.repeats = len(seen)
        self.finite = torch.isfinite(self.x).all(1) & torch.isfinite(self.y).all(1)
        self.finite &= self.norm[:, 0] > 1e-6 * torch.linalg.vector_norm(self.x, dim=1)
        self.tolerance = tolerance(*[t[..., :0] for one in seen for t in (one.x, one.y)])


def _roles_that_fit(
    module: nn.Module, seen: Sequence[Seen], picks: Picks, factors: Sequence[Tensor | None], linear: bool
) -> Iterator[NormKind]:
    sample = Sample(seen, picks, factors)
    if not sample.finite.any():
        return
    ndim = seen[0].x.dim()
    taken: dict[tuple[str, Role], Tensor] = {}
    for gain, bias in roles(module, picks):
        kind = replace(
            picks.kind, gain_name=gain.name, gain_offset=gain.offset, gain_axis=gain.axis,
            bias_name=bias.name, bias_axis=bias.axis,
        )  # fmt: skip
        for what, role in (("gain", gain), ("bias", bias)):
            if (what, role) not in taken and role.name:
                placed = kind.placed_gain(module, ndim) if what == "gain" else kind.placed_bias(module, ndim)
                assert placed is not None
                taken[what, role] = picks.take(placed).repeat(sample.repeats, 1)
        found = _sigma(module, kind, sample, taken.get(("gain", gain)), taken.get(("bias", bias)), linear)
        if found is not None:
            yield found


def _sigma(
    module: nn.Module, kind: NormKind, sample: Sample, gain: Tensor | None, bias: Tensor | None, linear: bool
) -> NormKind | None:
    """Return the kind with the σ that gives the output, if the output has the direction that gain and bias say."""
    q = sample.c if gain is None else sample.c * gain
    q = q if sample.after is None else q * sample.after
    t = sample.y if bias is None else sample.y - bias
    ok = sample.finite
    q, t, norm = q[ok], t[ok], sample.norm[ok, 0]
    raw = torch.linalg.vector_norm(sample.x[ok] if gain is None else sample.x[ok] * gain[ok], dim=1)
    length, y = torch.linalg.vector_norm(q, dim=1), torch.linalg.vector_norm(sample.y[ok], dim=1)
    inverse = torch.where(length > 0, (t * q).sum(1) / length.square(), 0.0)
    size = y + torch.linalg.vector_norm(t, dim=1) + raw * inverse.abs()
    far = torch.linalg.vector_norm(t - inverse.unsqueeze(1) * q, dim=1)
    if not bool((far <= sample.tolerance * size).all()) or not bool((inverse.abs() > 0).any()):
        return None
    told = length > 0  # of a gate that is shut nothing is left
    norm, inverse, length, size = norm[told], inverse[told], length[told], size[told]
    constant = (inverse * length**2).sum() / length.square().sum()
    if not linear and bool(((inverse - constant).abs() * length <= sample.tolerance * size).all()):
        return None
    for candidate in _sigmas(module, kind, sample.y.shape[1], norm, inverse):
        given = candidate.inv_sigma(norm, sample.y.shape[1], candidate.eps(module))
        factor = float((given * inverse * length**2).sum() / (given.square() * length**2).sum())
        for scale in (1.0, factor):
            if bool(((inverse - scale * given).abs() * length <= sample.tolerance * size).all()):
                return replace(candidate, gain_factor=scale)
            if candidate.unbiased or candidate.eps_at == "sigma":
                break  # a factor of √(H/(H − 1)) is no other
    return None


def _sigmas(module: nn.Module, kind: NormKind, width: int, norm: Tensor, inverse: Tensor) -> Iterator[NormKind]:
    """Yield the kind with every σ that is usual, by the eps that the module states, without, and as it comes out."""
    stated = stated_eps(module)
    places: list[dict[str, Any]] = [{}, {"unbiased": True, "eps_at": "root"}, {"unbiased": True}, {"eps_at": "sigma"}]
    for place in places:
        if stated is not None:
            yield replace(kind, **place)
    if stated is not None:
        yield replace(kind, eps_at="norm")
    for place in places[:2]:
        yield replace(kind, **place, eps_value=0.0)
    # Where the input is smallest eps is most of σ; where it is largest it may be nothing of it, which tells a factor.
    largest, smallest = norm.argmax(), norm.argmin()
    for place, free in itertools.product((*places, {"eps_at": "norm"}), (False, True)):
        candidate = replace(kind, **place)
        factor = inverse[largest] / candidate.inv_sigma(norm, width, 0.0)[largest] if free else 1.0
        sigma, bare = factor / inverse, 1 / candidate.inv_sigma(norm, width, 0.0)
        if candidate.eps_at == "norm":
            fitted = float(sigma.amin()) * math.sqrt(width)
        else:
            at_sigma = candidate.eps_at == "sigma" or (candidate.eps_at is None and candidate.unbiased)
            own = bare if at_sigma else bare.square()
            fitted = float(((sigma if at_sigma else sigma.square()) - own)[smallest])
            if fitted > _MOST_EPS * own.amax():
                continue  # all are divided by the same: a linear map
        if candidate.eps_at == "norm" and fitted > 0.9 * norm.amax():
            continue  # below its least length all are divided by the same: a linear map
        if 0 < fitted < math.inf:
            near = float(f"{fitted:.1g}")
            yield replace(candidate, eps_value=near if abs(near / fitted - 1) < 1e-2 else fitted)


def spelled_out(module: nn.Module, kind: NormKind) -> bool:
    """Whether gain and bias have values that can be told from others: not all of one."""
    values = [getattr(module, name).detach() for name in (kind.gain_name, kind.bias_name) if name]
    return all(bool(value.amin() < value.amax()) for value in values)


def over(kind: NormKind) -> str:
    """Say in words over which axes a kind normalizes."""
    axes = f"the axes {kind.axes}" if len(kind.axes) > 1 else f"axis {kind.axes[0]}"
    words = {
        "axes": axes,
        "trailing": "its normalized_shape",
        "channels": "batch and space",
        "features": "all axes but the last",
        "groups": "groups of channels and space",
        "instances": "space",
        "chunks": "groups of the last axis",
        "all": "all axes",
    }
    return words[kind.layout] + ("" if kind.centered else ", uncentered")
