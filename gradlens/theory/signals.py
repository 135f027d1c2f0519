"""Signals of a network at initialization, forward and backward, without a network: sums of independent parts.

What a branch with random matrices gives is independent of all that was there before it; adding, scaling and (where
the second moment of a token is nearly its mean) normalizing are linear. So a signal is a linear combination of sources,
and so is the gradient that arrives at a source: parts that reach it on several linear paths add up as amplitudes, those
that come through different matrices as energies.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce

from gradlens.theory.pairs import Array, Pairs


@dataclass(eq=False)
class Signal:
    """A linear combination of sources.

    Attributes:
        tape: of the sources.
        factors: source to its factor, a number or a number for each group of positions.
        products: of its tokens [2, classes].
    """

    tape: "Tape"
    factors: Mapping[int, float | Array]
    products: Array


@dataclass(eq=False)
class _Source:
    products: Array
    backward: Callable[[Array], None]
    gradient: Array | None = None


class Tape:
    """The sources of one stack, in the order in which they arose.

    Args:
        pairs: of the stack's tokens.
    """

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs
        self.sources: list[_Source] = []

    def source(self, products: Array, backward: Callable[[Array], None] = lambda products: None) -> Signal:
        """Return a new signal, independent of all others.

        Args:
            products: of its tokens [2, classes].
            backward: called with the products of the gradients that arrived at it.
        """
        self.sources.append(_Source(products, backward))
        return Signal(self, {len(self.sources) - 1: 1.0}, products)

    def settled(self, signal: Signal) -> Signal:
        """Return the signal as one source, where its parts are no longer needed."""
        return self.source(signal.products, lambda gradient: self.send(signal, gradient))

    def send(self, signal: Signal, gradient: Array) -> None:
        """Let a gradient, independent of those before it, arrive at a signal."""
        for index, factor in signal.factors.items():
            source, arriving = self.sources[index], self.pairs.between(factor) * gradient
            source.gradient = arriving if source.gradient is None else source.gradient + arriving

    def run_backward(self) -> None:
        """Pass the gradients back from the last source to the first, and forget the sources."""
        while self.sources:
            source = self.sources.pop()
            if source.gradient is not None:
                source.backward(source.gradient)


def added(*signals: Signal) -> Signal:
    """Return the sum of signals of one tape."""
    return reduce(_sum, signals)


def _sum(a: Signal, b: Signal) -> Signal:
    between, products, factors = a.tape.pairs.between, a.products + b.products, {**a.factors, **b.factors}
    for index in a.factors.keys() & b.factors.keys():  # coherent
        one, other = a.factors[index], b.factors[index]
        factors[index] = one + other
        products = products + (between(one + other) - between(one) - between(other)) * a.tape.sources[index].products
    return Signal(a.tape, factors, products)


def scaled(signal: Signal, factor: float | Array) -> Signal:
    """Return a signal times a number, or a number for each group of positions."""
    factors = {index: own * factor for index, own in signal.factors.items()}
    return Signal(signal.tape, factors, signal.tape.pairs.between(factor) * signal.products)
