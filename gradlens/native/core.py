"""The functions of the core, called for tensors that it can take."""

import ctypes
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from gradlens.native.building import compiled, measures

_DTYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
_PLAIN = (Tensor, nn.Parameter)
#: Moments of a vector, as ``lens.statistics`` has them, and their sums over vectors.
MOMENTS, SUMS = 8, 14
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
        together: whether they lie side by side.
        block: makes the memory for the moments of a call, [MOMENTS, count] and the ends of the input; zeros.
    """

    def __init__(self, shape: tuple[int, ...], dims: tuple[int, ...], at: Layout, in_order: bool) -> None:
        self.shape, self.dims, self.in_order = shape, dims, in_order
        entries = {dim % len(shape) for dim in dims}
        self.vectors = tuple(size for dim, size in enumerate(shape) if dim not in entries)
        self.count, self.width = prod(self.vectors), prod(shape[dim] for dim in dims)
        self.together = at.e0 == 1 and not (at.e1 == 1 and at.v1 > 1)
        self.block = ctypes.c_double * (MOMENTS * self.count + 2)
        self.at, self.address = at, ctypes.addressof(at)


def _load() -> ctypes.CDLL | None:
    if measures() != "native":
        return None
    with suppress(OSError):  # compiled for another system
        return ctypes.CDLL(str(compiled()))
    return None


def _fork() -> int:
    """Return the entry by which torch's own threads are given work; 0 where that is not to be found."""
    with suppress(OSError, AttributeError):
        library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
        return ctypes.cast(ctypes.CDLL(str(library)).GOMP_parallel, ctypes.c_void_p).value or 0
    return 0


#: The library; None where torch's operations measure.
core = _load()
_FORK = 0 if core is None else _fork()
if core is not None:
    _long, _at = ctypes.c_int64, ctypes.c_void_p
    core.moments.argtypes = (_at, _at, _at, _long, _long, _long, _at, _at, _long)
    core.moments.restype = core.sums.restype = core.gather.restype = None
    core.sums.argtypes = (_long, _at, _at, _at)
    core.gather.argtypes = (_long, _at, _at, _at, _long, _at)
    core.parameters.argtypes = (_long, _at, _at, _at, _at, _long, _at, _at, _at, _long)


def takes(x: Tensor) -> bool:
    """Whether a tensor is one that the core can read."""
    return bool(
        core is not None
        and type(x) in _PLAIN
        and x.is_cpu
        and x.dtype in _DTYPES
        and x.layout is torch.strided
        and not torch._C._functorch.is_functorch_wrapped_tensor(x)
        and not x.is_neg()
        and x.data_ptr()
    )


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
    at = Layout(_DTYPES[dtype], *sizes, sigma.centered, sigma.at, freedom, sigma.eps)
    return Seen(tuple(shape), dims, at, of_entries == sorted(of_entries))


def moments(of: Seen, x: Tensor, phase: int, block: Any, gain: Tensor | None = None) -> bool:
    """Take the moments of one phase of a call.

    Args:
        of: how x lies.
        x: [vectors..., entries...].
        phase: of ``lens.statistics``.
        block: of the call.
        gain: γ, broadcastable to x, in float64.

    Returns:
        Whether that was possible: nothing is taken where γ lies across the vectors.
    """
    assert core is not None
    at, per_entry, period = 0, False, 1
    if gain is not None:
        how = _spread(tuple(gain.shape), of)
        if how is None:
            return False
        shape, per_entry, period = how
        gain = gain if shape is None else gain.expand(shape)
        gain = gain if gain.is_contiguous() else gain.contiguous()
        at = gain.data_ptr()
    core.moments(of.address, x.data_ptr(), at, per_entry, period, phase, block, _FORK, torch.get_num_threads())
    return True


