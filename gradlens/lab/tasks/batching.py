"""Which examples of unequal length share a batch: neighbours in length, in an order that only a seed decides."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Epochs:
    """Batches of examples, each example once an epoch.

    Examples are sorted by length, ties in a random order, and cut from the shortest up: padding is then a few
    percent of a batch, and every epoch has the same number of batches. The batches come in a random order.

    Attributes:
        lengths: of the examples [N], at least one.
        most: examples in a batch, at most.
        tokens: of a batch with its padding, at most; None for any number. An example longer than that is a
            batch of its own.
    """

    lengths: npt.NDArray[np.int64]
    most: int
    tokens: int | None = None

    def batch(self, index: int, *, seed: tuple[int, ...]) -> npt.NDArray[np.int64]:
        """Return the examples in a batch, a pure function of the arguments; epochs follow each other."""
        starts = [*self._starts(), self.lengths.size]
        epoch, place = divmod(index, len(starts) - 1)
        rng = np.random.default_rng([*seed, epoch])
        order = np.lexsort((rng.permutation(self.lengths.size), self.lengths))
        chosen = rng.permutation(len(starts) - 1)[place]
        return order[starts[chosen] : starts[chosen + 1]].astype(np.int64)

    def __len__(self) -> int:
        return len(self._starts())

    def _starts(self) -> list[int]:
        """Return where each batch starts in the sorted order."""
        starts: list[int] = []
        for place, length in enumerate(np.sort(self.lengths).tolist()):
            count = place - starts[-1] + 1 if starts else 0
            full = count > self.most or (self.tokens is not None and count * length > self.tokens)
            if not starts or full:
                starts.append(place)
        return starts


def padded(sequences: list[list[int]], pad: int) -> Tensor:
    """Return the sequences as one tensor [B, T], int64, each filled up with ``pad`` at its end."""
    longest = max(map(len, sequences))
    return torch.tensor([sequence + [pad] * (longest - len(sequence)) for sequence in sequences])
