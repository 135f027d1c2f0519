"""Arrangements of a Transformer block: where its norms stand relative to branch and skip.

Xiong et al. 2020, "On Layer Normalization in the Transformer Architecture" (2002.04745), Table 1.

A new arrangement is one subclass of `Block`, which says where its norms are (`placements`) and how a
sub-layer puts stream, norm and branch together (`sublayer`), and one line in
`gradlens.models.variants.ARRANGEMENTS`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import ClassVar

from torch import Tensor, nn

from gradlens.models.size import Size
from gradlens.models.sublayers import Attention, FeedForward
from gradlens.norms import NORMS


class Block(nn.Module, ABC):
    """One block: attention, attention to a memory where `cross`, and FFN, as its subclass arranges them.

    Args:
        size: of the whole Transformer.
        index: of this block in its stack, from 0, for arrangements that depend on depth.
        causal: whether a token sees only itself and the tokens before it.
        cross: whether there is a sub-layer that attends to a memory.

    Attributes:
        placements: name of each norm, in forward order, to its placement; the norms are built from it.
            A norm's name begins with that of its sub-layer: ``attention_``, ``cross_`` or ``ffn_``.
        norm_after_blocks: whether the stack ends with a norm of its own.
    """

    placements: ClassVar[dict[str, str]]
    norm_after_blocks: ClassVar[bool]

    def __init__(self, size: Size, index: int, *, causal: bool, cross: bool = False) -> None:
        super().__init__()
        self.index = index
        self.attention = Attention(size.width, size.heads, causal=causal)
        if cross:
            self.cross_attention = Attention(size.width, size.heads, causal=False)
        self.ffn = FeedForward(size.width, size.ffn, size.activation)
        self.dropout = nn.Dropout(size.dropout)
        for name in self.placements:
            if cross or not name.startswith("cross_"):
                self.add_module(name, NORMS[size.norm](size.width))

    @abstractmethod
    def sublayer(self, name: str, x: Tensor, branch: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the stream [B, T, D] after the named sub-layer, for the stream x before it."""

    def forward(self, x: Tensor, memory: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Return the stream after the block, [B, T, D], for x [B, T, D] and memory [B, S, D].

        ``mask`` holds for the tokens that are no padding: those of the memory [B, S] where there is one, else
        those of x [B, T]. A causal block needs none for x, whose padding comes after all that is real.
        """
        if memory is None:
            x = self.sublayer("attention", x, partial(self.attention, mask=mask))
        else:
            x = self.sublayer("attention", x, self.attention)
            x = self.sublayer("cross", x, partial(self.cross_attention, memory=memory, mask=mask))
        return self.sublayer("ffn", x, self.ffn)


class PreLN(Block):
    """x + branch(norm(x)): the skip path is the identity from the first block to the last."""

    placements: ClassVar[dict[str, str]] = {
        "attention_norm": "pre_branch",
        "cross_norm": "pre_branch",
        "ffn_norm": "pre_branch",
    }
    norm_after_blocks: ClassVar[bool] = True

    def sublayer(self, name: str, x: Tensor, branch: Callable[[Tensor], Tensor]) -> Tensor:
        """Return x + branch(norm(x))."""
        norm = getattr(self, f"{name}_norm")
        return x + self.dropout(branch(norm(x)))  # type: ignore[no-any-return]


class PostLN(Block):
    """norm(x + branch(x)): the stream is normalized after every addition."""

    placements: ClassVar[dict[str, str]] = {
        "attention_norm": "post_add",
        "cross_norm": "post_add",
        "ffn_norm": "post_add",
    }
    norm_after_blocks: ClassVar[bool] = False

    def sublayer(self, name: str, x: Tensor, branch: Callable[[Tensor], Tensor]) -> Tensor:
        """Return norm(x + branch(x))."""
        norm = getattr(self, f"{name}_norm")
        return norm(x + self.dropout(branch(x)))  # type: ignore[no-any-return]
