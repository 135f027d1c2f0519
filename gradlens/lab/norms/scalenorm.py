"""ScaleNorm: Nguyen & Salazar 2019, "Transformers without Tears" (1910.05895), section 2.2."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn


class ScaleNorm(nn.Module):
    """y = γ√H x/‖x‖ with one gain for all features: an RMSNorm of one parameter.

    The paper's gain is γ√H, which starts at √H.

    Args:
        width: H, the length of the last dimension.
        eps: added to the mean square, under the root, as in the other norms here; the paper has none.
    """

    theory = "rmsnorm"
    normalizes: ClassVar[dict[str, Any]] = {
        "name": "scalenorm",
        "axes": (-1,),
        "centered": False,
        "scaled": True,
        "mean_gradient": False,
        "scale_gradient": True,
    }

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.normalized_shape, self.eps = (width,), eps
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """Normalize x [..., H] over its last dimension."""
        x = x.view_as(x)
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps)
