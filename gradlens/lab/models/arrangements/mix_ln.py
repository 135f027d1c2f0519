"""Mix-LN: Li et al. 2024, "Mix-LN: Unleashing the Power of Deeper Layers" (2412.13795), with their α = 1/4."""

from torch import Tensor

from gradlens.lab.models.arrangements.block import Branch
from gradlens.lab.models.arrangements.post_ln import PostLN
from gradlens.lab.models.arrangements.pre_ln import PreLN
from gradlens.lab.models.size import Size


class MixLN(PreLN, PostLN, skip_is_sound=True, theory="mix-ln"):
    """Post-LN in the first ⌊L/4⌋ of L blocks, Pre-LN in the others: with fewer than 4 blocks it is Pre-LN."""

    # One class for both, because a stack of residual blocks is recognised by their being of one class.

    def __init__(self, size: Size, index: int, *, causal: bool, cross: bool = False) -> None:
        super().__init__(size, index, causal=causal, cross=cross)
        self.arrangement = PostLN if index < size.blocks // 4 else PreLN
        self.placements = self.arrangement.placements

    def sublayer(self, name: str, x: Tensor, branch: Branch) -> Tensor:
        """Return norm(x + f(x)) or x + f(norm(x))."""
        return self.arrangement.sublayer(self, name, x, branch)
