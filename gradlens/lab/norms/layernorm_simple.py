"""LayerNorm-simple: Xu et al. 2019, "Understanding and Improving Layer Normalization" (1911.07013)."""

from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn


class LayerNormSimple(nn.Module):
    """LayerNorm without gain and bias: y = (x − μ)/σ with σ² = mean((x − μ)²) + eps.

    Args:
        width: H, the length of the last dimension.
        eps: added to the variance, under the root.
    """

    theory = "layernorm"
    normalizes: ClassVar[dict[str, Any]] = {
        "name": "layernorm-simple",
        "axes": (-1,),
        "centered": True,
        "scaled": True,
        "mean_gradient": True,
        "scale_gradient": True,
    }

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.normalized_shape = (width,)  # torch's name for it
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalize x [..., H] over its last dimension."""
        return F.layer_norm(x, self.normalized_shape, eps=self.eps)

    def extra_repr(self) -> str:
        """Show shape and eps in the module's repr."""
        return f"{self.normalized_shape}, eps={self.eps}"
