"""One stack of blocks: its forward pass on a tape of signals, and the gradients that come back on it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from gradlens.theory.activations import ACTIVATIONS
from gradlens.theory.arrangements import ARRANGEMENTS, Arrangement, Branch, Place
from gradlens.theory.components import Attention, FeedForward, Kept, dropout
from gradlens.theory.network import Network
from gradlens.theory.pairs import Array, Pairs
from gradlens.theory.signals import Signal, Tape


class _Uses:
    """What a component was in each block: what it kept forward, and backward the gradient that came to its output."""

    def __init__(self, component: Attention | FeedForward) -> None:
        self.component = component
        self.kept: list[Kept] = []
        self.gradients: list[Array] = []


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
        self._network, self._memory, self._skips = network, memory, skips
        arrangement = ARRANGEMENTS[network.arrangement]
        alpha, beta = arrangement.constants(network.blocks, path or "single")
        self._uses = {name: _Uses(component) for name, component in self._components(beta**2, arrangement).items()}
        self._streams: list[Array] = []
        self._branched: list[Array] = []
        self.output: Signal = self._forward(arrangement, alpha)

    @property
    def branch_moments(self) -> Array:
        """Second moment of each branch's output, before dropout [blocks · branches]."""
        return self.pairs.over_tokens(np.array(self._branched))

    def predicted(self) -> Predicted:
        """Return what is known after the backward pass."""
        streams = np.array(self._streams)
        return Predicted(
            stream=self.pairs.over_tokens(streams),
            correlation=self.pairs.correlation(streams),
            gradients={
                f"{name}.{parameter}": np.sqrt(energy)
                for name, uses in self._uses.items()
                for parameter, energy in uses.component.energies(uses.gradients[::-1], uses.kept).items()
            },
        )

    def _forward(self, arrangement: Arrangement, alpha: float) -> Signal:
        network, branches = self._network, self._branches()
        within, across = network.source_coincidence if self.path == "encoder" else network.coincidence
        embedded = self.pairs.table(1.0, 0.5 + across / 2, (within / 2, across / 2))  # half token, half position
        x = self.tape.source(dropout(self.pairs, embedded, network.dropout))
        self._streams.append(x.products)
        for block in range(network.blocks):
            place = Place(
                tape=self.tape, entered=x, block=block, blocks=network.blocks, branches=len(branches), drop=self._drop
            )
            for index, branch in enumerate(branches):
                place.alpha = alpha if not self._skips else self._skips[block * len(branches) + index]
                place.last = index == len(branches) - 1
                x = arrangement.rule(place, x, branch)
            x = self.tape.settled(x)
            self._streams.append((x if place.added is None else place.added).products)
        return place.norm(x) if arrangement.final_norm else x

    def _components(self, gain: float, arrangement: Arrangement) -> dict[str, Attention | FeedForward]:
        """Return the components of a block, in its order."""
        network, pairs = self._network, self.pairs
        scaled: dict[str, Any] = {"width": network.width, "gain": gain, "inner_norm": arrangement.inner_norm}
        components = {"attention": Attention(pairs, pairs, pairs.seen, **scaled)}
        if self._memory is not None:
            keys = self._memory.pairs
            seen = np.tile(keys.seen[:1], (len(pairs.left), 1))  # every token sees the whole memory
            of_cross = {"width": network.width} if arrangement.plain_cross else scaled
            components["cross_attention"] = Attention(pairs, keys, seen, **of_cross)
        activation = ACTIVATIONS[network.activation]
        ffn = FeedForward(pairs, activation, ffn=network.ffn, centered=network.centered, **scaled)
        return {**components, "ffn": ffn}

    def _branches(self) -> list[Branch]:
        """Return the branches of a block, in its order."""
        attend_to_memory = [] if self._memory is None else [partial(self._attend_to_memory, self._memory)]
        return [self._attend, *attend_to_memory, self._feed]

    def _attend(self, u: Signal) -> Signal:
        return self._branch("attention", [u, u], lambda at_queries, at_keys: self.tape.send(u, at_queries + at_keys))

    def _attend_to_memory(self, memory: "Stack", u: Signal) -> Signal:
        def send(at_queries: Array, at_keys: Array) -> None:
            self.tape.send(u, at_queries)
            memory.tape.send(memory.output, at_keys)

        return self._branch("cross_attention", [u, memory.output], send)

    def _feed(self, u: Signal) -> Signal:
        return self._branch("ffn", [u], lambda at_u: self.tape.send(u, at_u))

    def _branch(self, name: str, inputs: list[Signal], send: Callable[..., None]) -> Signal:
        """Return what a component makes of its inputs; ``send`` is given the gradient at each of them."""
        uses = self._uses[name]

        def backward(gradient: Array) -> None:
            uses.gradients.append(gradient)
            send(*uses.component.backward(gradient, kept))

        products, kept = uses.component.forward(*[signal.products for signal in inputs])
        uses.kept.append(kept)
        self._branched.append(products)
        return self.tape.source(products, backward)

    def _drop(self, signal: Signal) -> Signal:
        if not self._network.dropout:
            return signal
        drop = partial(dropout, self.pairs, probability=self._network.dropout)
        dropped = drop(signal.products)
        return self.tape.source(dropped, lambda gradient: self.tape.send(signal, drop(gradient)))
