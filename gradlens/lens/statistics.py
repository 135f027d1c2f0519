"""Numbers about tensors: per-vector moments in the hooks, and sums of them over vectors.

Index legend: a tensor is seen as [vectors..., entries...], ``dims`` being the entry dimensions, H their product, N the
number of vectors, S a number of calls. A hook makes one pass a moment over its tensor and keeps N numbers of each;
``sums`` turns the moments of S calls into sums over vectors, S = 1 inside a compiled graph. Vectors that hold a NaN or
an infinity anywhere are left out, and counted. Nothing here copies to the host. The formulas are Xu et al. 2019,
Theorem 1, in the symbols of ``recording.schema``.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.linalg import vector_norm

#: Per-vector moments of one call, in three phases: of the input, of grad_output, of grad_input.
CELLS = (
    ("input_mean", "input_norm", "inv_sigma"),
    ("grad_output_norm", "g_mean", "g_norm"),
    ("grad_input_mean", "grad_input_norm"),
)
#: What ``sums`` returns for each call, in the same phases: the stored columns of these names.
SUMS = (
    ("vectors", "entries", "n_input", "inv_sigma", "total", "squares"),
    (
        "n_grad_output",
        "energy_grad_output",
        "energy_g",
        "energy_mean",
        "energy_recentering",
        "mean2_detached",
        "var_detached",
    ),
    ("n_grad_input", "energy_grad_input", "energy_kept", "mean2_actual", "var_actual"),
)
COLUMNS = tuple(name for phase in SUMS for name in phase)
#: Where each phase lies in ``COLUMNS``.
PHASES = tuple(slice(sum(map(len, SUMS[:i])), sum(map(len, SUMS[: i + 1]))) for i in range(len(SUMS)))


class Facts(NamedTuple):
    """What the sums of a call depend on besides its moments; for S calls tensors [S, 1].

    Attributes:
        width: H.
        centered: 1 where ``input_norm`` is ‖x − mean‖, else 0.
        recenters: 1 where the derivative of the mean flows, else 0.
        from_sigma: 1 where only mean and σ of the input are known and ``input_norm`` is not, else 0.
        eps: what σ² has above the variance; asked for only with from_sigma.
    """

    width: Any
    centered: Any = 0.0
    recenters: Any = 0.0
    from_sigma: Any = 0.0
    eps: Any = 0.0


def raised(x: Tensor) -> Tensor:
    """Return x without its graph, in float32 or better: a float16 square overflows at 256."""
    x = x.detach()
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def moments(x: Tensor, dims: tuple[int, ...], *, centered: bool = False) -> tuple[Tensor, Tensor]:
    """Return mean and L2 norm of each vector, both [vectors...].

    Args:
        x: [vectors..., entries...], float32 or float64.
        dims: the entry dimensions.
        centered: take the norm of the deviations from the mean, in a second pass, for E[x²] − E[x]² would lose the
            variance of vectors far from zero.
    """
    mean = torch.mean(x, dims)
    return mean, vector_norm(x - _unsqueezed(mean, dims, x.dim()) if centered else x, dim=dims)


def inv_sigma(norm: Tensor, width: int, eps: float) -> Tensor:
    """Return 1/σ from the input's norm: eps is added to the variance or mean square, inside the root."""
    return torch.rsqrt(norm.square() / width + eps)


def grad_output_moments(
    grad_output: Tensor, gain: Tensor | None, dims: tuple[int, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ‖grad_output‖ and mean and norm of g = γ ⊙ grad_output, each [vectors...].

    Args:
        grad_output: dL/d(output) [vectors..., entries...].
        gain: γ, broadcastable to it, or None.
        dims: the entry dimensions.
    """
    if gain is None:
        mean, norm = moments(grad_output, dims)
        return norm, mean, norm
    return vector_norm(grad_output, dim=dims), *moments(grad_output * gain, dims)


def sums(cells: Tensor, facts: Facts) -> Tensor:
    """Sum the moments of S calls over the vectors that are finite in all of them.

    Args:
        cells: [S, CELLS, N]; 0 where a phase has not come.
        facts: of the calls.

    Returns:
        [S, COLUMNS].
    """
    # A sum times zero is zero exactly if every term is finite; many times cheaper than isfinite.
    finite = cells.sum(1) * 0 == 0
    cells = torch.where(finite.unsqueeze(1), cells, 0.0)
    one = torch.ones_like(cells[:, 0])
    counted = torch.where(finite, one, 0.0)
    x_mean, x_norm, inverse, *_ = cells.unbind(1)
    _, x_squares, precision, out_squares, g_mean2, g_squares, in_mean2, in_squares = cells.square().unbind(1)
    variance = torch.where(precision > 0, precision, 1.0).reciprocal()
    known = facts.width * (variance - facts.eps).clamp_min(0.0) * counted
    deviations = x_squares + facts.from_sigma * (known - x_squares)
    mean_energy = facts.width * g_mean2
    terms = (
        one,
        facts.width * one,
        counted,
        inverse,
        facts.width * x_mean,
        deviations + facts.centered * facts.width * x_mean.square(),
        counted,
        out_squares,
        g_squares,
        mean_energy,
        facts.recenters * mean_energy,
        g_mean2 * precision,
        (g_squares / facts.width - g_mean2) * precision,
        counted,
        in_squares,
        in_squares * variance,
        in_mean2,
        in_squares / facts.width - in_mean2,
    )
    return torch.stack(terms, 1).sum(2)


def _unsqueezed(x: Tensor, dims: tuple[int, ...], ndim: int) -> Tensor:
    """Give a reduced tensor its reduced dimensions back, with length one."""
    for dim in sorted(dim % ndim for dim in dims):
        x = x.unsqueeze(dim)
    return x
