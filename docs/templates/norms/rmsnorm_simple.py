"""RMSNorm without a gain: name here the paper, with its number and equation."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn


class RMSNormSimple(nn.Module):
    """y = x/√(mean x² + eps): the equation, and what is remarkable about it.

    Args:
        width: H, the length of the last dimension.
        eps: added to the mean square, under the root.
    """

    #: Which theory of whole networks covers it; left out where none does.
    theory = "rmsnorm"
    #: Which parts of the derivative flow back; the gradient is held against the closed form of just these.
    normalizes: ClassVar[dict[str, Any]] = {
        "name": "rmsnorm-simple",
        "axes": (-1,),
        "centered": False,
        "scaled": True,
        "mean_gradient": False,
        "scale_gradient": True,
    }

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.normalized_shape, self.eps = (width,), eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalize x [..., H] over its last dimension."""
        x = x.view_as(x)  # the lens hooks this alias, so that no other use of x counts
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps)
