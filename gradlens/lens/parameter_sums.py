"""Sums of parameters and their gradients: shared passes on the host, few kernels and no wait on an accelerator."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import inf, nan

import numpy as np
import torch
from torch import Tensor
from torch.linalg import vector_norm

from gradlens.lens.world import local
from gradlens.native import parameters as native

#: Entries below which a tensor on the host needs no kernel of its own, which would cost more than its sum.
_SMALL = 4096
#: Most entries that are summed in float32 on the host; over millions that would be off by a thousandth.
_ROW = 2**16
#: Most entries of one dot product on a device, whose kernel counts them in 32 bits.
_DOT = 2**30
#: What ``Sums.numbers`` holds, in order.
NUMBERS = ("grad_squares", "grad_absmax", "weight_squares", "nonfinite", "grad_weight")
_DOTS = NUMBERS.index("grad_weight")


@dataclass(frozen=True)
class Sums:
    """What was measured of some parameters.

    Attributes:
        numbers: [len(NUMBERS), P].
        matrices: those of them whose rows were looked at, by their place.
        rows: how many each of these has.
        dead: whether a row's gradient is 0, or so small that its square is, for all rows one after another.
    """

    numbers: Tensor | np.ndarray
    matrices: tuple[int, ...]
    rows: tuple[int, ...]
    dead: Tensor | np.ndarray


def measure(grads: Sequence[Tensor], weights: Sequence[Tensor], rows: Sequence[int], products: bool = True) -> Sums:
    """Take the sums of parameters of one device, dtype and layout.

    Args:
        grads: of each.
        weights: of each.
        rows: of each how many there are along the first dimension; 0 where they are not looked at.
        products: whether Σ grad·w is taken, for which both are read again.
    """
    if (found := native.parameters(grads, weights, rows)) is not None:
        matrices = tuple(i for i, n in enumerate(rows) if n)
        sums = Sums(found[0], matrices, tuple(rows[i] for i in matrices), found[1])
        sums.numbers[_DOTS, ~np.isfinite(sums.numbers[_DOTS]) if products else slice(None)] = nan
        return sums
    sparse = grads[0].layout != torch.strided
    taken, rows = [raised(grad) for grad in grads], [0] * len(rows) if sparse else rows
    on = _on_host if taken[0].device.type == "cpu" else on_device
    sums = on(taken, [raised(weight) for weight in weights], rows, products and not sparse)
    if sparse or not products:  # whose values lie elsewhere than the weights
        sums.numbers[_DOTS] = nan
    return sums


def raised(tensor: Tensor | None) -> Tensor:
    """Return what this process holds of a tensor, as real numbers in float32 or better; of a sparse one the values."""
    assert tensor is not None
    tensor = local(tensor)
    if tensor.is_sparse:
        tensor = tensor.coalesce().values()
        tensor = tensor if tensor.numel() else tensor.new_zeros(1)
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def squares(tensors: Sequence[Tensor]) -> Tensor:
    """Σ x² of each tensor, [P]."""
    if tensors[0].device.type == "cpu":
        flat, starts = _flat([_parts(tensor.reshape(-1), 0) for tensor in tensors])
        return torch.from_numpy(np.add.reduceat(flat * flat, starts))
    return torch.stack(torch._foreach_norm(list(tensors))).double().square()


def totals(flat: Tensor, lengths: Sequence[int]) -> Tensor:
    """Return the sums of successive parts, [P], in float64; no number is below 0.

    Args:
        flat: one dimension, in float64.
        lengths: of the parts; none is empty.
    """
    if flat.device.type == "cpu":
        return torch.from_numpy(np.add.reduceat(flat.numpy(), [0, *accumulate(lengths[:-1])]))
    # Without a wait for the device sums of many parts there are as norms alone.
    return torch.stack(torch._foreach_norm(torch.split(flat, list(lengths)), 1))


def on_device(grads: Sequence[Tensor], weights: Sequence[Tensor], rows: Sequence[int], products: bool = True) -> Sums:
    """Do it without a copy to the host; a gradient that is not finite is told by a 1, and has no norms."""
    by_row = {i: vector_norm(grads[i].reshape(n, -1), dim=1) for i, n in enumerate(rows) if n}
    square = squares([by_row.get(i, grad) for i, grad in enumerate(grads)])
    absmax = torch.stack(torch._foreach_norm(list(grads), inf)).double()
    # Counting entries would be two more kernels a parameter: here a 1 says that there are some.
    wrong = ~torch.isfinite(square)
    found = [square.masked_fill(wrong, nan), absmax.masked_fill(wrong, nan), squares(weights), wrong.double()]
    dead = torch.cat([*by_row.values()]) == 0 if by_row else torch.zeros(0, dtype=torch.bool)
    dots = _dots(grads, weights).masked_fill(wrong, nan) if products else torch.full_like(square, nan)
    return Sums(torch.stack([*found, dots]), tuple(by_row), tuple(n for n in rows if n), dead)


def _dots(grads: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """Σ g·w of each, [P]: a kernel for each large one, a few for all small ones together."""
    if any(grad.numel() != weight.numel() for grad, weight in zip(grads, weights, strict=True)):
        return torch.full((len(grads),), nan, dtype=torch.float64, device=grads[0].device)
    small = [i for i, grad in enumerate(grads) if grad.numel() < _SMALL]
    found: dict[int, Tensor] = {}
    if small:
        g, w = (torch.cat([tensors[i].reshape(-1) for i in small]).double() for tensors in (grads, weights))
        lengths = [grads[i].numel() for i in small]
        above, below = (totals((sign * g * w).clamp(min=0), lengths) for sign in (1, -1))
        found = dict(zip(small, above - below, strict=True))
    large = [i for i in range(len(grads)) if i not in found]
    dots = []
    for i in large:
        pairs = zip(*(torch.split(x[i].reshape(-1), _DOT) for x in (grads, weights)), strict=True)
        parts = [torch.dot(one, other) for one, other in pairs]
        dots.append(parts[0] if len(parts) == 1 else torch.stack(parts).sum())
    if large:
        found |= zip(large, torch.stack(dots).double(), strict=True)
    return torch.stack([found[i] for i in range(len(grads))])


def _on_host(grads: Sequence[Tensor], weights: Sequence[Tensor], rows: Sequence[int], products: bool = True) -> Sums:
    """Do the same for tensors in the host's memory, and count the entries that are not finite and leave them out."""
    out = np.zeros((len(NUMBERS), len(grads)))
    parts: tuple[list[Tensor], list[Tensor]] = ([], [])
    large = np.zeros(len(grads), dtype=bool)
    extremes: list[Tensor] = []
    dots: list[Tensor] = []
    of: list[int] = []
    for i, (grad, weight) in enumerate(zip(grads, weights, strict=True)):
        # One after another, so that the second pass finds the gradient in the cache. The extremes take one pass; the
        # infinity norm is many times slower on a CPU.
        g, w = grad.reshape(-1), weight.reshape(-1)
        for found, one in zip(parts, (g, w), strict=True):
            found.append(_parts(one, rows[i]))
        if g.numel() >= _SMALL:
            extremes += torch.aminmax(g)
            large[i] = True
            if products and g.numel() == w.numel():
                parted = [torch.dot(g[at : at + _ROW], w[at : at + _ROW]) for at in range(0, g.numel(), _ROW)]
                dots += parted
                of += [i] * len(parted)
    if extremes:  # one copy for all, not one a number
        out[1, large] = np.abs(torch.stack(extremes).double().numpy().reshape(-1, 2)).max(axis=1)
    if dots:
        np.add.at(out[_DOTS], of, torch.stack(dots).double().numpy())
    (flat, starts), (of_weights, others) = map(_flat, parts)
    out[0] = np.add.reduceat(flat * flat, starts)
    out[1] = np.where(large, out[1], np.maximum.reduceat(np.abs(flat), starts))
    out[2] = np.add.reduceat(of_weights * of_weights, others)
    if len(flat) == len(of_weights):
        out[_DOTS] = np.where(large, out[_DOTS], np.add.reduceat(flat * of_weights, starts))
    matrices = tuple(i for i, n in enumerate(rows) if n)
    dead = [~flat[starts[i] :][: parts[0][i].numel()].reshape(rows[i], -1).any(axis=1) for i in matrices]
    for i in np.flatnonzero(~np.isfinite(out[0])).tolist():
        # Only a broken step pays for the count.
        finite = grads[i][torch.isfinite(grads[i])]
        out[0, i], out[3, i] = float(finite.double().square().sum()), grads[i].numel() - finite.numel()
        out[1, i] = float(finite.abs().max()) if finite.numel() else 0.0
    out[_DOTS, ~np.isfinite(out[_DOTS])] = nan
    return Sums(out, matrices, tuple(n for n in rows if n), np.concatenate(dead) if dead else np.zeros(0, dtype=bool))


def _parts(flat: Tensor, rows: int) -> Tensor:
    """Return the entries of a tensor, of a large one norms of its parts: their squares have one sum.

    Args:
        flat: the tensor in one dimension.
        rows: into how many equal ones it falls; each then has as many parts, in order.
    """
    if flat.numel() < _SMALL:
        return flat
    table = flat.view(rows or 1, -1)
    length = min(_ROW, table.shape[1])
    rest = table.shape[1] % length
    norms: Tensor = vector_norm(table[:, : table.shape[1] - rest].view(rows or 1, -1, length), dim=2)
    if rest:
        last = table[:, -rest:]
        norms = torch.cat([norms, last if rest < _SMALL and not rows else vector_norm(last, dim=1, keepdim=True)], 1)
    return norms.reshape(-1)


def _flat(tensors: Sequence[Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Lay tensors of one dimension end to end, in float64, and say where each begins."""
    starts = np.array([0, *accumulate(tensor.numel() for tensor in tensors[:-1])])
    return torch.cat(list(tensors)).double().numpy(), starts
