"""The block of a Transformer, whose subclasses arrange it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from gradlens.lab.models.size import Size
from gradlens.lab.models.sublayers import Attention, FeedForward
from gradlens.lab.norms import NORMS

if TYPE_CHECKING:
    from gradlens.lab.models.transformer import Transformer

#: What stands beside the skip: the stream [B, T, D] to what is added to it.
Branch: TypeAlias = Callable[[Tensor], Tensor]

#: Q and K, which only decide how values are mixed, are not among them.
_SCALED = ("value.weight", "out.weight", "w1.weight", "w2.weight")


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
        weight_factor: by which the weights of V, O, W1 and W2 are multiplied at initialization.
        scaled_branches: the modules that are multiplied so.
        sublayers: their names, in forward order.
        skip_is_sound: whether the skip is the identity, or scaled with depth, so that advice to arrange the block
            otherwise would be no news. Each class says it of itself, in its first line; it is not inherited.
        theory: name in ``gradlens.theory.arrangements.ARRANGEMENTS`` of what predicts it; None where theory does not
            cover it. It is said in the same place, and not inherited either.
    """

    placements: Mapping[str, str]
    skip_is_sound: ClassVar[bool]
    theory: ClassVar[str | None]
    norm_after_blocks: ClassVar[bool]
    weight_factor: float = 1.0
    scaled_branches: ClassVar[tuple[str, ...]] = ("attention", "cross_attention", "ffn")

    def __init_subclass__(cls, *, skip_is_sound: bool, theory: str | None = None) -> None:
        super().__init_subclass__()
        cls.skip_is_sound, cls.theory = skip_is_sound, theory

    def __init__(self, size: Size, index: int, *, causal: bool, cross: bool = False) -> None:
        super().__init__()
        self.index = index
        self.sublayers = ("attention", "cross", "ffn") if cross else ("attention", "ffn")
        self.attention = Attention(size.width, size.heads, causal=causal)
        if cross:
            self.cross_attention = Attention(size.width, size.heads, causal=False)
        self.ffn = FeedForward(size.width, size.ffn, size.activation)
        self.dropout = nn.Dropout(size.dropout)
        for name in self.placements:
            if name.partition("_")[0] in self.sublayers:
                self.add_module(name, NORMS[size.norm](size.width))

    @classmethod
    def prepare(cls, model: "Transformer") -> None:
        """Finish the initialization of a Transformer of such blocks, whose matrices have been drawn."""
        for block in model.modules():
            if isinstance(block, cls) and block.weight_factor != 1:
                block._scale_weights()

    @torch.no_grad()
    def _scale_weights(self) -> None:
        for name, weight in self.named_parameters():
            if name.startswith(self.scaled_branches) and name.endswith(_SCALED):
                weight.mul_(self.weight_factor)

    @abstractmethod
    def sublayer(self, name: str, x: Tensor, branch: Branch) -> Tensor:
        """Return the stream [B, T, D] after the named sub-layer, for the stream x before it."""

    def arrange(self, x: Tensor, branches: Mapping[str, Branch]) -> Tensor:
        """Return the stream [B, T, D] after the block, for the stream x before it.

        Args:
            x: the stream [B, T, D].
            branches: the name of each sub-layer to its branch, in forward order.
        """
        for name, branch in branches.items():
            x = self.sublayer(name, x, branch)
        return x

    def forward(self, x: Tensor, memory: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Return the stream after the block, [B, T, D], for x [B, T, D] and memory [B, S, D].

        ``mask`` holds for the tokens that are no padding: those of the memory [B, S] where there is one, else
        those of x [B, T]. A causal block needs none for x, whose padding comes after all that is real.
        """
        if memory is None:
            return self.arrange(x, {"attention": partial(self.attention, mask=mask), "ffn": self.ffn})
        cross = partial(self.cross_attention, memory=memory, mask=mask)
        return self.arrange(x, {"attention": self.attention, "cross": cross, "ffn": self.ffn})

    def normed(self, name: str, x: Tensor) -> Tensor:
        """Return x [B, T, D] after the norm of that name."""
        out: Tensor = getattr(self, name)(x)
        return out
