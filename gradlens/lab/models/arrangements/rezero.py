"""ReZero: Bachlechner et al. 2020, "ReZero is All You Need: Fast Convergence at Large Depth" (2003.04887)."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from gradlens.lab.models.arrangements.block import Block, Branch
from gradlens.lab.models.size import Size


class ReZero(Block, skip_is_sound=True, theory="rezero"):
    """x + α f(x) without any norm: α is learned, one number for each sub-layer, and starts at 0.

    A new network is therefore the identity from embedding to head, and its first gradients are those of the α alone.
    (The authors' Transformer has one α for both sub-layers of a block; their equation has one for each.)
    """

    placements: Mapping[str, str] = {}
    norm_after_blocks: ClassVar[bool] = False

    def __init__(self, size: Size, index: int, *, causal: bool, cross: bool = False) -> None:
        super().__init__(size, index, causal=causal, cross=cross)
        for name in self.sublayers:
            self.register_parameter(f"{name}_alpha", nn.Parameter(torch.zeros(())))

    def sublayer(self, name: str, x: Tensor, branch: Branch) -> Tensor:
        """Return x + α f(x)."""
        out: Tensor = x + getattr(self, f"{name}_alpha") * self.dropout(branch(x))
        return out
