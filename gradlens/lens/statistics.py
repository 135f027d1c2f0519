"""Numbers about tensors: per-vector moments in the hooks, and sums of them over vectors.

Index legend: a tensor is seen as [vectors..., entries...], ``dims`` being the entry dimensions, H their product, N the
number of vectors, S a number of calls. A hook makes one pass a moment over its tensor and keeps N numbers of each;
``sums`` turns the moments of S calls into sums over vectors, S = 1 inside a compiled graph. Vectors that hold a NaN or
an infinity anywhere are left out, and counted. Nothing here copies to the host. The formulas are Xu et al. 2019,
Theorem 1, in the symbols of ``recording.schema``.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.linalg import vector_norm

from gradlens.lens.world import local
from gradlens.recording.schema import NORM_SUMS, names

#: The phases of a call, in which a hook leaves something of it.
INPUT, GRAD_OUTPUT, GRAD_INPUT = range(3)
#: Per-vector moments of one call, phase by phase.
MOMENTS = (
    ("input_sum", "input_norm", "inv_sigma"),
    ("grad_output_norm", "g_sum", "g_norm"),
    ("grad_input_sum", "grad_input_norm"),
)
#: The moments of one phase, in this order: [vectors...] each.
Moments: TypeAlias = tuple[Tensor, ...]
#: What ``sums`` returns for each call, phase by phase: of any input, and what the schema has of a norm.
SUMS = (
    ("vectors", "entries", *names(NORM_SUMS[INPUT]), "total", "squares"),
    tuple(names(NORM_SUMS[GRAD_OUTPUT])),
    tuple(names(NORM_SUMS[GRAD_INPUT])),
)
COLUMNS = tuple(name for phase in SUMS for name in phase)
#: Where each phase lies in ``COLUMNS``.
PHASES = tuple(slice(sum(map(len, SUMS[:i])), sum(map(len, SUMS[: i + 1]))) for i in range(len(SUMS)))


class Facts(NamedTuple):
    """What the sums of a call depend on besides its moments; for S calls tensors [S].

    Attributes:
        width: H.
        centered: 1 where ``input_norm`` is ‖x − mean‖, else 0.
        recenters: 1 where the derivative of the mean flows, else 0.
        from_sigma: 1 where only mean and σ of the input are known and ``input_norm`` is not, else 0; never in a graph
            that is compiled.
        eps: what σ² has above the variance; asked for only with from_sigma.
    """

    width: Any
    centered: Any = 0.0
    recenters: Any = 0.0
    from_sigma: Any = 0.0
    eps: Any = 0.0


def raised(x: Tensor) -> Tensor:
    """Return x, or this process's part of it, without its graph and in float32 or better.

    A float16 square overflows at 256.
    """
    x = local(x.detach())
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def moments(x: Tensor, dims: tuple[int, ...], *, centered: bool = False) -> tuple[Tensor, Tensor]:
    """Return sum and L2 norm of each vector, both [vectors...].

    Args:
        x: [vectors..., entries...], float32 or float64.
        dims: the entry dimensions.
        centered: take the norm of the deviations from the mean, in a second pass, for E[x²] − E[x]² would lose the
            variance of vectors far from zero.
    """
    total = torch.sum(x, dims, keepdim=centered)
    if not centered:
        return total, norms(x, dims)
    mean = total / (x.numel() // total.numel())
    return total.squeeze(dims), norms(x - mean, dims)


def norms(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Return the L2 norm of each vector."""
    # Over the innermost dimensions vector_norm needs no tensor of squares; over others it is ten times slower on a CPU
    # than squares and a sum, which a compiler makes one loop of in any case (and in a graph nobody may ask how a
    # gradient lies in memory).
    innermost = tuple(dim for place, dim in enumerate(reversed(dims), 1) if dim == -place)
    if torch.compiler.is_compiling() or not innermost or not x.is_contiguous():
        return x.square().sum(dims).sqrt()
    norm: Tensor = vector_norm(x, dim=innermost)
    outer = tuple(dim + len(innermost) for dim in dims[: -len(innermost)])
    return norm.square().sum(outer).sqrt() if outer else norm


