"""Beam search: the best-scored sequence that a model continues, for a batch of sentences at once.

A finished sequence of n tokens, its end counted, has the score Σ log p / n^penalty: penalty 1 is the mean log
probability (fairseq's default, which Xu et al. 2019 used with a beam of 5), 0 the log probability itself.

A sentence's search ends only when nothing that is still in its beam can become better than what is finished:
no continuation raises Σ log p, and none is longer than the limit. The result is therefore the best of all that
the beam ever held, and with a beam wide enough for every prefix, the best sequence there is.

Shapes: B sentences, K sequences in a beam, T tokens so far, V tokens of the vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradlens.errors import GradlensError

#: (prefixes [N, T], sentence of each [N], row of the call before that each continues [N]) to logits of the next
#: token [N, V]. The first call has T = 1, and each row continues itself.
NextLogits = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Search:
    """How to search.

    Attributes:
        begin: token that every prefix begins with.
        end: token that ends a sequence.
        banned: further tokens that are never produced, such as padding.
        beam: K, sequences kept for a sentence.
        penalty: exponent of the length in the score, 0 or more.

    Raises:
        GradlensError: beam or penalty is too small.
    """

    begin: int
    end: int
    banned: tuple[int, ...] = ()
    beam: int = 5
    penalty: float = 1.0

    def __post_init__(self) -> None:
        if self.beam < 1 or self.penalty < 0:
            raise GradlensError(
                f"A beam search needs a beam of at least 1 and a length penalty of at least 0; got {self.beam} and "
                f"{self.penalty}. Change them."
            )


@torch.no_grad()
def beam_search(
    next_logits: NextLogits, search: Search, most: Sequence[int], device: torch.device | str
) -> list[tuple[list[int], float]]:
    """Return the best sequence of each sentence, without its begin and end, and its score.

    Args:
        next_logits: the model.
        search: how.
        most: tokens that each sentence's sequence may have, its end counted; 1 or more.
        device: of the model.
    """
    count = len(most)
    limit = torch.tensor(most, device=device)
    exact = torch.float32 if limit.device.type == "mps" else torch.float64  # MPS has no doubles
    best: list[tuple[list[int], float]] = [([], float("-inf"))] * count
    open_ = torch.arange(count, device=device)  # the sentences whose search goes on
    prefixes = torch.full((count, 1, 1), search.begin, device=device)  # [B, K, T]
    totals = torch.zeros(count, 1, device=device, dtype=exact)  # [B, K], Σ log p
    parents = torch.arange(count, device=device)
    for length in range(1, int(limit.max()) + 1):
        beam = prefixes.shape[1]
        logits = next_logits(prefixes.flatten(0, 1), open_.repeat_interleave(beam), parents).to(exact)
        logits[:, [search.begin, *search.banned]] = float("-inf")
        extended = totals.unsqueeze(-1) + logits.log_softmax(-1).view(len(open_), beam, -1)  # [B, K, V]
        finished, which = (extended[..., search.end] / length**search.penalty).max(1)
        scores, rows = finished.tolist(), prefixes[torch.arange(len(open_), device=device), which, 1:].tolist()
        for sentence, score, tokens in zip(open_.tolist(), scores, rows, strict=True):
            if score > best[sentence][1]:
                best[sentence] = (tokens, score)
        extended[..., search.end] = float("-inf")
        size = extended.shape[-1]
        totals, flat = extended.flatten(1).topk(min(search.beam, beam * size), dim=1)
        came_from, token = flat // size, flat % size
        before = prefixes.gather(1, came_from.unsqueeze(-1).expand(-1, -1, length))
        prefixes = torch.cat([before, token.unsqueeze(-1)], -1)
        reachable = totals[:, 0] / limit[open_] ** search.penalty  # the best that the beam can still become
        so_far = torch.tensor([best[sentence][1] for sentence in open_.tolist()], device=device, dtype=exact)
        goes_on = (limit[open_] > length) & (reachable > so_far)
        came_from = came_from + beam * torch.arange(len(open_), device=device).unsqueeze(-1)
        open_, prefixes, totals = open_[goes_on], prefixes[goes_on], totals[goes_on]
        parents = came_from[goes_on].flatten()
        if not len(open_):
            break
    return best
