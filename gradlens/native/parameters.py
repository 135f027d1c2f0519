"""Numbers of parameters and their gradients, and samples of their entries, each in one call for all of them."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gradlens.native import core
from gradlens.native.core import DTYPES, FORK, longs, pointers, takes
from gradlens.native.vectors import seen


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
    if core.library is None or not all(map(_alike, grads, weights)):
        return None
    dtype, many = grads[0].dtype, len(grads)
    if any(tensor.dtype is not dtype for tensor in (*grads, *weights)):
        return None
    if any(n and not _outermost(weight) for weight, n in zip(weights, rows, strict=True)):
        return None
    out, dead = np.empty((5, many)), np.empty(sum(rows), dtype=bool)
    failed = core.library.parameters(
        many,
        pointers((grad.data_ptr() for grad in grads), many),
        pointers((weight.data_ptr() for weight in weights), many),
        longs(tuple([grad.numel() for grad in grads])),
        longs(tuple(rows)),
        DTYPES[dtype],
        out.ctypes.data,
        dead.ctypes.data,
        FORK,
        torch.get_num_threads(),
    )
    return None if failed else (out, dead)


def gather(tensors: Sequence[Tensor], taken: Sequence[int], distances: Sequence[int]) -> Tensor:
    """Return so many entries of each tensor, so far apart in memory, end to end in float64; all of one dtype."""
    assert core.library is not None
    out, many = torch.empty(sum(taken), dtype=torch.float64, device="cpu"), len(tensors)
    at = pointers((tensor.data_ptr() for tensor in tensors), many)
    core.library.gather(
        many, at, longs(tuple(taken)), longs(tuple(distances)), DTYPES[tensors[0].dtype], out.data_ptr()
    )
    return out


def _alike(grad: Tensor, weight: Tensor) -> bool:
    """Whether a weight and its gradient lie alike, in one piece."""
    if not (takes(grad) and takes(weight) and grad.numel() == weight.numel()):
        return False
    if grad.is_contiguous() and weight.is_contiguous():
        return True
    return grad.stride() == weight.stride() and _dense(weight)


def _dense(x: Tensor) -> bool:
    return seen(x, tuple(range(-x.dim(), 0))) is not None


def _outermost(x: Tensor) -> bool:
    """Whether the first dimension is the outermost in memory."""
    return x.is_contiguous() or x.stride(0) == max(x.stride())
