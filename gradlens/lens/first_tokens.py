"""The first token of a sequence against the rest, at norms over tokens: from moments that are there already."""

from collections.abc import Collection

import torch
from torch import Tensor

from gradlens.lens.statistics import MOMENTS
from gradlens.recording.attention_columns import STORED_TOKENS

#: The numbers of a call, in the order of the table ``tokens``.
SUMS = tuple(column.name for column in STORED_TOKENS)
#: Layouts of norms that have one vector a token.
LAYOUTS = ("axes", "trailing")
_ALL = [name for phase in MOMENTS for name in phase]
_INV_SIGMA, _GRAD_OUTPUT = _ALL.index("inv_sigma"), _ALL.index("grad_output_norm")


def sums(moments: Tensor, shape: tuple[int, ...], lengths: Collection[int]) -> Tensor | None:
    """Return the sums of S calls over vectors that are finite, at the first token and at the rest.

    Args:
        moments: [S, MOMENTS, N].
        shape: of the N vectors: [sequences, tokens], or the other way round.
        lengths: of the sequences that attention saw, which tell the two apart.

    Returns:
        [S, SUMS]; None where the vectors are no tokens.
    """
    if len(shape) != 2 or not set(shape) & set(lengths):
        return None
    at = 1 if shape[1] in lengths else 0
    finite = moments.sum(1) * 0 == 0
    norm = moments[:, _GRAD_OUTPUT]
    each = torch.stack([torch.ones_like(norm), moments[:, _INV_SIGMA], norm * norm], 1)
    each = torch.where(finite.unsqueeze(1), each, 0.0).view(*each.shape[:2], *shape).sum(3 - at)  # [S, 3, tokens]
    first = each[..., 0]
    return torch.stack([first, each.sum(2) - first], 2).flatten(1)
