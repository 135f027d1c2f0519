"""What a Transformer's components make of the mean products of pairs of tokens, forward and backward.

The components are those of ``gradlens.theory.kedia2024``, put together for Xavier normal matrices. Variance and
covariance of tokens are here a table of products (``gradlens.theory.pairs``): tokens may be alike to any degree.

Forward, a table holds E[xᵢ·xₖ]/d; backward, E[gᵢ·gₖ]/d with g the gradient of the loss. Gradients are supposed to be
independent of the forward pass, as with labels at initialization.

One component stands for those of all blocks: what a block's backward pass needs of its forward pass is handed out and
back. The energies of the parameters' gradients are found for all blocks at once.
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property

import numpy as np

from gradlens.theory.activations import Moments
from gradlens.theory.pairs import Array, Pairs

#: What the backward pass of one block needs of its forward pass.
Kept = tuple[Array, ...]


def dropout(pairs: Pairs, products: Array, probability: float) -> Array:
    """Divide the products of each token with itself by 1 − p; masks of different tokens are independent.

    The same forward and backward.
    """
    dropped = products.copy()
    dropped[0, : pairs.groups] /= 1 - probability
    return dropped


def effective_sharpness(variance: Array, keys: Array) -> Array:
    """Return ζ in E Σⱼ aⱼ² = e^{ζs}/(n − 1 + e^{ζs}): a softmax over n keys, whose logits have the variance s.

    The ratio of expectations has ζ = 1, and the expectation of the ratio is less. An interpolation in
    u = 2(eˢ − 1)/n, fitted to simulations: Σ within 1.5 % for s up to 1, 7 % for s = 2.
    """
    log = np.log1p(2 * np.expm1(np.maximum(variance, 0)) / keys)
    zeta: Array = 1 / (1 + 1.2 * log / (1 + 0.5 * np.sqrt(log)))
    return zeta


@dataclass
class FeedForward:
    """W2 φ(W1 x), with W1, W2 ~ N(0, β²·2/(d + f)).

    Args:
        pairs: of the tokens.
        activation: φ.
        width: d.
        ffn: f.
        gain: β².
        inner_norm: whether a norm over the f hidden units stands before W2.
        centered: whether that norm subtracts their mean, as LayerNorm does and RMSNorm does not.
    """

    pairs: Pairs
    activation: Moments
    _: KW_ONLY
    width: int
    ffn: int
    gain: float = 1.0
    inner_norm: bool = False
    centered: bool = True

    def forward(self, x: Array) -> tuple[Array, Kept]:
        """Return the products of the outputs [2, classes] for those of the inputs, and what ``backward`` needs."""
        before = self._share(self.width) * x
        own = self.pairs.own(before)
        left, right = own[self.pairs.left], own[self.pairs.right]
        hidden, slope = self.activation(left, right, before)
        if self.inner_norm:
            if self.centered:  # less the product of the means
                hidden = hidden - self.activation(left, right, np.zeros_like(before))[0]
            scale = self.pairs.between(np.sqrt(self.pairs.own(hidden)))
            hidden, slope = hidden / scale, slope / scale
        return self._share(self.ffn) * hidden, (x, hidden, slope)

    def backward(self, g: Array, kept: Kept) -> tuple[Array]:
        """Return the products of the gradients at the inputs."""
        *_, slope = kept
        return (self._share(self.width) * self._share(self.ffn) * g * slope,)

    def energies(self, gradients: Sequence[Array], kept: Sequence[Kept]) -> dict[str, Array]:
        """Return the energy of the gradient of each parameter in each block [blocks]."""
        g = np.array(gradients)
        x, hidden, slope = (np.array(tables) for tables in zip(*kept, strict=True))
        inside, weights = self._share(self.width), self.width * self.ffn
        return {
            "w1.weight": weights * inside * self.pairs.total(g, slope, x),
            "w1.bias": self.ffn * inside * self.pairs.total(g, slope),
            "w2.weight": weights * self.pairs.total(g, hidden),
            "w2.bias": self.width * self.pairs.total(g),
        }

    def _share(self, terms: int) -> float:
        return self.gain * 2 * terms / (self.width + self.ffn)


@dataclass
class Attention:
    """Softmax attention with W_Q, W_K ~ N(0, 1/d) and W_V, W_O ~ N(0, β²/d), of any number of heads.

    The logits of queries i, k for keys j, m have the covariance xᵢ·xₖ yⱼ·yₘ/d². With a the weights,
    E[aᵢⱼaₖₘ] ∝ exp of it, in proportion to all pairs of keys that the queries see.

    Args:
        queries: pairs of the tokens that attend.
        keys: pairs of those attended to.
        seen: pairs of keys that a pair of queries sees [query classes, key classes].
        width: d.
        gain: β².
        inner_norm: whether a norm stands before W_O.
    """

    queries: Pairs
    keys: Pairs
    seen: Array
    _: KW_ONLY
    width: int
    gain: float = 1.0
    inner_norm: bool = False

    def forward(self, x: Array, y: Array) -> tuple[Array, Kept]:
        """Return the products of the outputs, and what ``backward`` needs.

        Args:
            x: products of the queries' inputs.
            y: products of the keys' inputs.
        """
        logits = self._sharpness(x, y) * x
        apart = y - y[0, 0]  # so that alike tokens, whose correlation many blocks and an arc cosine magnify, stay alike
        powers = np.array([np.ones_like(y), apart, apart**2]).transpose(1, 2, 0)
        whole, first, second = (self._weights(logits, y) @ powers).transpose(2, 0, 1)
        off = first / whole
        mean, spread = y[0, 0] + off, np.maximum(second / whole - off**2, 0)
        rate = np.array(self.gain)
        if self.inner_norm:
            rate = rate / self.queries.between(np.sqrt(self.queries.own(self.gain * mean)))
        mixed = rate * mean
        return self.gain * mixed, (mixed, x, y, logits, whole, mean, spread, rate)

    def backward(self, g: Array, kept: Kept) -> tuple[Array, Array]:
        """Return the products of the gradients at the queries' and at the keys' inputs."""
        _, x, y, logits, whole, mean, spread, rate = kept
        inside = self.gain * rate * g  # at the values, were each query to see one key alone
        sent = self.queries.count * inside / whole
        weights = self._weights(logits, y)  # kept, they would be nearly all the memory that a prediction takes
        at_keys = _into(sent * (1 - x * mean), weights) + _into(sent * x, weights) * y
        return inside * spread, at_keys * self._per_key

    def energies(self, gradients: Sequence[Array], kept: Sequence[Kept]) -> dict[str, Array]:
        """Return the energy of the gradient of W_V, which is that of W_O, in each block [blocks].

        Those of W_Q and W_K are left out: where tokens are nearly alike they hang on how the similarities of pairs
        scatter around their mean, which the tables do not hold.
        """
        mixed = np.array([mixed for mixed, *_ in kept])
        energy = self.width**2 * self.queries.total(np.array(gradients), mixed)
        return {"value.weight": energy, "out.weight": energy}

    def _weights(self, logits: Array, y: Array) -> Array:
        """Return E[aᵢⱼaₖₘ] but for its sum over keys, summed over the pairs of a class [2, queries, keys]."""
        weights = logits[:, :, None] * y[:, None, :]
        np.exp(weights, out=weights)
        weights *= self.seen
        return weights

    def _sharpness(self, x: Array, y: Array) -> Array:
        """Return ζ of each class of pairs of queries [classes]."""
        zeta = effective_sharpness(self.queries.own(x) * (self._contrast @ y[0]), self._visible)
        both: Array = np.sqrt(self.queries.between(zeta))
        return both

    @cached_property
    def _visible(self) -> Array:
        """Keys that a query sees [query groups]."""
        visible: Array = self.seen[: self.queries.groups, : self.keys.groups].sum(-1)
        return visible

    @cached_property
    def _contrast(self) -> Array:
        """What a query makes of a table of keys: mean of a key with itself, less that of all pairs it sees."""
        seen = self.seen[: self.queries.groups]
        alone = seen * (np.arange(seen.shape[1]) < self.keys.groups)
        contrast: Array = alone / alone.sum(-1, keepdims=True) - seen / seen.sum(-1, keepdims=True)
        return contrast

    @cached_property
    def _per_key(self) -> Array:
        """1 of the pairs of keys in a class; 0 where there are none."""
        count = self.keys.count
        return np.divide(1.0, count, out=np.zeros_like(count), where=count > 0)


def _into(table: Array, weights: Array) -> Array:
    """Sum what the pairs of queries send to each class of pairs of keys."""
    summed: Array = (table[:, None, :] @ weights)[:, 0, :]
    return summed
