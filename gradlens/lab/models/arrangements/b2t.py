"""B2T connection: Takase et al. 2022 (2206.00330).

"B2T Connection: Serving Stability and Performance in Deep Transformers"
"""

from collections.abc import Mapping

from torch import Tensor

from gradlens.lab.models.arrangements.block import Branch
from gradlens.lab.models.arrangements.post_ln import PostLN


class B2T(PostLN, skip_is_sound=False, theory="b2t"):
    """Post-LN whose last norm also gets the block's input, past all its other norms: norm(x + y + FFN(y)).

    y is the stream after the sub-layers before the FFN, which are those of Post-LN.
    """

    def arrange(self, x: Tensor, branches: Mapping[str, Branch]) -> Tensor:
        """Return norm(x + y + FFN(y))."""
        before = {name: branch for name, branch in branches.items() if name != "ffn"}
        y = super().arrange(x, before)
        return self.normed("ffn_norm", x + y + self.dropout(branches["ffn"](y)))
