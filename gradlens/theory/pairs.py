"""Pairs of tokens of a batch, in classes whose members are alike on average.

The energy of a gradient that sums over tokens, ‖Σᵢ gᵢhᵢᵀ‖² = Σᵢₖ (gᵢ·gₖ)(hᵢ·hₖ), and what attention makes of tokens,
both need the mean products of pairs of tokens. The position of a token matters where a token sees only those before
it: there positions are put in groups that grow with the position; else all are one group.

A table of mean products has the shape [2, classes]: pairs in the same sequence, then pairs in different sequences.
The first ``groups`` classes hold pairs at the same position (in the same sequence: a token with itself), the others
pairs at different positions, of two groups. Where tables of many blocks are asked about at once, they are stacked along
axes before these two.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
#: A group's size is about this share of the position it begins at: 0 would be exact, and quadratic in the length; with
#: this share the predictions differ from those by 1 % at most.
_GROWTH = 0.5


@dataclass(frozen=True, eq=False)
class Pairs:
    """The classes of pairs of one kind of batch.

    Attributes:
        sequences: B.
        sizes: positions in each group [groups].
        left: group of the one token of a class's pairs [classes].
        right: group of the other, not before ``left`` [classes].
        count: ordered pairs in the whole batch [2, classes].
        seen: for a class of pairs of queries (rows), how many pairs of keys of each class they see on average; the same
            in one sequence and across two [classes, classes].
    """

    sequences: int
    sizes: Array
    left: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]
    count: Array
    seen: Array

    @classmethod
    def of(cls, sequences: int, length: int, *, causal: bool) -> "Pairs":
        """Return the classes for a batch of ``sequences`` x ``length`` tokens."""
        sizes = _group_sizes(length) if causal else np.array([float(length)])
        groups = np.arange(len(sizes))
        upper = [(a, b) for a in groups for b in groups if a <= b]
        left = np.array([*groups, *(a for a, _ in upper)])
        right = np.array([*groups, *(b for _, b in upper)])
        apart = np.array([sizes[a] * (sizes[a] - 1) if a == b else 2 * sizes[a] * sizes[b] for a, b in upper])
        places = np.concatenate([sizes, apart])
        count = np.stack([sequences * places, sequences * (sequences - 1.0) * places])
        seen = np.array(
            [_seen(sizes, a, b, i < len(sizes), causal) for i, (a, b) in enumerate(zip(left, right, strict=True))]
        )
        return cls(sequences, sizes, left, right, count, seen)

    @property
    def groups(self) -> int:
        """Number of groups of positions."""
        return len(self.sizes)

    def table(self, same: float, alike: float, apart: tuple[float, float]) -> Array:
        """Return a table of products [2, classes].

        Args:
            same: of a token with itself.
            alike: of tokens at the same position of different sequences.
            apart: of tokens at different positions, of the same and of different sequences.
        """
        filled = np.empty_like(self.count)
        filled[:, self.groups :] = np.array(apart)[:, None]
        filled[:, : self.groups] = [[same], [alike]]
        return filled

    def own(self, products: Array) -> Array:
        """Return the second moment of the tokens of each group [groups]."""
        own: Array = products[..., 0, : self.groups]
        return own

    def between(self, factor: float | Array) -> float | Array:
        """Return the product of a factor of the one and of the other token of a pair [classes].

        Args:
            factor: of all tokens, or of those of each group [groups].
        """
        return factor**2 if isinstance(factor, float) else factor[self.left] * factor[self.right]

    def over_tokens(self, products: Array) -> Array:
        """Return the second moment, mean over all tokens."""
        mean: Array = self.own(products) @ self.sizes / self.sizes.sum()
        return mean

    def correlation(self, products: Array) -> Array:
        """Return the correlation of two tokens of a sequence, mean over pairs; NaN for sequences of one token."""
        own, apart = np.sqrt(self.own(products)), self.count[0].copy()
        apart[: self.groups] = 0
        correlation = products[..., 0, :] / (own[..., self.left] * own[..., self.right])
        mean: Array = correlation @ apart / (apart.sum() or np.nan)
        return mean

    def total(self, *products: Array) -> Array:
        """Return the sum over all ordered pairs of tokens of the product of the tables."""
        tables = ",".join(["...sc"] * len(products))
        total: Array = np.einsum(f"sc,{tables}->...", self.count, *products)
        return total


def _group_sizes(length: int) -> Array:
    sizes: list[int] = []
    while (done := sum(sizes)) < length:
        sizes.append(min(max(1, round(_GROWTH * done)), length - done))
    return np.array(sizes, dtype=np.float64)


def _seen(sizes: Array, a: int, b: int, same_position: bool, causal: bool) -> Array:
    """Return how many pairs of keys of each class a pair of queries of groups a <= b sees [classes].

    Of its own group a token sees itself and those before it: v of n, and v is uniform over 1..n.
    """
    groups, n = len(sizes), sizes[b]
    mine, others = (_visible(sizes, group, causal) for group in (a, b))
    together = np.minimum(mine, others)  # of a group that both see whole, or that one sees whole
    product = np.outer(mine, others)
    if causal and a == b:
        if same_position:
            product[b, b] = (n + 1) * (2 * n + 1) / 6  # E[v²]; ``together`` is E[v]
        else:
            together[b] = (n + 1) / 3  # E[min(v, v')], v ≠ v'
            product[b, b] = (n + 1) * (3 * n + 2) / 12  # E[v v']
    product[np.arange(groups), np.arange(groups)] -= together
    apart = [product[g, h] + (product[h, g] if g != h else 0.0) for g in range(groups) for h in range(groups) if g <= h]
    return np.concatenate([together, apart])


def _visible(sizes: Array, group: int, causal: bool) -> Array:
    if not causal:
        return sizes.copy()
    visible = np.where(np.arange(len(sizes)) < group, sizes, 0.0)
    visible[group] = (sizes[group] + 1) / 2
    return visible
