"""DetachNorm: Xu et al. 2019, "Understanding and Improving Layer Normalization" (1911.07013), Theorem 1.

Forward, all three are LayerNorm-simple. Backward, for g = dL/dy and y = (x − μ)/σ:

    DetachNorm          dL/dx = g / σ
    DetachMeanNorm      dL/dx = (g − y·mean(g⊙y)) / σ        nothing is re-centered
    DetachVarianceNorm  dL/dx = (g − mean(g)) / σ            nothing is re-scaled
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn


class DetachNorm(nn.Module):
    """LayerNorm-simple whose mean and variance are constants to the backward pass.

    Args:
        width: H, the length of the last dimension.
        eps: added to the variance, under the root.
    """

    theory = "layernorm"
    normalizes: ClassVar[dict[str, Any]] = {
        "name": "detachnorm",
        "axes": (-1,),
        "centered": True,
        "scaled": True,
        "mean_gradient": False,
        "scale_gradient": False,
    }

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.normalized_shape = (width,)  # torch's name for it
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalize x [..., H] over its last dimension."""
        # Statistics in float32 at least, as torch's LayerNorm takes them: a float16 square overflows at 256.
        # One view of x, for the reason that RMSNorm gives.
        wide = x.view_as(x).to(torch.promote_types(x.dtype, torch.float32))
        variance, mean = torch.var_mean(wide, dim=-1, correction=0, keepdim=True)
        sigma = (variance + self.eps).sqrt()
        if not self.normalizes["mean_gradient"]:
            mean = mean.detach()
        if not self.normalizes["scale_gradient"]:
            sigma = sigma.detach()
        return ((wide - mean) / sigma).to(x.dtype)

    def extra_repr(self) -> str:
        """Show shape and eps in the module's repr."""
        return f"{self.normalized_shape}, eps={self.eps}"


class DetachMeanNorm(DetachNorm):
    """DetachNorm of the mean only: re-scales the gradient, does not re-center it."""

    theory = "layernorm"
    normalizes: ClassVar[dict[str, Any]] = {
        **DetachNorm.normalizes,
        "name": "detachnorm-mean",
        "scale_gradient": True,
    }


class DetachVarianceNorm(DetachNorm):
    """DetachNorm of the variance only: re-centers the gradient, does not re-scale it."""

    theory = "layernorm"
    normalizes: ClassVar[dict[str, Any]] = {
        **DetachNorm.normalizes,
        "name": "detachnorm-variance",
        "mean_gradient": True,
    }
