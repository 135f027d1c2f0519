"""Numbers about tensors: pure functions, additive sums out. Nothing here copies to the host or keeps a tensor.

Index legend: a tensor is seen as [vectors..., entries...], ``dims`` being the entry dimensions, H their product;
N the number of vectors. Per-vector results have shape [N]. Every function leaves out whole vectors that hold a
NaN or an infinity, and says how many it kept. Half-precision tensors are raised to float32 first.
"""

import torch
from torch import Tensor
from torch.linalg import vector_norm

#: The order of each function's sums: the stored columns of the recording.
FORWARD_SUMS = ("n_input", "inv_sigma", "total", "squares")
GRAD_OUTPUT_SUMS = (
    "n_grad_output",
    "energy_grad_output",
    "energy_g",
    "energy_mean",
    "mean2_detached",
    "var_detached",
)
GRAD_INPUT_SUMS = ("n_grad_input", "energy_grad_input", "energy_kept", "mean2_actual", "var_actual")


def raised(x: Tensor) -> Tensor:
    """Return x detached, in float32 or better."""
    x = x.detach()
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def finite_sums(columns: list[Tensor]) -> Tensor:
    """Sum per-vector columns over the vectors where all of them are finite.

    Args:
        columns: K tensors of shape [N].

    Returns:
        [1 + K] in float64 (float32 where the device has none): the number of vectors kept, then the sums.
    """
    stacked = torch.stack([torch.ones_like(columns[0]), *columns])
    kept = torch.where(torch.isfinite(stacked).all(0), stacked, 0.0)
    return kept.sum(1, dtype=torch.float32 if kept.device.type == "mps" else torch.float64)


def width_of(view: Tensor, dims: tuple[int, ...]) -> int:
    """Return H, the product of the entry dimensions."""
    width = 1
    for dim in dims:
        width *= view.shape[dim]
    return width


def input_moments(
    x: Tensor, dims: tuple[int, ...], eps: float, *, centered: bool, scaled: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, mean square and 1/σ of every vector, as the norm computes them.

    Args:
        x: the norm's input [vectors..., entries...], float32 or float64.
        dims: the entry dimensions.
        eps: added to the variance (centered) or mean square (not), inside the root.
        centered: whether the norm subtracts the mean.
        scaled: whether it divides by σ; if not, σ is 1.

    Returns:
        mean, mean square, 1/σ, each [N].
    """
    mean = x.mean(dims, keepdim=True)
    # Two passes: E[x²] − E[x]² would lose the variance of vectors far from zero.
    deviations = x - mean if centered else x
    square = vector_norm(deviations, dim=dims).flatten().square() / width_of(x, dims)
    inv_sigma = torch.rsqrt(square + eps) if scaled else torch.ones_like(square)
    mean = mean.flatten()
    return mean, square + mean * mean if centered else square, inv_sigma


def forward_sums(
    x: Tensor, dims: tuple[int, ...], mean: Tensor, square: Tensor, inv_sigma: Tensor
) -> tuple[Tensor, Tensor]:
    """Sums of an input (or any activation) from its per-vector moments [N], and its largest entry.

    Returns:
        [4] in the order of FORWARD_SUMS, and max |x| as a scalar; both over finite vectors.
    """
    trailing = dims == tuple(range(-len(dims), 0))
    # One pass over x where the entries are its last dimensions, as in every token-wise norm.
    low, high = torch.aminmax(x.flatten(-len(dims)), dim=-1) if trailing else (x.amin(dims), x.amax(dims))
    largest = torch.maximum(-low, high)
    width = width_of(x, dims)
    sums = finite_sums([inv_sigma, mean * width, square * width])
    return sums, torch.where(torch.isfinite(largest), largest, 0.0).amax().to(sums.dtype)


def grad_output_sums(
    grad_output: Tensor, gain: Tensor | None, inv_sigma: Tensor, dims: tuple[int, ...]
) -> Tensor:
    """Sums of what arrives at a norm (Xu et al. 2019, Theorem 1; symbols of ``recording.schema``).

    Args:
        grad_output: dL/d(output) [vectors..., entries...].
        gain: γ, broadcastable to it, or None.
        inv_sigma: 1/σ [N].
        dims: the entry dimensions.

    Returns:
        [6], in the order of GRAD_OUTPUT_SUMS.
    """
    g = grad_output if gain is None else grad_output * gain
    mean = g.mean(dims).flatten()
    energy = vector_norm(g, dim=dims).flatten().square()
    arrived = energy if gain is None else vector_norm(grad_output, dim=dims).flatten().square()
    mean2, width = mean * mean, width_of(g, dims)
    scale2 = inv_sigma * inv_sigma
    variance = energy / width - mean2
    return finite_sums([arrived, energy, mean2 * width, mean2 * scale2, variance * scale2])


def grad_input_sums(grad_input: Tensor, inv_sigma: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Sums of what a norm sends back through itself.

    Args:
        grad_input: dL/d(input) through this module only [vectors..., entries...].
        inv_sigma: 1/σ [N].
        dims: the entry dimensions.

    Returns:
        [5], in the order of GRAD_INPUT_SUMS.
    """
    mean = grad_input.mean(dims).flatten()
    energy = vector_norm(grad_input, dim=dims).flatten().square()
    mean2 = mean * mean
    variance = energy / width_of(grad_input, dims) - mean2
    return finite_sums([energy, energy / (inv_sigma * inv_sigma), mean2, variance])
