"""Post-LN: the original Transformer; Xiong et al. 2020 (2002.04745), Table 1."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from gradlens.lab.models.arrangements.block import Block, Branch


class PostLN(Block, skip_is_sound=False, theory="post-ln"):
    """norm(x + f(x)): the stream is normalized after every addition."""

    placements: Mapping[str, str] = {
        "attention_norm": "post_add",
        "cross_norm": "post_add",
        "ffn_norm": "post_add",
    }
    norm_after_blocks: ClassVar[bool] = False

    def sublayer(self, name: str, x: Tensor, branch: Branch) -> Tensor:
        """Return norm(x + f(x))."""
        return self.normed(f"{name}_norm", x + self.dropout(branch(x)))
