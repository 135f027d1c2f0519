"""DeepNorm: Wang et al. 2022, "DeepNet: Scaling Transformers to 1,000 Layers" (2203.00555), Figure 2."""

from torch import Tensor

from gradlens.lab.models.arrangements.block import Branch
from gradlens.lab.models.arrangements.post_ln import PostLN
from gradlens.lab.models.size import Size


class DeepNorm(PostLN, skip_is_sound=True, theory="deepnorm"):
    """norm(αx + f(x)), with V, O, W1 and W2 multiplied by β at initialization; both depend on the number of blocks."""

    def __init__(self, size: Size, index: int, *, causal: bool, cross: bool = False) -> None:
        super().__init__(size, index, causal=causal, cross=cross)
        self.alpha, self.weight_factor = coefficients(size, decoder=cross)

    def sublayer(self, name: str, x: Tensor, branch: Branch) -> Tensor:
        """Return norm(αx + f(x))."""
        return self.normed(f"{name}_norm", self.alpha * x + self.dropout(branch(x)))


def coefficients(size: Size, *, decoder: bool) -> tuple[float, float]:
    """Return α and β of a stack, for N blocks in the encoder and M in the decoder.

    Args:
        size: of the Transformer.
        decoder: whether the stack is the decoder of an encoder-decoder.
    """
    n = m = size.blocks
    if size.kind != "encoder-decoder":
        return (2 * n) ** 0.25, (8 * n) ** -0.25
    if decoder:
        return (3 * m) ** 0.25, (12 * m) ** -0.25
    return 0.81 * (n**4 * m) ** (1 / 16), 0.87 * (n**4 * m) ** (-1 / 16)