def extremes(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the smallest and the largest entry."""
    if x.dim() == 4 and not x.is_contiguous():
        x = x.permute(0, 2, 3, 1)  # channels last: in the order of memory it is many times faster
    low, high = torch.aminmax(x)
    return low, high


def grad_output_moments(
    grad_output: Tensor, gain: Tensor | None, dims: tuple[int, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ‖grad_output‖ and sum and norm of g = γ ⊙ grad_output, each [vectors...].

    Args:
        grad_output: dL/d(output) [vectors..., entries...].
        gain: γ, broadcastable to it, or None.
        dims: the entry dimensions.
    """
    entries = [dim for dim in dims if gain is not None and -dim <= gain.dim()]
    if gain is not None and any(gain.shape[dim] > 1 for dim in entries):
        return norms(grad_output, dims), *moments(grad_output * gain, dims)
    total, norm = moments(grad_output, dims)
    if gain is None:
        return norm, total, norm
    gain = gain.squeeze(entries)  # one number a vector
    return norm, total * gain, norm * gain.abs()


def sums(moments: Tensor, facts: Facts) -> Tensor:
    """Sum the moments of S calls over the vectors that are finite in all of them.

    Args:
        moments: [S, MOMENTS, N]; 0 where a phase has not come.
        facts: of the calls.

    Returns:
        [S, COLUMNS].
    """
    # A sum times zero is zero exactly if every term is finite; many times cheaper than isfinite.
    finite = moments.sum(1) * 0 == 0
    moments = torch.where(finite.unsqueeze(1), moments, 0.0)
    counted = finite.to(moments.dtype)
    squares = moments.square()
    precision = squares[:, 2]
    variance = counted / torch.where(precision > 0, precision, 1.0)
    # Every sum that is needed is one of moments, or of their squares, times 1, 1/σ² or σ²: [S, 2 MOMENTS, 3].
    summed = _products(torch.cat([moments, squares], 1), torch.stack([counted, precision, variance], 1))
    x_sum, _, inverse = summed[:, :3, 0].unbind(1)
    plain, precise, scaled = summed[:, moments.shape[1] :].unbind(2)
    x_sum2, x_squares, _, out_squares, g_sum2, g_squares, in_sum2, in_squares = plain.unbind(1)
    n, from_sigma = counted.sum(1), facts.from_sigma
    if isinstance(from_sigma, Tensor):
        known = facts.width * (variance.sum(1) - n * facts.eps).clamp_min(0.0)
        x_squares = torch.where(from_sigma > 0, known, x_squares)
    totals = (
        *(n, x_sum, inverse, x_sum2, x_squares, out_squares, g_sum2, g_squares, in_sum2, in_squares),
        *(precise[:, 4], precise[:, 5], scaled[:, 7]),
    )
    return torch.stack(columns(totals, torch.full_like(x_sum, moments.shape[2]), facts), 1)


def columns(totals: Sequence[Any], every: Any, facts: Facts) -> list[Any]:
    """Return ``COLUMNS`` of S calls, each [S].

    Args:
        totals: over the vectors that are finite, [S] each: how many; Σ of inputs and of 1/σ; of the squares of all
            other moments; Σ (Σg)²/σ², Σ ‖g‖²/σ², and Σ ‖grad_input‖²·σ².
        every: how many vectors there are.
        facts: of the calls.
    """
    n, x_sum, inverse, x_sum2, x_squares, out_squares, g_sum2, g_squares, in_sum2, in_squares, *weighed = totals
    width, centered, recenters, _, _ = facts
    energy_mean, mean2_actual = g_sum2 / width, in_sum2 / width**2
    mean2_detached = weighed[0] / width**2
    found = {
        "vectors": every,
        "entries": width * every,
        "total": x_sum,
        "squares": x_squares + centered * x_sum2 / width,
        "n_input": n,
        "inv_sigma": inverse,
        "n_grad_output": n,
        "energy_grad_output": out_squares,
        "energy_g": g_squares,
        "energy_mean": energy_mean,
        "energy_recentering": recenters * energy_mean,
        "mean2_detached": mean2_detached,
        "var_detached": weighed[1] / width - mean2_detached,
        "n_grad_input": n,
        "energy_grad_input": in_squares,
        "energy_kept": weighed[2],
        "mean2_actual": mean2_actual,
        "var_actual": in_squares / width - mean2_actual,
    }
    return [found[name] for name in COLUMNS]


def _products(rows: Tensor, weights: Tensor) -> Tensor:
    """Sum each row times each weight over N: [S, rows, N], [S, weights, N] to [S, rows, weights]."""
    if torch.compiler.is_compiling():
        # A compiler makes one loop of it with what comes before; a matrix product would stand alone.
        return (rows.unsqueeze(2) * weights.unsqueeze(1)).sum(3)
    with torch.autocast(rows.device.type, enabled=False):  # a backward pass may run inside of one
        return torch.bmm(rows, weights.transpose(1, 2))
