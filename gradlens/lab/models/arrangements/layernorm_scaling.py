"""LayerNorm Scaling: Sun et al. 2025, "The Curse of Depth in Large Language Models" (2502.05795)."""

from torch import Tensor

from gradlens.lab.models.arrangements.block import Branch
from gradlens.lab.models.arrangements.pre_ln import PreLN
from gradlens.lab.models.size import Size


class LayerNormScaling(PreLN, skip_is_sound=True, theory="layernorm-scaling"):
    """x + f(norm(x)/√l) in block l = 1, 2, ...: deep branches read less, so that the stream's variance grows slowly.

    The norm after the last block is not scaled.
    """

    def __init__(self, size: Size, index: int, *, causal: bool, cross: bool = False) -> None:
        super().__init__(size, index, causal=causal, cross=cross)
        self.scale = (index + 1) ** -0.5

    def sublayer(self, name: str, x: Tensor, branch: Branch) -> Tensor:
        """Return x + f(norm(x)/√l)."""
        out: Tensor = x + self.dropout(branch(self.scale * self.normed(f"{name}_norm", x)))
        return out
