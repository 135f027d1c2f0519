"""A few entries of each parameter before and after the optimizer: what a step changes, without a copy of the weights.

Of more than 1,024 entries those at a fixed distance are taken, which has no factor in common with the length of a row:
they come from all rows and columns in turn. A slice is a view, so that no index is kept, and it takes no random number.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import gcd, nan, prod
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from gradlens.lens.parameter_sums import totals
from gradlens.lens.world import local
from gradlens.native.core import takes
from gradlens.native.parameters import gather

#: Most entries that are taken of a parameter.
MOST = 1024
#: What ``Sample.pull`` returns, in order.
COLUMNS = (
    "sampled", "sample_squares", "change_squares", "change_fourths", "active", "still",
    "first_moment_squares", "second_moment_squares",
)  # fmt: skip
#: What Adam and its like keep of each parameter.
_MOMENTS = ("exp_avg", "exp_avg_sq")


@cache
def distance(entries: int, row: int) -> int:
    """Return how far apart the sampled entries of a parameter lie.

    Args:
        entries: of the parameter.
        row: of one row of it.
    """
    stride = max(1, -(-entries // MOST))
    while gcd(stride, row) > 1:
        stride += 1
    return stride


def can_be_sampled(parameter: Tensor) -> bool:
    """Whether the entries of a parameter lie in this process's memory, one by one."""
    held = local(parameter)
    return bool(held.numel()) and held.layout == torch.strided and not is_traceable_wrapper_subclass(held)


def order_of(parameter: Tensor) -> tuple[int, ...] | None:
    """Return a parameter's dimensions as they lie in memory; None where that is their own order."""
    held = local(parameter)
    if held.is_contiguous():
        return None
    return tuple(sorted(range(held.dim()), key=lambda dim: -held.stride(dim)))


def spacing(tensor: Tensor, order: tuple[int, ...] | None) -> tuple[int, int]:
    """Return how many entries of a parameter are sampled, and how far apart these lie.

    Args:
        tensor: this process's part of it.
        order: its own, of ``order_of``.
    """
    return _spacing(tensor.shape, order, 2 if tensor.is_complex() else 1)


