"""RMSNorm: Zhang & Sennrich 2019, "Root Mean Square Layer Normalization" (1910.07467), Eq. 4."""

from typing import Any, ClassVar

from torch import Tensor, nn


class RMSNorm(nn.RMSNorm):
    """torch's RMSNorm, y = γ x/√(mean(x²) + eps), with the eps of the other norms and one entrance.

    torch's own default eps is the machine epsilon of the input's type, so that norms would differ in eps too.

    Args:
        width: H, the length of the last dimension.
        eps: added to the mean square, under the root.
    """

    theory = "rmsnorm"
    normalizes: ClassVar[dict[str, Any]] = {
        "name": "rmsnorm",
        "axes": (-1,),
        "centered": False,
        "scaled": True,
        "mean_gradient": False,
        "scale_gradient": True,
    }

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__(width, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """Normalize x [..., H] over its last dimension."""
        # On a CPU torch composes this norm of several uses of x. Through one view of it, the order in which autograd
        # adds their gradients to the skip path's is the same whether or not a lens is attached.
        return super().forward(x.view_as(x))
