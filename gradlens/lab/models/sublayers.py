"""What stands in the branches of a Transformer block, and the embedding before the first one.

Shapes: B sequences, T tokens, S tokens of the memory, D width, F width of the FFN, H heads.

Initialization is that of Xiong et al. 2020 (2002.04745): matrices N(0, 2/(n_in + n_out)) (Xavier normal),
biases 0. As in their equations, attention has no biases. The random numbers drawn depend neither on the
arrangement nor on the norm, so that variants built from one seed have the same weights.
"""

from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradlens.errors import ModelError

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu, "silu": F.silu}


def xavier_linear(n_in: int, n_out: int, *, bias: bool) -> nn.Linear:
    """Return a linear layer with Xavier normal weights and zero bias."""
    linear = nn.Linear(n_in, n_out, bias=bias)
    nn.init.xavier_normal_(linear.weight)
    if bias:
        nn.init.zeros_(linear.bias)
    return linear


class Attention(nn.Module):
    """Multi-head scaled dot-product attention, to itself or to a memory.

    Args:
        width: D.
        heads: H, a divisor of D.
        causal: whether a token sees only itself and the tokens before it.

    Attributes:
        inner_norm: before the output projection, over D; None where an arrangement puts none there.
    """

    placements: ClassVar[dict[str, str]] = {"inner_norm": "in_branch"}

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.inner_norm: nn.Module | None = None
        self.query = xavier_linear(width, width, bias=False)
        self.key = xavier_linear(width, width, bias=False)
        self.value = xavier_linear(width, width, bias=False)
        self.out = xavier_linear(width, width, bias=False)

    def forward(self, x: Tensor, memory: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Let x [B, T, D] attend to memory [B, S, D], or to itself where there is none; returns [B, T, D].

        Of what is attended to, only the tokens are seen that ``mask`` [B, S] holds for; each sequence has one.
        """
        source = x if memory is None else memory
        mixed = F.scaled_dot_product_attention(
            self.split(self.query(x)),
            self.split(self.key(source)),
            self.split(self.value(source)),
            attn_mask=None if mask is None else mask[:, None, None],
            is_causal=self.causal,
        )
        return self.join(mixed)

    def join(self, mixed: Tensor) -> Tensor:
        """Put the heads' mixed values [B, H, T, D/H] together and project them, [B, T, D]."""
        joined = mixed.transpose(1, 2).flatten(2)
        out: Tensor = self.out(joined if self.inner_norm is None else self.inner_norm(joined))
        return out

    def split(self, x: Tensor) -> Tensor:
        """[B, T, D] to [B, H, T, D/H]."""
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


class FeedForward(nn.Module):
    """FFN(x) = W2 activation(W1 x + b1) + b2.

    Args:
        width: D.
        ffn: F, the width between W1 and W2.
        activation: a name in `ACTIVATIONS`.

    Attributes:
        inner_norm: before W2, over F; None where an arrangement puts none there.
    """

    placements: ClassVar[dict[str, str]] = {"inner_norm": "in_branch"}

    def __init__(self, width: int, ffn: int, activation: str) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.inner_norm: nn.Module | None = None
        self.w1 = xavier_linear(width, ffn, bias=True)
        self.w2 = xavier_linear(ffn, width, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [B, T, D] to [B, T, D], each token by itself."""
        hidden = self.activation(self.w1(x))
        out: Tensor = self.w2(hidden if self.inner_norm is None else self.inner_norm(hidden))
        return out


class Embedding(nn.Module):
    """Token plus learned position embedding, each N(0, 1/2): the sum has unit variance, E‖x₀‖² = D.

    Args:
        vocab: number of tokens.
        width: D.
        max_length: number of positions.
    """

    def __init__(self, vocab: int, width: int, max_length: int) -> None:
        super().__init__()
        self.token = nn.Embedding(vocab, width)
        self.position = nn.Embedding(max_length, width)
        for part in (self.token, self.position):
            nn.init.normal_(part.weight, std=0.5**0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        """Embed tokens [B, T] as [B, T, D].

        Raises:
            ModelError: T is greater than the number of positions.
        """
        length, most = tokens.shape[-1], self.position.num_embeddings
        if length > most:
            raise ModelError(
                f"A sequence must have at most {most} tokens, got {length}. "
                f"Pass shorter sequences, or build the model with max_length={length}."
            )
        embedded: Tensor = self.token(tokens) + self.position(torch.arange(length, device=tokens.device))
        return embedded
