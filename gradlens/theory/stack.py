"""One stack of blocks: its forward pass on a tape of signals, and the gradients that come back on it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from gradlens.theory.activations import ACTIVATIONS
from gradlens.theory.arrangements import ARRANGEMENTS, Arrangement, Branch, Place
from gradlens.theory.components import Attention, FeedForward, dropout
from gradlens.theory.network import Network
from gradlens.theory.pairs import Array, Pairs
from gradlens.theory.signals import Signal, Tape

_Backward = Callable[[Array], None]


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What is predicted of one stack.

    Attributes:
        stream: E[x²] after 0, 1, ... blocks, before a norm that ends the block [blocks + 1].
        correlation: mean over pairs of tokens of a sequence of their correlation there [blocks + 1].
        gradients: parameter inside a block, as ``ffn.w2.weight``, to the Frobenius norms of its gradients [blocks].
    """

    stream: Array
    correlation: Array
    gradients: Mapping[str, Array]


class Stack:
    """The blocks of one stack.

    Args:
        network: it is part of.
        path: ``encoder``, ``decoder``, or empty for the only stack.
        memory: the stack whose output the blocks attend to.
        skips: α of each sub-layer, where they are profiled.

    Attributes:
        pairs: of its tokens.
        tape: of its signals.
        output: the signal after the last block and norm.
        branch_moments: second moment of each branch's output, before dropout.
    """

    def __init__(
        self, network: Network, path: str, *, memory: "Stack | None" = None, skips: list[float] | None = None
    ) -> None:
        self.path = path
        self.pairs = Pairs.of(
            network.sequences,
            network.source_length if path == "encoder" else network.length,
            causal="decoder" in (path, network.kind),
        )
        self.tape = Tape(self.pairs)
        self.branch_moments: list[float] = []
        self._network, self._memory, self._skips = network, memory, skips
        self._memory_products = np.zeros(0) if memory is None else memory.tape.products(memory.output)
        self._memory_gradient = np.zeros_like(self._memory_products)
        self._energy: dict[str, list[float]] = {}
        self._streams: list[Array] = []
        self.output: Signal = self._forward(ARRANGEMENTS[network.arrangement])

    def run_backward(self) -> None:
        """Pass back what was sent to the output, and on to the output of the memory."""
        self.tape.run_backward()
        if self._memory is not None:
            self._memory.tape.send(self._memory.output, self._memory_gradient)

    def predicted(self) -> Predicted:
        """Return what is known after the backward pass."""
        return Predicted(
            stream=np.array([self.pairs.over_tokens(stream) for stream in self._streams]),
            correlation=np.array([self.pairs.correlation(stream) for stream in self._streams]),
            gradients={name: np.sqrt(energies[::-1]) for name, energies in self._energy.items()},
        )

    def _forward(self, arrangement: Arrangement) -> Signal:
        network = self._network
        alpha, beta = arrangement.constants(network.blocks, self.path or "single")
        within, across = network.source_coincidence if self.path == "encoder" else network.coincidence
        embedded = self.pairs.table(1.0, 0.5 + across / 2, (within / 2, across / 2))  # half token, half position
        x = self.tape.source(dropout(self.pairs, embedded, network.dropout))
        self._streams.append(self.tape.products(x))
        for block in range(network.blocks):
            branches = self._branches(beta**2, arrangement)
            place = Place(
                tape=self.tape, entered=x, block=block, blocks=network.blocks, branches=len(branches), drop=self._drop
            )
            for index, branch in enumerate(branches):
                place.alpha = alpha if not self._skips else self._skips[block * len(branches) + index]
                place.last = index == len(branches) - 1
                x = arrangement.rule(place, x, branch)
            self._streams.append(self.tape.products(x if place.added is None else place.added))
            x = self.tape.settled(x)
        return place.norm(x) if arrangement.final_norm else x

    def _branches(self, gain: float, arrangement: Arrangement) -> list[Branch]:
        """Return the branches of one block, with matrices of their own."""
        network, pairs = self._network, self.pairs
        scaled: dict[str, Any] = {"gain": gain, "inner_norm": arrangement.inner_norm}
        attention = Attention(pairs, pairs, pairs.seen, width=network.width, **scaled)
        branches: list[Branch] = [partial(self._attend, attention)]
        if self._memory is not None:
            keys = self._memory.pairs
            seen = np.tile(keys.seen[:1], (len(pairs.left), 1))  # every token sees the whole memory
            of_cross = {} if arrangement.plain_cross else scaled
            cross = Attention(pairs, keys, seen, width=network.width, **of_cross)
            branches.append(partial(self._attend_to_memory, cross))
        activation = ACTIVATIONS[network.activation]
        of_ffn = {"ffn": network.ffn, "centered": network.centered, **scaled}
        ffn = FeedForward(pairs, activation, width=network.width, **of_ffn)
        return [*branches, partial(self._feed, ffn)]

    def _feed(self, ffn: FeedForward, u: Signal) -> Signal:
        def backward(gradient: Array) -> None:
            below, energy = ffn.backward(gradient)
            self._keep("ffn", energy)
            self.tape.send(u, below)

        return self._branch(ffn.forward(self.tape.products(u)), backward)

    def _attend(self, attention: Attention, u: Signal) -> Signal:
        def backward(gradient: Array) -> None:
            at_queries, at_keys, energy = attention.backward(gradient)
            self._keep("attention", energy)
            self.tape.send(u, at_queries + at_keys)

        x = self.tape.products(u)
        return self._branch(attention.forward(x, x), backward)

    def _attend_to_memory(self, attention: Attention, u: Signal) -> Signal:
        def backward(gradient: Array) -> None:
            at_queries, at_keys, energy = attention.backward(gradient)
            self._keep("cross_attention", energy)
            self.tape.send(u, at_queries)
            self._memory_gradient = self._memory_gradient + at_keys

        return self._branch(attention.forward(self.tape.products(u), self._memory_products), backward)

    def _branch(self, products: Array, backward: _Backward) -> Signal:
        self.branch_moments.append(self.pairs.over_tokens(products))
        return self.tape.source(products, backward)

    def _drop(self, signal: Signal) -> Signal:
        if not self._network.dropout:
            return signal
        drop = partial(dropout, self.pairs, probability=self._network.dropout)
        dropped = drop(self.tape.products(signal))
        return self.tape.source(dropped, lambda gradient: self.tape.send(signal, drop(gradient)))

    def _keep(self, branch: str, energy: dict[str, float]) -> None:
        for name, value in energy.items():
            self._energy.setdefault(f"{branch}.{name}", []).append(value)