@lru_cache(4096)
def _spread(gain: tuple[int, ...], of: Seen) -> tuple[tuple[int, ...] | None, bool, int] | None:
    """Say how γ is laid out: expanded to which sizes, one an entry or one a vector, and after how many vectors again."""
    gain = (1,) * (len(of.shape) - len(gain)) + gain
    entries = [dim % len(gain) for dim in of.dims]
    of_vectors = [size for dim, size in enumerate(gain) if dim not in entries]
    first = next((place for place, size in enumerate(of_vectors) if size > 1), len(of_vectors))
    tail = tuple(of_vectors[first:])
    if all(gain[dim] == 1 for dim in entries):
        # The vectors' last dimensions, whole.
        return (None, False, prod(tail)) if tail == of.vectors[first:] else None
    if not of.in_order or (tail and not (of.together and tail == of.vectors[first:])):
        return None
    if tail and entries != list(range(len(gain) - len(entries), len(gain))):
        return None
    shape = tuple(of.shape[dim] if dim in entries or (tail and size > 1) else size for dim, size in enumerate(gain))
    return shape, True, prod(tail)


def sums(blocks: Sequence[Any], counts: Sequence[int]) -> np.ndarray:
    """Return the sums over vectors of calls, [calls, SUMS], in the order of ``lens.statistics.TOTALS``.

    Args:
        blocks: of the calls.
        counts: how many vectors each has.
    """
    assert core is not None
    out, many = np.empty((len(blocks), SUMS)), len(blocks)
    core.sums(many, _pointers(map(ctypes.addressof, blocks), many), (ctypes.c_int64 * many)(*counts), out.ctypes.data)
    return out


def parameters(
    grads: Sequence[Tensor], weights: Sequence[Tensor], rows: Sequence[int]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the numbers of ``lens.parameter_sums`` [5, P], and which of all rows have no gradient.

    Args:
        grads: of each.
        weights: of each.
        rows: of each how many there are along the first dimension; 0 where they are not looked at.

    Returns:
        None where some tensor is not what the core takes.
    """
    if core is None or not all(_alike(*pair) for pair in zip(grads, weights, strict=True)):
        return None
    dtype, many = grads[0].dtype, len(grads)
    if any(grad.dtype is not dtype for grad in grads):
        return None
    if any(n and not _outermost(weight) for weight, n in zip(weights, rows, strict=True)):
        return None
    out, dead = np.empty((5, many)), np.empty(sum(rows), dtype=bool)
    failed = core.parameters(
        many,
        _pointers((grad.data_ptr() for grad in grads), many),
        _pointers((weight.data_ptr() for weight in weights), many),
        _longs(tuple([grad.numel() for grad in grads])),
        _longs(tuple(rows)),
        _DTYPES[dtype],
        out.ctypes.data,
        dead.ctypes.data,
        _FORK,
        torch.get_num_threads(),
    )
    return None if failed else (out, dead)


def gather(tensors: Sequence[Tensor], taken: Sequence[int], distances: Sequence[int]) -> Tensor:
    """Return so many entries of each tensor, so far apart in memory, end to end in float64; all of one dtype."""
    assert core is not None
    out, many = torch.empty(sum(taken), dtype=torch.float64, device="cpu"), len(tensors)
    pointers = _pointers((tensor.data_ptr() for tensor in tensors), many)
    core.gather(
        many, pointers, _longs(tuple(taken)), _longs(tuple(distances)), _DTYPES[tensors[0].dtype], out.data_ptr()
    )
    return out


def _pointers(addresses: Any, many: int) -> Any:
    return (ctypes.c_void_p * many)(*addresses)


@lru_cache(64)
def _longs(values: tuple[int, ...]) -> Any:
    return (ctypes.c_int64 * len(values))(*values)


def _alike(grad: Tensor, weight: Tensor) -> bool:
    """Whether a weight and its gradient lie alike, in one piece."""
    return (
        takes(grad)
        and takes(weight)
        and grad.dtype is weight.dtype
        and ((weight.is_contiguous() and grad.is_contiguous()) or (_dense(weight) and grad.stride() == weight.stride()))
        and grad.shape == weight.shape
    )


def _dense(x: Tensor) -> bool:
    return seen(x, tuple(range(-x.dim(), 0))) is not None


def _outermost(x: Tensor) -> bool:
    """Whether the first dimension is the outermost in memory."""
    return x.is_contiguous() or x.stride(0) == max(x.stride())
