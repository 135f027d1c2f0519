"""Numbers about tensors: per-vector moments in the hooks, sums of them over vectors at the end of backward.

Index legend: a tensor is seen as [vectors..., entries...], ``dims`` being the entry dimensions, H their product, N the
number of vectors, S a number of calls. A hook makes one pass a moment over its tensor and keeps N numbers of each;
``sums`` turns the moments of all calls into sums over vectors in one go. Whole vectors that hold a NaN or an infinity
anywhere are left out, and counted. Nothing here copies to the host. The formulas are Xu et al. 2019, Theorem 1, in the
symbols of ``recording.schema``.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.linalg import vector_norm

#: Per-vector moments of one call: what the hooks write, and (starred) what follows from it.
CELLS = (
    "one",
    "mean",
    "norm",  # ‖x − mean‖ where the norm subtracts the mean, else ‖x‖; 0 where only σ is known
    "inv_sigma",
    "sigma",  # *
    "grad_output_came",  # 1 or 0
    "g_mean",
    "g_norm",
    "g_mean_detached",  # * ḡ/σ
    "g_norm_detached",  # * ‖g‖/σ
    "grad_output_norm",
    "grad_input_came",  # 1 or 0
    "grad_input_mean",
    "grad_input_norm",
    "kept_norm",  # * ‖a‖σ
)
_AT = {name: index for index, name in enumerate(CELLS)}
MEAN, NORM, INV_SIGMA = _AT["mean"], _AT["norm"], _AT["inv_sigma"]
#: First of the backward cells, which are zero until a gradient arrives.
BACKWARD = _AT["grad_output_came"]
#: What ``sums`` returns for each call: every cell summed, then every cell's square summed.
SUMS = (*CELLS, *(f"{name}²" for name in CELLS))


def raised(x: Tensor) -> Tensor:
    """Return x without its graph, in float32 or better: a float16 square overflows at 256."""
    if x.requires_grad:
        x = x.detach()
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def new_cells(vectors: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return room for the moments of one call, [CELLS, vectors...], as if 1/σ were 1 and no gradient had come."""
    cells = torch.zeros((len(CELLS), *vectors), dtype=dtype, device=device)
    cells[_AT["one"]] = 1
    cells[INV_SIGMA] = 1
    return cells


def write_input(x: Tensor, dims: tuple[int, ...], centered: bool, cells: Sequence[Tensor]) -> None:
    """Take the moments of a norm's input, or of any activation.

    Args:
        x: [vectors..., entries...], float32 or float64.
        dims: the entry dimensions.
        centered: whether the norm subtracts the mean; then the deviations from it are measured, in a second pass, for
            E[x²] − E[x]² would lose the variance of vectors far from zero.
        cells: one tensor [vectors...] for each of CELLS, written in place.
    """
    mean = torch.mean(x, dims, out=cells[MEAN])
    deviations = x - _unsqueezed(mean, dims, x.dim()) if centered else x
    vector_norm(deviations, dim=dims, out=cells[NORM])


def write_inv_sigma(width: int, eps: float, cells: Sequence[Tensor]) -> None:
    """Compute 1/σ from the input's moments: eps is added to the variance or mean square, inside the root."""
    torch.rsqrt(cells[NORM].square().div_(width).add_(eps), out=cells[INV_SIGMA])


def write_grad_output(grad_output: Tensor, gain: Tensor | None, dims: tuple[int, ...], cells: Sequence[Tensor]) -> None:
    """Take the moments of what arrives at a norm.

    Args:
        grad_output: dL/d(output) [vectors..., entries...].
        gain: γ, broadcastable to it, or None.
        dims: the entry dimensions.
        cells: as above.
    """
    g = grad_output if gain is None else grad_output * gain
    torch.mean(g, dims, out=cells[_AT["g_mean"]])
    norm = vector_norm(g, dim=dims, out=cells[_AT["g_norm"]])
    if gain is None:
        cells[_AT["grad_output_norm"]].copy_(norm)
    else:
        vector_norm(grad_output, dim=dims, out=cells[_AT["grad_output_norm"]])
    cells[_AT["grad_output_came"]].fill_(1)


def write_grad_input(grad_input: Tensor, dims: tuple[int, ...], cells: Sequence[Tensor]) -> None:
    """Take the moments of a, dL/d(input) through one module only; arguments as above."""
    torch.mean(grad_input, dims, out=cells[_AT["grad_input_mean"]])
    vector_norm(grad_input, dim=dims, out=cells[_AT["grad_input_norm"]])
    cells[_AT["grad_input_came"]].fill_(1)


def _unsqueezed(x: Tensor, dims: tuple[int, ...], ndim: int) -> Tensor:
    """Give a reduced tensor its reduced dimensions back, with length one."""
    for dim in sorted(dim % ndim for dim in dims):
        x = x.unsqueeze(dim)
    return x


def sums(cells: Tensor) -> Tensor:
    """Sum the moments of S calls, and their squares, over the vectors that are finite in all of them.

    Args:
        cells: [S, CELLS, N]; overwritten.

    Returns:
        [S, SUMS].
    """
    inv_sigma = cells[:, INV_SIGMA]
    sigma = torch.reciprocal(inv_sigma, out=cells[:, _AT["sigma"]])
    g = slice(_AT["g_mean"], _AT["g_norm"] + 1)
    g_detached = slice(_AT["g_mean_detached"], _AT["g_norm_detached"] + 1)
    torch.mul(cells[:, g], inv_sigma.unsqueeze(1), out=cells[:, g_detached])
    torch.mul(cells[:, _AT["grad_input_norm"]], sigma, out=cells[:, _AT["kept_norm"]])
    # A sum times zero is zero exactly if every term is finite; many times cheaper than isfinite.
    broken = cells.sum(1, keepdim=True) * 0 != 0
    cells.masked_fill_(broken, 0.0)
    return torch.cat([cells.sum(2), cells.square_().sum(2)], dim=1)
