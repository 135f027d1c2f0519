"""What attention looks at: logits of some queries against all keys, and sums over these queries.

Index legend: B sequences, H heads (G of them share one of keys), L queries, S keys, E entries of a query. Sampled are
at most 16 queries of each of at most 8 sequences, at evenly spaced places; nothing here waits for the device.
"""

import math

import torch
from torch import Tensor

from gradlens.lens.statistics import raised

#: Sequences and queries that are looked at; entries of keys that are taken at most, of long sequences fewer of these.
SEQUENCES, QUERIES, _ENTRIES = 8, 16, 2**24
#: A logit that is lower than the largest by more is a mask's: -1e4 is the least that people write for one.
_MASKED = 5000.0
#: The rows of ``sums``; all but the last add.
SUMS = ("sampled", "queries", "keys", "entropy", "relative", "first", "logit_max")


def logits_of(
    query: Tensor, key: Tensor, mask: Tensor | None, *, causal: bool, scale: float | None, heads: int
) -> Tensor:
    """Return the logits of sampled queries.

    Args:
        query: [B, H, L, E], or without H, or without B too.
        key: [B, H / G, S, E], as the query.
        mask: broadcastable to [B, H, L, S]: what is added, or of bool where it is True.
        causal: whether query i sees keys 0 to i.
        scale: what the products are multiplied by; None for 1/√E.
        heads: how many of them lie in the first dimension where there are three.

    Returns:
        [sequences, H, queries, S], in float32 or better.
    """
    whole = (*query.shape[:-1], key.shape[-2])
    query, key = _batched(query, heads), _batched(key, heads)
    key = key.expand(query.shape[0], *key.shape[1:])
    sequences = _evenly(query.shape[0], min(SEQUENCES, max(1, _ENTRIES // key[0].numel())))
    places = _evenly(query.shape[2], QUERIES)
    q, k = raised(query[sequences, :, places]), raised(key[sequences])
    shape = q.shape[:3]
    # Heads that share keys stand beside one another: one product for all of them, and no copy of the keys.
    q = q.reshape(shape[0], k.shape[1], -1, q.shape[3])
    logits = (q * (1 / math.sqrt(q.shape[3]) if scale is None else scale)) @ k.transpose(2, 3)
    logits = logits.reshape(*shape, key.shape[2])
    if causal:
        at = torch.arange(query.shape[2], device=q.device)[places]
        logits = logits.masked_fill(at.unsqueeze(1) < torch.arange(key.shape[2], device=q.device), -math.inf)
    if mask is not None:
        mask = _batched(mask.detach().expand(whole), heads)[sequences, :, places]
        logits = logits.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else logits + raised(mask)
    return logits


def sampled(scores: Tensor, heads: int) -> Tensor:
    """Return the logits of sampled queries from those of all, [B, H, L, S] or fewer dimensions as in ``logits_of``."""
    scores = _batched(scores, heads)
    return raised(scores[_evenly(scores.shape[0], SEQUENCES), :, _evenly(scores.shape[2], QUERIES)])


def sums(logits: Tensor) -> Tensor:
    """Return sums over queries for each head, [SUMS, H].

    Args:
        logits: [sequences, H, queries, S].
    """
    top = logits.amax(-1, keepdim=True)
    apart = logits - top
    visible = apart > -_MASKED
    weights = apart.exp()
    whole = weights.sum(-1)
    entropy = whole.log() - torch.where(visible, weights * apart, 0.0).sum(-1) / whole
    keys = visible.sum(-1).to(logits.dtype)
    top = top.squeeze(-1)
    counts = (top > -_MASKED) & (keys > 1) & (entropy * 0 == 0)
    one = torch.ones_like(keys)
    each = torch.stack([one, keys, entropy, entropy / keys.log(), weights[..., 0] / whole])
    summed = torch.where(counts, each, 0.0).sum((1, 3))
    most = torch.where(counts, top, -math.inf).amax((0, 2))
    return torch.cat([one.sum((0, 2)).unsqueeze(0), summed, most.unsqueeze(0)])


def _evenly(count: int, most: int) -> slice:
    """Return evenly spaced places, at most so many: a view needs no tensor of places."""
    step = -(-count // most)
    return slice(step // 2, None, step)


def _batched(x: Tensor, heads: int) -> Tensor:
    """Return a tensor with the dimensions sequences and heads before its last two."""
    x = x.detach()
    if x.dim() == 3:
        x = x.view(-1, heads, *x.shape[1:])
    elif x.dim() == 2:
        x = x[None, None]
    return x.flatten(0, -4)
