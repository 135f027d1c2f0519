"""Numbers about tensors: per-vector moments in the hooks, additive sums of them at the end of backward.

Index legend: a tensor is seen as [vectors..., entries...], ``dims`` being the entry dimensions, H their product, N the
number of vectors, S a number of calls of equal shape. The hooks make one pass a moment over the tensor and keep N
numbers of each (CELLS); ``sums`` turns the moments of many calls into sums over vectors, in float64, in one go. Whole
vectors that hold a NaN or an infinity are left out, and counted. Nothing here copies to the host.
"""

import torch
from torch import Tensor
from torch.linalg import vector_norm

#: Per-vector moments of one call. ``norm`` is of the deviations from the mean where the norm subtracts it.
CELLS = (
    "mean",
    "norm",
    "high",
    "low",
    "given_inv_sigma",
    "g_mean",
    "g_norm",
    "grad_output_norm",
    "grad_input_mean",
    "grad_input_norm",
)
_MEAN, _NORM, _HIGH, _LOW, _GIVEN, _G_MEAN, _G_NORM, _OUT_NORM, _IN_MEAN, _IN_NORM = range(len(CELLS))
#: First of the backward cells, and what fills them until a gradient arrives (norms are never negative).
BACKWARD, ABSENT = _G_MEAN, -1.0

#: The sums of one call, over its vectors. The recording's variances follow from them on the host.
FORWARD_SUMS = ("n_input", "inv_sigma", "total", "squares")
GRAD_OUTPUT_SUMS = (
    "vectors_grad_output",
    "n_grad_output",
    "energy_grad_output",
    "energy_g",
    "energy_mean",
    "mean2_detached",
    "energy_detached",
)
GRAD_INPUT_SUMS = ("vectors_grad_input", "n_grad_input", "energy_grad_input", "energy_kept", "mean2_actual")
SUMS = (*FORWARD_SUMS, *GRAD_OUTPUT_SUMS, *GRAD_INPUT_SUMS)


def raised(x: Tensor) -> Tensor:
    """Return x detached, in float32 or better: a float16 square overflows at 256."""
    x = x.detach()
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def write_input(x: Tensor, dims: tuple[int, ...], centered: bool, cells: Tensor) -> None:
    """Take the moments of a norm's input, or of any activation.

    Args:
        x: [vectors..., entries...], float32 or float64.
        dims: the entry dimensions.
        centered: whether the norm subtracts the mean; then the deviations from it are measured, in a second pass, for
            E[x²] − E[x]² would lose the variance of vectors far from zero.
        cells: [CELLS, vectors...], written in place.
    """
    torch.mean(x, dims, out=cells[_MEAN])
    torch.amax(x, dims, out=cells[_HIGH])
    torch.amin(x, dims, out=cells[_LOW])
    deviations = x - _unsqueezed(cells[_MEAN], dims, x.dim()) if centered else x
    vector_norm(deviations, dim=dims, out=cells[_NORM])


def write_grad_output(grad_output: Tensor, gain: Tensor | None, dims: tuple[int, ...], cells: Tensor) -> None:
    """Take the moments of what arrives at a norm.

    Args:
        grad_output: dL/d(output) [vectors..., entries...].
        gain: γ, broadcastable to it, or None.
        dims: the entry dimensions.
        cells: [CELLS, vectors...], written in place.
    """
    g = grad_output if gain is None else grad_output * gain
    torch.mean(g, dims, out=cells[_G_MEAN])
    vector_norm(g, dim=dims, out=cells[_G_NORM])
    if gain is None:
        cells[_OUT_NORM].copy_(cells[_G_NORM])
    else:
        vector_norm(grad_output, dim=dims, out=cells[_OUT_NORM])


def write_grad_input(grad_input: Tensor, dims: tuple[int, ...], cells: Tensor) -> None:
    """Take the moments of dL/d(input) through one module only; arguments as above."""
    torch.mean(grad_input, dims, out=cells[_IN_MEAN])
    vector_norm(grad_input, dim=dims, out=cells[_IN_NORM])


def _unsqueezed(x: Tensor, dims: tuple[int, ...], ndim: int) -> Tensor:
    """Give a reduced tensor its reduced dimensions back, with length one."""
    for dim in sorted(dim % ndim for dim in dims):
        x = x.unsqueeze(dim)
    return x


#: Where Σ ḡ² stands among the totals, before the counts are put in.
_ENERGY_MEAN = len(FORWARD_SUMS) + GRAD_OUTPUT_SUMS[2:].index("energy_mean")


def sums(
    cells: Tensor, width: int, eps: float, *, centered: bool, scaled: bool, given: bool, backward: bool
) -> tuple[Tensor, Tensor]:
    """Sum the moments of S calls over their vectors (Xu et al. 2019, Theorem 1; symbols of ``recording.schema``).

    Args:
        cells: [S, CELLS, N], float64 where the device has it.
        width: H.
        eps: added to the variance (centered) or mean square (not), inside the root.
        centered: whether ``norm`` is of the deviations from the mean.
        scaled: whether the norm divides by σ; if not, σ is 1.
        given: whether 1/σ was given (running statistics) instead of following from the input.
        backward: whether there are gradients at all.

    Returns:
        [S, SUMS] and the largest |entry| of each input [S].
    """
    mean, norm, high, low, given_inv_sigma, g_mean, g_norm, out_norm, in_mean, in_norm = cells.unbind(1)
    square = norm.square() / width
    if given:
        inv_sigma = given_inv_sigma
    else:
        inv_sigma = torch.rsqrt(square + eps) if scaled else torch.ones_like(square)
    if centered:
        square = torch.addcmul(square, mean, mean)
    plain = [torch.ones_like(mean), inv_sigma, mean, square]
    to_square = [out_norm, g_norm, g_mean, g_mean * inv_sigma, g_norm * inv_sigma]
    to_square += [in_norm, in_norm / inv_sigma, in_mean]
    stacked = torch.stack(plain + to_square if backward else plain, dim=1)
    stacked[:, len(plain) :].square_()
    # A sum times zero is zero exactly if every term is finite; many times cheaper than isfinite.
    broken = stacked.sum(1) * 0 != 0
    totals = stacked.masked_fill_(broken.unsqueeze(1), 0.0).sum(2)
    totals[:, 2:4] *= width
    absmax = torch.maximum(high, -low).masked_fill_(broken, 0.0).amax(1)
    if not backward:
        return torch.nn.functional.pad(totals, (0, len(SUMS) - len(FORWARD_SUMS))), absmax
    totals[:, _ENERGY_MEAN] *= width
    # A gradient arrives for all vectors of a call or for none.
    arrived, returned = ((norms[:, :1] != ABSENT).to(cells.dtype) for norms in (g_norm, in_norm))
    counts = torch.cat([totals.new_full((len(totals), 1), cells.shape[2]), totals[:, :1]], dim=1)
    forward, grad_output, grad_input = totals.split([4, 5, 3], dim=1)
    parts = [forward, arrived * counts, arrived * grad_output, returned * counts, returned * grad_input]
    return torch.cat(parts, dim=1), absmax