@cache
def _spacing(shape: tuple[int, ...], order: tuple[int, ...] | None, parts: int) -> tuple[int, int]:
    entries = parts * prod(shape)
    if entries <= MOST:
        return entries, 1
    # What is of one dimension, and real, has rows of one entry.
    row = entries // shape[order[0] if order else 0] if len(shape) + parts > 2 else 1
    stride = distance(entries, row)
    return -(-entries // stride), stride


def entries(tensor: Tensor, order: tuple[int, ...] | None) -> Tensor:
    """Return the sampled entries of a parameter, or of something of its shape, in one dimension.

    Args:
        tensor: lies in memory as the parameter does, or is copied.
        order: the parameter's.
    """
    _, stride = spacing(tensor, order)
    held = tensor if order is None else tensor.permute(*order)
    held = torch.view_as_real(held.resolve_conj()) if held.is_complex() else held
    return held.reshape(-1)[::stride]


@dataclass
class _Group:
    """Parameters of one device and dtype.

    Attributes:
        indices: which.
        versions: of each at the first reading in the step.
        weights: their sampled entries then, one parameter after another.
        lengths: how many of each.
        with_gradient: those that have a dense gradient at the last reading.
        active: which sampled entries of these gradients are not 0.
    """

    indices: list[int]
    versions: list[int]
    weights: Tensor
    lengths: dict[int, int]
    with_gradient: list[int] = field(default_factory=list)
    active: Tensor | None = None


class Sampler:
    """Samples the parameters of a model in each step.

    Args:
        parameters: all that are read.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self._parameters = parameters
        self._orders = {i: order_of(parameter) for i, parameter in enumerate(parameters) if can_be_sampled(parameter)}
        self._groups: list[_Group] = []

    def read(self, has_gradient: Callable[[int], bool]) -> None:
        """Take the weights, unless that was done in the step, and which gradients are not 0.

        Args:
            has_gradient: whether a parameter has a gradient that counts.
        """
        every = self._parameters
        if not self._groups:
            alike: dict[tuple[torch.device, torch.dtype], list[int]] = defaultdict(list)
            for i in self._orders:
                if every[i].requires_grad and local(every[i]).numel():
                    alike[every[i].device, every[i].dtype].append(i)
            for group in alike.values():
                weights = self._entries({i: every[i] for i in group})
                versions = [every[i]._version for i in group]
                self._groups.append(_Group(group, versions, weights, {i: self._spacing(i)[0] for i in group}))
        for one in self._groups:
            grads = {i: grad for i in one.indices if has_gradient(i) and not (grad := local(every[i].grad)).is_sparse}
            one.with_gradient, one.active = list(grads), self._entries(grads) != 0 if grads else None

    def pull(self, state: Mapping[Any, Any]) -> np.ndarray:
        """Take the weights again, and copy all sums to the host: [parameters, len(COLUMNS)], missing where unknown.

        Where nobody has written to any parameter, the optimizer has not stepped, and what it changes is not known.

        Args:
            state: the optimizer's, by parameter; empty where it is not known.
        """
        groups, self._groups = self._groups, []
        found = [pair for group in groups for pair in (*self._changes(group), *self._moments(group, state))]
        out = np.full((len(self._parameters), len(COLUMNS)), nan)
        for indices, names, sums in [(indices, names, sums.cpu().numpy()) for indices, names, sums in found]:
            for name, values in zip(names, sums, strict=True):
                out[indices, COLUMNS.index(name)] = values
        at = np.array([i for group in groups for i in group.indices], dtype=int)
        then = [version for group in groups for version in group.versions]
        same = np.array([self._parameters[i]._version == old for i, old in zip(at, then, strict=True)], dtype=bool)
        changed = COLUMNS.index("change_squares")
        unwritten = at[same & (out[at, changed] == 0)]
        stepped = len(unwritten) < len(at)
        gone = ("change_squares", "change_fourths", *(() if stepped else ("active", "still")))
        out[np.ix_(unwritten, [COLUMNS.index(name) for name in gone])] = nan
        return out

    def _changes(self, group: _Group) -> Iterator[tuple[list[int], Sequence[str], Tensor]]:
        """Yield parameters, names of sums, and these: [names, parameters]."""
        own = {i: self._parameters[i] for i in group.indices}
        if any(self._spacing(i)[0] != group.lengths[i] or own[i].device != group.weights.device for i in own):
            return  # they were moved in between
        weights = group.weights.double()
        change = self._entries(own).double() - weights
        still, lengths = change == 0, list(group.lengths.values())
        changed = change.square_()
        powers = (weights.square_() if weights is not group.weights else weights * weights, changed)
        sums = [totals(power, lengths) for power in powers]
        sums.append(totals(changed.square_(), lengths))
        parts = 2.0 if self._parameters[group.indices[0]].is_complex() else 1.0  # of one entry
        yield group.indices, COLUMNS[:1], torch.tensor([lengths], dtype=torch.float64) / parts
        yield group.indices, COLUMNS[1:4], torch.stack(sums)
        if group.active is not None:
            if group.with_gradient != group.indices:
                own = dict(zip(group.indices, torch.split(still, lengths), strict=True))
                still = torch.cat([own[i] for i in group.with_gradient])
                lengths = [group.lengths[i] for i in group.with_gradient]
            both = (group.active, group.active & still)
            yield group.with_gradient, COLUMNS[4:6], torch.stack([totals(mask.double(), lengths) for mask in both])

    def _moments(self, group: _Group, state: Mapping[Any, Any]) -> Iterator[tuple[list[int], Sequence[str], Tensor]]:
        """Yield the same of what an optimizer like Adam keeps."""
        kept: dict[int, list[Tensor]] = {}
        for i in group.indices:
            parameter = self._parameters[i]
            own = state.get(parameter) or {}
            both: list[Any] = [own.get(moment) for moment in _MOMENTS]
            if all(isinstance(x, Tensor) and x.shape == parameter.shape and x.device == parameter.device for x in both):
                kept[i] = both
        if kept:
            lengths = [group.lengths[i] for i in kept]
            parts = [self._entries({i: own[m] for i, own in kept.items()}) for m in range(len(_MOMENTS))]
            yield list(kept), COLUMNS[6:], torch.stack([totals(part.double().square_(), lengths) for part in parts])

    def _spacing(self, index: int) -> tuple[int, int]:
        return spacing(local(self._parameters[index]), self._orders[index])

    def _entries(self, tensors: Mapping[int, Tensor]) -> Tensor:
        """Return the sampled entries of parameters, or of something of their shapes, end to end."""
        held = {i: local(tensor) for i, tensor in tensors.items()}
        dtype = next(iter(held.values())).dtype
        if all(one.dtype is dtype and takes(one) and self._lies_alike(i, one) for i, one in held.items()):
            taken, distances = zip(*map(self._spacing, held), strict=True)
            return gather(list(held.values()), taken, distances)
        return torch.cat([entries(one, self._orders[i]) for i, one in held.items()])

    def _lies_alike(self, index: int, held: Tensor) -> bool:
        """Whether a tensor lies in one piece, in the order in which the parameter is sampled."""
        order = self._orders[index]
        return (held if order is None else held.permute(*order)).is_contiguous()
