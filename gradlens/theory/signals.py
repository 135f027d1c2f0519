"""Signals of a network at initialization, forward and backward, without a network: sums of independent parts.

What a branch with random matrices gives is independent of all that was there before it; adding, scaling and (where
the second moment of a token is nearly its mean) normalizing are linear. So a signal is a linear combination of sources,
and so is the gradient that arrives at a source: parts that reach it on several linear paths add up as amplitudes, those
that come through different matrices as energies.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from gradlens.theory.pairs import Array, Pairs

#: Source to its factor, a number for each group of positions.
Signal = Mapping[int, Array]


@dataclass(eq=False)
class _Source:
    products: Array
    backward: Callable[[Array], None]
    gradient: dict[int, Array] = field(default_factory=dict)


class Tape:
    """The sources of one stack, in the order in which they arose.

    Args:
        pairs: of the stack's tokens.
    """

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs
        self._sources: list[_Source] = []
        self._gradients: list[Array] = []

    def source(self, products: Array, backward: Callable[[Array], None] = lambda products: None) -> Signal:
        """Return a new signal, independent of all others.

        Args:
            products: of its tokens [2, classes].
            backward: called with the products of the gradients that arrived at it.
        """
        self._sources.append(_Source(products, backward))
        return {len(self._sources) - 1: np.ones(self.pairs.groups)}

    def products(self, signal: Signal) -> Array:
        """Return the products of a signal's tokens."""
        return self._combined(signal, [self._sources[index].products for index in signal])

    def settled(self, signal: Signal) -> Signal:
        """Return the signal as one source, where its parts are no longer needed."""
        return self.source(self.products(signal), lambda gradient: self.send(signal, gradient))

    def send(self, signal: Signal, gradient: Array) -> None:
        """Let a gradient, independent of those before it, arrive at a signal."""
        self._gradients.append(gradient)
        new = len(self._gradients) - 1
        for index, factor in signal.items():
            self._sources[index].gradient[new] = factor

    def run_backward(self) -> None:
        """Pass the gradients back from the last source to the first."""
        for source in reversed(self._sources):
            if source.gradient:
                source.backward(self._combined(source.gradient, [self._gradients[i] for i in source.gradient]))

    def _combined(self, factors: Signal, tables: list[Array]) -> Array:
        left, right = self.pairs.left, self.pairs.right
        terms = [factor[left] * factor[right] * table for factor, table in zip(factors.values(), tables, strict=True)]
        return terms[0] if len(terms) == 1 else np.add.reduce(terms)


def added(*signals: Signal) -> Signal:
    """Return the sum of signals."""
    total: dict[int, Array] = {}
    for signal in signals:
        for index, factor in signal.items():
            total[index] = total[index] + factor if index in total else factor
    return total


def scaled(signal: Signal, factor: float | Array) -> Signal:
    """Return a signal times a number, or a number for each group of positions."""
    return {index: own * factor for index, own in signal.items()}
