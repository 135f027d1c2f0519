"""Sub-LN: Wang et al. 2022, "Foundation Transformers" (Magneto, 2210.06423), Figure 2."""

import math
from typing import ClassVar

from gradlens.lab.models.arrangements.pre_ln import PreLN
from gradlens.lab.models.size import Size
from gradlens.lab.norms import NORMS


class SubLN(PreLN, skip_is_sound=True, theory="sub-ln"):
    """Pre-LN with a second norm in each branch, before its last matrix: the output projection, or W2.

    At initialization V, O, W1 and W2 are multiplied by √ln 2N in a single stack of N blocks, by √(ln 3M · ln 2N / 3) in
    an encoder of N blocks whose decoder has M, and by √ln 3M in that decoder. Cross-attention is Pre-LN's, without a
    second norm or factor, as in the authors' code (torchscale, ``MultiheadAttention`` and ``Decoder``).
    """

    scaled_branches: ClassVar[tuple[str, ...]] = ("attention", "ffn")

    def __init__(self, size: Size, index: int, *, causal: bool, cross: bool = False) -> None:
        super().__init__(size, index, causal=causal, cross=cross)
        new_norm = NORMS[size.norm]
        self.attention.inner_norm = new_norm(size.width)
        self.ffn.inner_norm = new_norm(size.ffn)
        n = m = size.blocks
        if size.kind != "encoder-decoder":
            self.weight_factor = math.sqrt(math.log(2 * n))
        elif cross:
            self.weight_factor = math.sqrt(math.log(3 * m))
        else:
            self.weight_factor = math.sqrt(math.log(3 * m) * math.log(2 * n) / 3)
