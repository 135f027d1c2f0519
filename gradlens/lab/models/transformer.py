"""The Transformer of Xiong et al. 2020, "On Layer Normalization in the Transformer Architecture"."""

from dataclasses import asdict
from typing import Any, ClassVar

from torch import Tensor, nn

from gradlens.errors import ModelError
from gradlens.lab.models.size import Size
from gradlens.lab.models.sublayers import Embedding
from gradlens.lab.models.variants import ARRANGEMENTS, block_variant
from gradlens.lab.norms import NORMS, theory_of


class Stack(nn.Module):
    """Blocks one after another and, where the arrangement asks for it, a norm after the last.

    Args:
        size: of the whole Transformer.
        causal: whether a token sees only itself and the tokens before it.
        cross: whether the blocks attend to a memory.
    """

    placements: ClassVar[dict[str, str]] = {"final_norm": "final"}

    def __init__(self, size: Size, *, causal: bool, cross: bool = False) -> None:
        super().__init__()
        block = ARRANGEMENTS[size.arrangement]
        self.blocks = nn.ModuleList(block(size, i, causal=causal, cross=cross) for i in range(size.blocks))
        self.final_norm: nn.Module | None = NORMS[size.norm](size.width) if block.norm_after_blocks else None

    def forward(self, x: Tensor, memory: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Return the stream [B, T, D] after the last block and norm; arguments as `Block.forward` has them."""
        return run(self.blocks, self.final_norm, x, memory, mask)


def run(
    blocks: nn.ModuleList,
    final_norm: nn.Module | None,
    x: Tensor,
    memory: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Send x [B, T, D] through the blocks and the norm after them."""
    for block in blocks:
        x = block(x, memory, mask)
    return x if final_norm is None else final_norm(x)


class Transformer(nn.Module):
    """Token and position embedding, blocks, output head; no norm but those of the arrangement.

    Initialization is by default that of Xiong et al.: Xavier normal, biases 0, gains 1. Embedded tokens have
    E‖x₀‖² = width, where their Lemma 2 starts; the output head, not tied to the embedding, is N(0, 1/width).
    With ``init="torch"`` all matrices and biases are torch's own U(±1/√n_in), of a third of the variance or less: with
    Xavier's a deep network without norms diverges. An arrangement may have factors of its own on either (DeepNorm,
    Sub-LN), or one more pass of initialization (Admin).

    Args:
        variant: ``arrangement[/norm]``, such as ``post-ln`` or ``pre-ln/rmsnorm``.
        kind: ``decoder`` (causal), ``encoder`` (every token sees all) or ``encoder-decoder`` (both use one
            embedding, as with a joint vocabulary).
        vocab: number of tokens.
        width: length of a token's vector.
        blocks: number of blocks in each stack.
        heads: of attention; they divide the width.
        ffn: width between the FFN's two matrices. Default: twice the width, as in Xiong et al.'s IWSLT model.
        activation: of the FFN: ``relu``, ``gelu`` or ``silu``.
        dropout: probability, after the embedding and at the end of each branch.
        max_length: longest sequence that can be embedded, in tokens.
        pad: the token that fills up shorter sequences at their end, which no other token attends to; None
            where all sequences of a batch are equally long. No sequence is all padding.
        outputs: of the head, for each token. Default: one for each token of the vocabulary.
        init: of the matrices, ``xavier`` or ``torch``.

    Raises:
        UnknownNameError: no arrangement, norm, kind, activation or initialization has this name.
        ModelError: the sizes do not fit together, the variant is for networks without residual blocks, or it names a
            norm for an arrangement that has none.
    """

    placements: ClassVar[dict[str, str]] = Stack.placements

    def __init__(
        self,
        variant: str,
        *,
        kind: str = "decoder",
        vocab: int,
        width: int = 128,
        blocks: int = 6,
        heads: int = 4,
        ffn: int | None = None,
        activation: str = "relu",
        dropout: float = 0.0,
        max_length: int = 512,
        pad: int | None = None,
        outputs: int | None = None,
        init: str = "xavier",
    ) -> None:
        super().__init__()
        arrangement, norm = block_variant(variant)
        self.size = Size(
            kind=kind,
            arrangement=arrangement,
            norm=norm,
            width=width,
            blocks=blocks,
            ffn=2 * width if ffn is None else ffn,
            heads=heads,
            activation=activation,
            dropout=dropout,
            vocab=vocab,
            max_length=max_length,
            init=init,
        )
        self.pad = pad
        self.embedding = Embedding(vocab, width, max_length)
        self.dropout = nn.Dropout(dropout)
        if kind == "encoder-decoder":
            self.encoder = Stack(self.size, causal=False)
            self.decoder = Stack(self.size, causal=True, cross=True)
        else:  # a single stack lies at the root, so that its blocks are called blocks.0, blocks.1, ...
            stack = Stack(self.size, causal=kind == "decoder")
            self.blocks, self.final_norm = stack.blocks, stack.final_norm
        self.head = nn.Linear(width, vocab if outputs is None else outputs, bias=False)
        nn.init.normal_(self.head.weight, std=width**-0.5)
        if init == "torch":
            for module in self.modules():
                if isinstance(module, nn.Linear):
                    module.reset_parameters()
        ARRANGEMENTS[arrangement].prepare(self)

    def forward(self, tokens: Tensor, target: Tensor | None = None) -> Tensor:
        """Return logits [B, T, outputs] for tokens [B, T].

        An encoder-decoder takes the source [B, S] and the target [B, T] and gives the target's logits.

        Raises:
            ModelError: the target is missing or not wanted, or a sequence is longer than `max_length`.
        """
        wants_target = self.size.kind == "encoder-decoder"
        if wants_target != (target is not None):
            takes = "source and target, two tensors" if wants_target else "one tensor of tokens"
            raise ModelError(
                f"A Transformer of kind {self.size.kind!r} takes {takes}; got {1 if target is None else 2}."
            )
        if target is not None:
            return self.decode(target, self.encode(tokens), self.mask(tokens))
        mask = None if self.size.kind == "decoder" else self.mask(tokens)
        x = run(self.blocks, self.final_norm, self.dropout(self.embedding(tokens)), mask=mask)
        logits: Tensor = self.head(x)
        return logits

    def encode(self, source: Tensor) -> Tensor:
        """Return the memory [B, S, D] that an encoder-decoder makes of a source [B, S]."""
        memory: Tensor = self.encoder(self.dropout(self.embedding(source)), mask=self.mask(source))
        return memory

    def decode(self, target: Tensor, memory: Tensor, mask: Tensor | None) -> Tensor:
        """Return an encoder-decoder's logits [B, T, outputs] for a target [B, T].

        Args:
            target: its first tokens decide the logits after them.
            memory: of the source, from ``encode``.
            mask: of the source.
        """
        logits: Tensor = self.head(self.decoder(self.dropout(self.embedding(target)), memory, mask))
        return logits

    def mask(self, tokens: Tensor) -> Tensor | None:
        """Return which of the tokens [B, T] are no padding, or None where the model knows of none."""
        return None if self.pad is None else tokens != self.pad

    def describe(self) -> dict[str, Any]:
        """Return size, variant, what arrangement and norm say of themselves, and number of parameters."""
        block = ARRANGEMENTS[self.size.arrangement]
        norm = theory_of(self.size.norm)
        said = {"skip_is_sound": block.skip_is_sound, "theory": block.theory, "norm_theory": norm}
        parameters = sum(parameter.numel() for parameter in self.parameters())
        return {"family": "transformer", **asdict(self.size), **said, "parameters": parameters}
