"""The moments of a norm's input: computed, or taken from where PyTorch keeps them for the backward pass anyway."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from gradlens.lens import statistics
from gradlens.lens.statistics import Facts, Moments
from gradlens.lens.world import local, placements
from gradlens.native import core, vectors
from gradlens.recognition.kinds import NormKind

#: Backward nodes that hold mean and 1/σ in the open, [vectors] each.
_NODES = ("NativeLayerNormBackward0", "NativeGroupNormBackward0", "NativeBatchNormBackward0")
_FORWARDS = (
    nn.LayerNorm.forward,
    nn.GroupNorm.forward,
    nn.modules.batchnorm._BatchNorm.forward,
    nn.modules.instancenorm._InstanceNorm.forward,
)
#: The place of 1/σ among the moments.
INV_SIGMA = statistics.MOMENTS[statistics.INPUT].index("inv_sigma")
HALF = (torch.float16, torch.bfloat16)


def keeps_moments(kind: NormKind, module: nn.Module) -> bool:
    """Whether the module's backward node will hold mean and 1/σ: torch's own layers, in eager mode, in training.

    Hooks on saved tensors (checkpoints, offloading) would be triggered by looking.
    """
    return (
        getattr(type(module), "forward", None) in _FORWARDS
        and torch.is_grad_enabled()
        and kind.running(module) is None
        and _may_look()
    )


def _may_look() -> bool:
    """Whether what autograd saved can be looked at: hooks (checkpoints, offloading) would be triggered."""
    return torch._C._autograd._top_saved_tensors_default_hooks(False) is None


def saved(output: Tensor | None, vectors: tuple[int, ...], width: int) -> Moments | None:
    """Return the moments of an input as its norm's backward node holds them; None where it does not.

    Args:
        output: of the module; None where it returned no tensor.
        vectors: sizes of the vector dimensions.
        width: H.
    """
    node: Any = getattr(output, "grad_fn", None)
    if type(node).__name__ not in _NODES:
        return None
    mean, inv_sigma = local(node._saved_result1), local(node._saved_result2)
    if inv_sigma.dtype in HALF:
        return None
    inv_sigma = inv_sigma.view(vectors)
    return mean.view(vectors) * width, inv_sigma, inv_sigma


def rounded(output: Tensor | None, vectors: tuple[int, ...]) -> Tensor | None:
    """Return 1/σ where the norm's backward node holds it in half precision, as on a CPU; else None.

    That is the one which the gradient was taken with: with σ itself the shares would be off by some thousandths.

    Args:
        output: of the module; None where it returned no tensor.
        vectors: sizes of the vector dimensions.
    """
    base = getattr(output, "_base", None)  # an InstanceNorm's output is a view of a BatchNorm's
    node: Any = getattr(output if base is None else base, "grad_fn", None)
    if type(node).__name__ not in _NODES or not _may_look():
        return None
    inv_sigma: Tensor = local(node._saved_result2)
    return inv_sigma.view(vectors) if inv_sigma.dtype in HALF and inv_sigma.numel() else None


def computed(
    kind: NormKind, module: nn.Module, x: Tensor, dims: tuple[int, ...], width: int, dtype: torch.dtype
) -> Moments:
    """Compute the moments of an input.

    Args:
        kind: how the module normalizes.
        module: the norm.
        x: [vectors..., entries...], float32 or better.
        dims: the entry dimensions.
        width: H.
        dtype: of the input as it came.
    """
    total, norm = statistics.moments(x, dims, centered=kind.centered)
    running = kind.running(module)
    if running is not None:
        inv_sigma = torch.rsqrt(running[1].detach() + kind.eps(module, dtype)).to(norm.dtype).expand_as(norm)
    else:
        inv_sigma = kind.inv_sigma(norm, width, kind.eps(module, dtype))
        if dtype in HALF and x.device.type == "cpu" and _rounds(module):
            # As the kernels do (a BatchNorm's but nearly), where what they keep cannot be looked at.
            inv_sigma = inv_sigma.to(dtype).to(norm.dtype)
    return total, norm, inv_sigma


def measured(
    kind: NormKind, module: nn.Module, x: Tensor, dims: tuple[int, ...], dtype: torch.dtype
) -> tuple[vectors.Seen, Any, Facts] | None:
    """Let the native core compute the moments of an input.

    Args:
        kind: how the module normalizes.
        module: the norm.
        x: [vectors..., entries...], without its graph.
        dims: the entry dimensions.
        dtype: of the input as it came.

    Returns:
        How it lies, the block of its call, and its facts; None where the core cannot.
    """
    if not core.takes(x):
        return None
    running = kind.running(module)
    at = vectors.SIGMA[kind.eps_at or ("sigma" if kind.unbiased else "root")] if kind.scaled else vectors.UNSCALED
    sigma = vectors.Sigma(kind.centered, at, kind.unbiased, kind.eps(module, dtype))
    seen = vectors.seen(x, dims, sigma)
    if seen is None:
        x = x.contiguous()
        seen = vectors.seen(x, dims, sigma)
    if seen is None:
        return None
    block = seen.block()
    vectors.moments(seen, x, statistics.INPUT, block)
    if running is not None:
        inv_sigma = torch.rsqrt(running[1].detach() + sigma.eps)
        vectors.put(block, INV_SIGMA, inv_sigma.expand(seen.vectors))
    elif dtype in HALF and _rounds(module):
        vectors.put(block, INV_SIGMA, vectors.as_tensor(block)[INV_SIGMA].to(dtype))
    recentered = float(kind.mean_gradient and running is None)
    return seen, block, Facts(seen.width, float(kind.centered), recentered, 0.0, sigma.eps)


def facts(kind: NormKind, module: nn.Module, width: int, dtype: torch.dtype, *, from_sigma: bool = False) -> Facts:
    """Return what the sums of a call of this norm depend on."""
    return Facts(width, float(kind.centered), recenters(kind, module), float(from_sigma), kind.eps(module, dtype))


def recenters(kind: NormKind, module: nn.Module) -> float:
    """Return 1 where the derivative of μ flows, else 0."""
    return float(kind.mean_gradient and kind.running(module) is None)


def split(kind: NormKind, module: nn.Module, x: Tensor) -> bool:
    """Whether processes hold parts of one vector: no part says what happens to the whole."""
    if isinstance(module, nn.SyncBatchNorm):
        return module.training
    sharded = [placement.dim - x.dim() for placement in placements(x) if placement.is_shard()]
    if kind.layout in ("groups", "instances"):
        return any(dim > -x.dim() for dim in sharded)
    if kind.layout == "chunks":
        return -1 in sharded
    return any(dim in kind.vectors(module, x)[1] for dim in sharded)


def _rounds(module: nn.Module) -> bool:
    """Whether 1/σ of an input in half precision is rounded to that for the backward pass."""
    if isinstance(module, SimpleNamespace):  # a function's arguments
        gain = module.weight
    elif getattr(type(module), "forward", None) in _FORWARDS:
        gain = next(module.parameters(), None)
    else:
        return False
    return gain is None or gain.dtype in HALF
