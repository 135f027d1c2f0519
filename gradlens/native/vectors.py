"""The moments of vectors, and their sums over vectors."""

import ctypes
from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gradlens.native import core
from gradlens.native.core import DTYPES, FORK, pointers

#: Moments of a vector, as ``lens.statistics`` has them.
MOMENTS = 8
#: Where the first moment of each phase lies.
FIRST = (0, 3, 6)
#: Where eps stands, by ``NormKind.eps_at``; what is not divided by σ.
SIGMA = {"root": 1, "sigma": 2, "norm": 3}
UNSCALED = 4


class Layout(ctypes.Structure):
    """How a tensor lies, [v0, e0, v1, e1] in the order of memory, and what is taken of it; ``Layout`` of the core."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("dtype", "v0", "e0", "v1", "e1", "centered", "sigma")),
        *((name, ctypes.c_double) for name in ("freedom", "eps")),
    )


class Sigma(NamedTuple):
    """What a phase needs to know of a norm: of an input where its σ comes from, of gradients nothing."""

    centered: bool = False
    at: int = 0
    unbiased: bool = False
    eps: float = 0.0


class Seen:
    """A tensor as vectors.

    Attributes:
        shape: of the tensor.
        dims: of the entries, negative.
        vectors: sizes of the other dimensions.
        count: of vectors.
        width: H.
        in_order: whether a vector's entries lie in their own order.
        in_columns: whether vectors lie side by side.
        together: whether a vector's entries do.
        block: makes the memory for the moments of a call, [MOMENTS, count] and the ends of the input; zeros.
    """

    def __init__(self, shape: tuple[int, ...], dims: tuple[int, ...], at: Layout, in_order: bool) -> None:
        self.shape, self.dims, self.in_order = shape, dims, in_order
        entries = {dim % len(shape) for dim in dims}
        self.vectors = tuple(size for dim, size in enumerate(shape) if dim not in entries)
        self.count, self.width = prod(self.vectors), prod(shape[dim] for dim in dims)
        self.in_columns = at.e1 == 1 and at.v1 > 1
        self.together = at.e0 == 1 and not self.in_columns
        self.block = ctypes.c_double * (MOMENTS * self.count + 2)
        self.at, self.address = at, ctypes.addressof(at)


def seen(x: Tensor, dims: tuple[int, ...], sigma: Sigma = Sigma()) -> Seen | None:  # noqa: B008
    """Return a tensor as the core sees it; None where vectors do not lie so, as in a transposed one.

    Args:
        x: [vectors..., entries...], one that ``takes`` takes.
        dims: the entry dimensions.
        sigma: of the norm, for an input.
    """
    return _seen(x.shape, x.stride(), x.dtype, dims, sigma)


@lru_cache(4096)
def _seen(
    shape: tuple[int, ...], stride: tuple[int, ...], dtype: torch.dtype, dims: tuple[int, ...], sigma: Sigma
) -> Seen | None:
    entries = {dim % len(shape) for dim in dims}
    order = sorted((dim for dim, size in enumerate(shape) if size > 1), key=lambda dim: -stride[dim])
    dense = all(stride[dim] == prod(shape[d] for d in order[place + 1 :]) for place, dim in enumerate(order))
    of_vectors = [dim for dim in order if dim not in entries]
    if not dense or of_vectors != sorted(of_vectors):
        return None
    # From the innermost on: runs of entries and of vectors take turns.
    sizes = [1, 1, 1, 1]
    place = 3
    for dim in reversed(order):
        if (place % 2 == 1) != (dim in entries):
            place -= 1
        if place < 0:
            return None
        sizes[place] *= shape[dim]
    of_entries = [dim for dim in order if dim in entries]
    width = prod(shape[dim] for dim in entries)
    freedom = width - 1 if sigma.unbiased else width
    at = Layout(DTYPES[dtype], *sizes, sigma.centered, sigma.at, freedom, sigma.eps)
    return Seen(tuple(shape), dims, at, of_entries == sorted(of_entries))


def moments(of: Seen, x: Tensor, phase: int, block: Any, gain: Tensor | None = None) -> None:
    """Take the moments of one phase of a call.

    Args:
        of: how x lies.
        x: [vectors..., entries...].
        phase: of ``lens.statistics``.
        block: of the call.
        gain: γ, one that ``fits``.
    """
    assert core.library is not None
    at, per_entry, period = None, False, 1
    if gain is not None and (how := _spread(tuple(gain.shape), of)):
        shape, per_entry, period = how
        wide = torch.float64 if x.dtype is torch.float64 else torch.float32
        gain = (gain if shape is None else gain.expand(shape)).to(wide).contiguous()
        at = gain.data_ptr()
    core.library.moments(of.address, x.data_ptr(), at, per_entry, period, phase, block, FORK, torch.get_num_threads())


def fits(of: Seen, gain: Tensor | None) -> bool:
    """Whether γ does not lie across the vectors, broadcastable to what is seen."""
    return gain is None or _spread(tuple(gain.shape), of) is not None


@lru_cache(4096)
def _spread(gain: tuple[int, ...], of: Seen) -> tuple[tuple[int, ...] | None, bool, int] | None:
    """Say how γ is laid out: expanded to which sizes, one an entry or a vector, and after how many vectors again."""
    gain = (1,) * (len(of.shape) - len(gain)) + gain
    entries = [dim % len(gain) for dim in of.dims]
    of_vectors = [size for dim, size in enumerate(gain) if dim not in entries]
    first = next((place for place, size in enumerate(of_vectors) if size > 1), len(of_vectors))
    tail = tuple(of_vectors[first:])
    if all(gain[dim] == 1 for dim in entries):
        # The vectors' last dimensions, whole.
        return (None, False, prod(tail)) if tail == of.vectors[first:] else None
    if not of.in_order or of.in_columns or (tail and not (of.together and tail == of.vectors[first:])):
        return None
    if tail and entries != list(range(len(gain) - len(entries), len(gain))):
        return None
    return tuple(of.shape[dim] if dim in entries else size for dim, size in enumerate(gain)), True, prod(tail)


class Totals(NamedTuple):
    """Sums over the vectors of S calls.

    Attributes:
        sums: as ``lens.statistics.columns`` takes them, [S] each.
        every: how many vectors there are, [S].
        extremes: smallest and largest entry of the inputs, [S, 2].
    """

    sums: np.ndarray
    every: np.ndarray
    extremes: np.ndarray


def sums(blocks: Sequence[Any]) -> Totals:
    """Sum the moments of calls over their vectors."""
    assert core.library is not None
    out, many = np.empty((len(blocks), 16)), len(blocks)
    counts = (ctypes.c_int64 * many)(*map(count, blocks))
    core.library.sums(many, pointers(map(ctypes.addressof, blocks), many), counts, out.ctypes.data)
    return Totals(out.T[:13], out[:, 13], out[:, 14:])


def count(block: Any) -> int:
    """Return how many vectors a call has."""
    return (len(block) - 2) // MOMENTS


def as_tensor(block: Any) -> Tensor:
    """Return a call's moments, [MOMENTS, vectors], in the same memory."""
    return torch.frombuffer(block, dtype=torch.float64)[:-2].view(MOMENTS, count(block))


def put(block: Any, first: int, *values: Tensor) -> None:
    """Write moments that torch has taken, [vectors...] each, from the first on."""
    for moment, own in enumerate(values, first):
        as_tensor(block)[moment] = own.reshape(-1)


def clear_gradients(block: Any) -> None:
    """Set the moments of gradients to zero."""
    at = FIRST[1] * count(block)
    ctypes.memset(ctypes.addressof(block) + 8 * at, 0, 8 * (len(block) - 2 - at))
