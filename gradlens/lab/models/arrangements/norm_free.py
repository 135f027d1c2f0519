"""Without any norm, branches scaled by depth: Noci et al. 2022, "Signal Propagation in Transformers" (2206.03126).

Each branch adds a share of 1/n to the stream's variance, which n of them together leave bounded at every depth.
"""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from gradlens.lab.models.arrangements.block import Block, Branch
from gradlens.lab.models.size import Size


class NormFree(Block, skip_is_sound=True, theory="norm-free"):
    """x + f(x)/√n for the n branches of the stack: 2 in a block, 3 where it attends to a memory too."""

    placements: Mapping[str, str] = {}
    norm_after_blocks: ClassVar[bool] = False

    def __init__(self, size: Size, index: int, *, causal: bool, cross: bool = False) -> None:
        super().__init__(size, index, causal=causal, cross=cross)
        self.scale = (len(self.sublayers) * size.blocks) ** -0.5

    def sublayer(self, name: str, x: Tensor, branch: Branch) -> Tensor:
        """Return x + f(x)/√n."""
        out: Tensor = x + self.scale * self.dropout(branch(x))
        return out
