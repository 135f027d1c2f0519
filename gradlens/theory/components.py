"""What a Transformer's components make of the mean products of pairs of tokens, forward and backward.

The components are those of ``gradlens.theory.kedia2024``, put together for Xavier normal matrices. Variance and
covariance of tokens are here a table of products (``gradlens.theory.pairs``): tokens may be alike to any degree.

Forward, a table holds E[xᵢ·xₖ]/d; backward, E[gᵢ·gₖ]/d with g the gradient of the loss. Gradients are supposed to be
independent of the forward pass, as with labels at initialization.
"""

from dataclasses import KW_ONLY, dataclass, field

import numpy as np

from gradlens.theory.activations import Moments
from gradlens.theory.pairs import Array, Pairs


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
    _tables: tuple[Array, ...] = field(default=(), init=False)

    def forward(self, x: Array) -> Array:
        """Return the products of the outputs [2, classes] for those of the inputs."""
        before = self._share(self.width) * x
        own = self.pairs.own(before)
        left, right = own[self.pairs.left], own[self.pairs.right]
        hidden, slope = self.activation(left, right, before)
        if self.inner_norm:
            if self.centered:  # less the product of the means
                hidden = hidden - self.activation(left, right, np.zeros_like(before))[0]
            scale = np.sqrt(self.pairs.own(hidden))
            scale = scale[self.pairs.left] * scale[self.pairs.right]
            hidden, slope = hidden / scale, slope / scale
        self._tables = x, hidden, slope
        return self._share(self.ffn) * hidden

    def backward(self, g: Array) -> tuple[Array, dict[str, float]]:
        """Return the products of the gradients at the inputs, and the energy of the gradient of each parameter."""
        x, hidden, slope = self._tables
        inside = self._share(self.width) * g * slope
        energy = {
            "w1.weight": self.width * self.ffn * self.pairs.total(inside, x),
            "w1.bias": self.ffn * self.pairs.total(inside),
            "w2.weight": self.width * self.ffn * self.pairs.total(g, hidden),
            "w2.bias": self.width * self.pairs.total(g),
        }
        return self._share(self.ffn) * inside, energy

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
    _tables: tuple[Array, ...] = field(default=(), init=False)

    def forward(self, x: Array, y: Array) -> Array:
        """Return the products of the outputs for those of the queries' inputs x and the keys' inputs y."""
        weights = self.seen * np.exp((self._sharpness(x, y) * x)[:, :, None] * y[:, None, :])
        weights /= weights.sum(-1, keepdims=True)
        mean = (weights @ y[:, :, None])[..., 0]
        spread = np.maximum((weights @ (y**2)[:, :, None])[..., 0] - mean**2, 0)
        mixed = self.gain * mean
        scale = np.ones_like(mixed)
        if self.inner_norm:
            own = np.sqrt(self.queries.own(mixed))
            scale = own[self.queries.left] * own[self.queries.right]
        self._tables = x, y, weights, mean, spread, mixed / scale, scale
        return self.gain * mixed / scale

    def _sharpness(self, x: Array, y: Array) -> Array:
        """Return ζ of each class of pairs of queries [classes]."""
        groups = self.queries.groups
        seen = self.seen[:groups]
        coincident = np.arange(len(self.keys.left)) < self.keys.groups
        visible = seen @ coincident
        alone, together = seen @ (coincident * y[0]) / visible, seen @ y[0] / seen.sum(-1)
        zeta = effective_sharpness(self.queries.own(x) * (alone - together), visible)
        both: Array = np.sqrt(zeta[self.queries.left] * zeta[self.queries.right])
        return both

    def backward(self, g: Array) -> tuple[Array, Array, dict[str, float]]:
        """Return the products of the gradients at the queries' and at the keys' inputs, and the parameters' energies.

        Those of W_Q and W_K are left out: where tokens are nearly alike they hang on how the similarities of pairs
        scatter around their mean, which the tables do not hold.
        """
        x, y, weights, mean, spread, mixed, scale = self._tables
        inside = self.gain * g / scale  # at the mixed values, before W_O
        at_query = self.gain * inside * spread
        arriving = self.queries.count[:, :, None] * weights
        share = np.divide(1.0, self.keys.count, out=np.zeros_like(self.keys.count), where=self.keys.count > 0)
        at_value = _into(arriving, inside) * share
        pull = self.gain * inside * x
        at_key = (_into(arriving, pull) * y - _into(arriving, pull * mean)) * share
        energy = {
            "value.weight": self.keys.total(at_value, y),
            "out.weight": self.queries.total(g, mixed),
        }
        return at_query, at_key + self.gain * at_value, {name: self.width**2 * e for name, e in energy.items()}


def _into(arriving: Array, table: Array) -> Array:
    """Sum what the pairs of queries send to each class of pairs of keys."""
    summed: Array = (table[:, None, :] @ arriving)[:, 0, :]
    return summed
