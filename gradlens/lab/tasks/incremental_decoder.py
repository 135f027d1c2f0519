"""A decoder that reads one token at a time: keys and values of what was read are kept, not computed again.

The numbers are those of ``Transformer.decode`` on the whole prefix, up to rounding; a causal block sends
nothing back to earlier tokens. Each block puts stream, norm and branch together as its arrangement does.

Shapes: N prefixes, S tokens of the source, T tokens read, D width, H heads, V tokens of the vocabulary.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradlens.lab.models.arrangements import Block, Branch
from gradlens.lab.models.sublayers import Attention
from gradlens.lab.models.transformer import Transformer

KeyValue = tuple[Tensor, Tensor]


class IncrementalDecoder:
    """Logits of the next token for prefixes that grow by one token a call, as beam search asks for them.

    Args:
        model: an encoder-decoder in evaluation mode.
        source: tokens of the sentences [B, S].
    """

    def __init__(self, model: Transformer, source: Tensor) -> None:
        self._model = model
        self._mask = model.mask(source)
        memory = model.encode(source)
        self._blocks = [block for block in model.decoder.blocks if isinstance(block, Block)]
        self._memory = [_keys_and_values(block.cross_attention, memory) for block in self._blocks]
        self._read: list[KeyValue | None] = [None] * len(self._blocks)

    def __call__(self, prefixes: Tensor, sentence: Tensor, parents: Tensor) -> Tensor:
        """Return logits [N, V] for prefixes [N, T].

        Args:
            prefixes: each is a prefix of the call before and one token more; a single token in the first call.
            sentence: which of the sources each translates [N].
            parents: which prefix of the call before each continues [N].
        """
        embedding, place = self._model.embedding, prefixes.shape[1] - 1
        x = embedding.token(prefixes[:, -1:]) + embedding.position.weight[place]
        mask = None if self._mask is None else self._mask[sentence]
        for i, block in enumerate(self._blocks):
            before = self._read[i]
            if before is not None:
                before = (before[0][parents], before[1][parents])
            keys, values = self._memory[i]
            branches: dict[str, Branch] = {
                "attention": partial(self._attend_to_read, i, block.attention, before),
                "cross": partial(_attend, block.cross_attention, (keys[sentence], values[sentence]), mask),
                "ffn": block.ffn,
            }
            x = block.arrange(x, branches)
        final_norm: nn.Module | None = self._model.decoder.final_norm
        logits: Tensor = self._model.head(x if final_norm is None else final_norm(x))
        return logits[:, 0]

    def _attend_to_read(self, block: int, attention: Attention, before: KeyValue | None, x: Tensor) -> Tensor:
        """Let the new token [N, 1, D] attend to all that were read and to itself, and keep it."""
        keys, values = _keys_and_values(attention, x)
        if before is not None:
            keys, values = torch.cat([before[0], keys], 2), torch.cat([before[1], values], 2)
        self._read[block] = (keys, values)
        return _attend(attention, (keys, values), None, x)


def _keys_and_values(attention: Attention, x: Tensor) -> KeyValue:
    """[N, T, D] to two of [N, H, T, D/H]."""
    return attention.split(attention.key(x)), attention.split(attention.value(x))


def _attend(attention: Attention, kept: KeyValue, mask: Tensor | None, x: Tensor) -> Tensor:
    """Let x [N, 1, D] attend to what is kept, where the mask [N, T] holds."""
    attn_mask = None if mask is None else mask[:, None, None]
    mixed = F.scaled_dot_product_attention(attention.split(attention.query(x)), *kept, attn_mask=attn_mask)
    return attention.join(mixed)
