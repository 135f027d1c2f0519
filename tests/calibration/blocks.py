"""Residual blocks as a user writes them, with what may be wrong in them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

#: From the width, and the number of tokens, to a norm.
NewNorm = Callable[[int, int], nn.Module]


def layer_norm(width: int, tokens: int) -> nn.Module:
    return nn.LayerNorm(width)


@dataclass
class Wrong:
    """What is wrong in the architecture.

    Attributes:
        block: index of the block that it is wrong in.
        skip: ``plus`` where it is right, ``missing``, or ``minus``.
        norm: the first norm of that block, where it is another.
        stretch: factor on every block's skip.
        final_norm: whether there is a norm after the last block.
        logits: factor on attention's logits, in every block.
    """

    block: int = -1
    skip: str = "plus"
    norm: NewNorm | None = None
    stretch: float = 1.0
    final_norm: bool = True
    logits: float = 1.0


class Residual(nn.Module):
    """A block of a residual network; subclasses say which modules are its branches.

    Args:
        wrong: of the whole network.
        index: of this block.
    """

    branches: tuple[str, ...] = ("attention", "mlp")

    def __init__(self, wrong: Wrong, index: int) -> None:
        super().__init__()
        self.skip = wrong.skip if index == wrong.block else "plus"
        self.new_norm: NewNorm = wrong.norm if index == wrong.block and wrong.norm is not None else layer_norm
        self.stretch = wrong.stretch

    def join(self, x: Tensor, branch: Tensor) -> Tensor:
        if self.skip == "missing":
            return branch
        if self.skip == "minus":
            return branch - x
        return x + branch if self.stretch == 1 else self.stretch * x + branch


class Attention(nn.Module):
    """Multi-head attention over tokens [B, T, D]."""

    def __init__(self, width: int, heads: int, causal: bool, factor: float) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.scale = factor / (width // heads) ** 0.5
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal, scale=self.scale)
        return self.out(mixed.transpose(1, 2).flatten(2))


class MLP(nn.Sequential):
    """Two matrices with an activation between them."""

    def __init__(self, width: int, hidden: int, activation: type[nn.Module] = nn.ReLU) -> None:
        super().__init__(nn.Linear(width, hidden), activation(), nn.Linear(hidden, width))


class PreBlock(Residual):
    """x + f(norm(x)), for attention and for the MLP."""

    def __init__(self, wrong: Wrong, index: int, width: int, tokens: int, causal: bool = False) -> None:
        super().__init__(wrong, index)
        self.norm1 = self.new_norm(width, tokens)
        self.attention = Attention(width, 4, causal, wrong.logits)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MLP(width, 2 * width, nn.GELU if causal else nn.ReLU)

    def forward(self, x: Tensor) -> Tensor:
        x = self.join(x, self.attention(self.norm1(x)))
        return self.join(x, self.mlp(self.norm2(x)))


class PostBlock(Residual):
    """norm(x + f(x)), for attention and for the MLP."""

    def __init__(self, wrong: Wrong, index: int, width: int, tokens: int) -> None:
        super().__init__(wrong, index)
        self.attention = Attention(width, 4, False, wrong.logits)
        self.norm1 = self.new_norm(width, tokens)
        self.mlp = MLP(width, 2 * width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.join(x, self.attention(x)))
        return self.norm2(self.join(x, self.mlp(x)))


class DenseBlock(Residual):
    """x + f(norm(x)) without attention."""

    branches = ("mlp",)

    def __init__(self, wrong: Wrong, index: int, width: int, batch: int) -> None:
        super().__init__(wrong, index)
        self.norm1 = self.new_norm(width, batch)
        self.mlp = MLP(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.join(x, self.mlp(self.norm1(x)))


class MixerBlock(Residual):
    """An MLP over tokens, then one over features."""

    branches = ("over_tokens", "mlp")

    def __init__(self, wrong: Wrong, index: int, width: int, tokens: int) -> None:
        super().__init__(wrong, index)
        self.norm1 = self.new_norm(width, tokens)
        self.over_tokens = MLP(tokens, 2 * tokens, nn.GELU)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MLP(width, 2 * width, nn.GELU)

    def forward(self, x: Tensor) -> Tensor:
        x = self.join(x, self.over_tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2))
        return self.join(x, self.mlp(self.norm2(x)))


class ConvBlock(Residual):
    """The basic block of ResNet: two convolutions with BatchNorm, and the activation after the addition."""

    branches = ("body",)

    def __init__(self, wrong: Wrong, index: int, width: int) -> None:
        super().__init__(wrong, index)
        first = nn.BatchNorm2d(width) if wrong.norm is None or index != wrong.block else wrong.norm(width, 0)
        conv = [nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2)]
        self.body = nn.Sequential(conv[0], first, nn.ReLU(), conv[1], nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.join(x, self.body(x)).relu()
