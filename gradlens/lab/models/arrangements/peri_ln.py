"""Peri-LN: Kim et al. 2025, "Peri-LN: Revisiting Normalization Layer in the Transformer Architecture" (2502.02732).

The paper also normalizes the embedding. Ours has unit variance as it is drawn, so there is no norm on it; without that
one, Peri-LN is the Sandwich-LN of CogView (Ding et al. 2021, 2105.13290).
"""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from gradlens.lab.models.arrangements.block import Block, Branch


class PeriLN(Block, skip_is_sound=True, theory="peri-ln"):
    """x + norm(f(norm(x))): each branch begins and ends with a norm, and the skip path stays the identity."""

    placements: Mapping[str, str] = {
        "attention_norm": "pre_branch",
        "attention_out_norm": "post_branch",
        "cross_norm": "pre_branch",
        "cross_out_norm": "post_branch",
        "ffn_norm": "pre_branch",
        "ffn_out_norm": "post_branch",
    }
    norm_after_blocks: ClassVar[bool] = True

    def sublayer(self, name: str, x: Tensor, branch: Branch) -> Tensor:
        """Return x + norm(f(norm(x)))."""
        out: Tensor = x + self.dropout(self.normed(f"{name}_out_norm", branch(self.normed(f"{name}_norm", x))))
        return out
