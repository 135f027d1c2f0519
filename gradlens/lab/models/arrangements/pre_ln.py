"""Pre-LN: Xiong et al. 2020, "On Layer Normalization in the Transformer Architecture" (2002.04745), Table 1."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from gradlens.lab.models.arrangements.block import Block, Branch


class PreLN(Block, skip_is_sound=True, theory="pre-ln"):
    """x + f(norm(x)): the skip path is the identity from the first block to the last."""

    placements: Mapping[str, str] = {
        "attention_norm": "pre_branch",
        "cross_norm": "pre_branch",
        "ffn_norm": "pre_branch",
    }
    norm_after_blocks: ClassVar[bool] = True

    def sublayer(self, name: str, x: Tensor, branch: Branch) -> Tensor:
        """Return x + f(norm(x))."""
        out: Tensor = x + self.dropout(branch(self.normed(f"{name}_norm", x)))
        return out
