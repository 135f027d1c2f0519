"""The norms of Xu et al. 2019 (1911.07013) as their code computes them, which is not quite as their paper writes them.

In the code (``fairseq/modules/layer_norm.py`` of the authors' repository, modes ``nowb`` and ``adanorm``) s is the
unbiased standard deviation, over H − 1, and eps is added to it outside the root:

    y = (x − μ)/(s + eps),    s² = Σ(x − μ)²/(H − 1)

With c = x − μ and g = dL/dy, what goes back is dL/dx = (g − mean(g) − c·(g·c)/((H − 1) s (s + eps)))/(s + eps): the
mean is 0 as in the paper's Theorem 1, and the bound on the variance holds with s + eps in place of σ. Detaching μ
or s leaves out their terms.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gradlens.lab.norms.adanorm import AdaNorm


class LayerNormSimpleUnbiased(nn.Module):
    """LayerNorm-simple with the authors' deviation.

    Args:
        width: H, the length of the last dimension; at least 2.
        eps: added to the deviation, outside the root.
    """

    #: How the class treats the gradient; what gradlens decomposes goes by it.
    normalizes: ClassVar[dict[str, Any]] = {
        "name": "layernorm-simple-unbiased",
        "layout": "axes",
        "axes": (-1,),
        "centered": True,
        "scaled": True,
        "mean_gradient": True,
        "scale_gradient": True,
        "unbiased": True,
    }

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.normalized_shape = (width,)  # torch's name for it
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalize x [..., H] over its last dimension."""
        # In float32 at least, and through one view of x: see DetachNorm.
        wide = x.view_as(x).to(torch.promote_types(x.dtype, torch.float32))
        deviation, mean = torch.std_mean(wide, dim=-1, correction=1, keepdim=True)
        if not self.normalizes["mean_gradient"]:
            mean = mean.detach()
        if not self.normalizes["scale_gradient"]:
            deviation = deviation.detach()
        return ((wide - mean) / (deviation + self.eps)).to(x.dtype)

    def extra_repr(self) -> str:
        """Show shape and eps in the module's repr."""
        return f"{self.normalized_shape}, eps={self.eps}"


class DetachNormUnbiased(LayerNormSimpleUnbiased):
    """DetachNorm with the authors' deviation."""

    normalizes: ClassVar[dict[str, Any]] = {
        **LayerNormSimpleUnbiased.normalizes,
        "name": "detachnorm-unbiased",
        "mean_gradient": False,
        "scale_gradient": False,
    }


class DetachMeanNormUnbiased(LayerNormSimpleUnbiased):
    """The same with the mean detached only."""

    normalizes: ClassVar[dict[str, Any]] = {
        **LayerNormSimpleUnbiased.normalizes,
        "name": "detachnorm-mean-unbiased",
        "mean_gradient": False,
    }


class DetachVarianceNormUnbiased(LayerNormSimpleUnbiased):
    """The same with the deviation detached only."""

    normalizes: ClassVar[dict[str, Any]] = {
        **LayerNormSimpleUnbiased.normalizes,
        "name": "detachnorm-variance-unbiased",
        "scale_gradient": False,
    }


class AdaNormUnbiased(AdaNorm):
    """AdaNorm with the authors' deviation; arguments as there."""

    normalizer = LayerNormSimpleUnbiased
