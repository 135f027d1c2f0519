"""Kedia et al. 2024, "Transformers Get Stable" (2403.09635): end-to-end signal propagation in language models.

What each component of a Transformer with random matrices makes of the moments of tokens, forward and (``..._gradient``)
backward, as the authors' simulations have it; corrections for finite widths are ours where they are marked "here".
Whole networks are put together in ``gradlens.theory.transformer``, from tables of pairs of tokens.

Matrices are drawn with mean 0 and ``weight_variance``, independent of their input; features of a token are independent
and, where an activation, softmax or norm reads them, Gaussian. Gradients have mean 0 and signs that are independent of
the forward pass, as with labels at initialization.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from gradlens.theory.activations import Moments as ActivationMoments
from gradlens.theory.network import OutsideTheoryError

#: Relative error from which on a moment is not given.
_TOLERANCE = 0.05


@dataclass(frozen=True)
class Moments:
    """Moments of one feature of two tokens that are alike.

    Attributes:
        mean: E[x].
        variance: of x.
        covariance: of x of the one token and x of the other.
    """

    mean: float
    variance: float
    covariance: float

    @property
    def correlation(self) -> float:
        """Of the two tokens."""
        return self.covariance / self.variance


Gradient: TypeAlias = Moments


def linear(x: Moments, n_in: int, weight_variance: float) -> Moments:
    """Return those of Wx: variance n_in·w²(σ² + μ²), covariance n_in·w²(cov + μ²)."""
    gain = n_in * weight_variance
    return Moments(0.0, gain * (x.variance + x.mean**2), gain * (x.covariance + x.mean**2))


def linear_gradient(gradient: Gradient, n_out: int, weight_variance: float) -> Gradient:
    """Return those of Wᵀg: both times n_out·w²."""
    return linear(gradient, n_out, weight_variance)


def activation(x: Moments, function: ActivationMoments) -> Moments:
    """Return those of φ(x), one of ``gradlens.theory.activations``: ReLU and GeLU in closed form.

    Raises:
        OutsideTheoryError: x has a mean, which it has not after a linear layer.
    """
    _require_centred(x)
    square, second, product = (_at(function, x.variance, k)[0] for k in (0.0, x.variance, x.covariance))
    return Moments(float(np.sqrt(square)), second - square, product - square)


def activation_gradient(gradient: Gradient, x: Moments, function: ActivationMoments) -> Gradient:
    """Return those of φ′(x)·g: variance E[φ′²]·g², covariance E[φ′(x)φ′(y)]·cov; for ReLU 1/2 and 1/4 + asin(r)/2π.

    Raises:
        OutsideTheoryError: as ``activation``.
    """
    _require_centred(x)
    own, both = (_at(function, x.variance, k)[1] for k in (x.variance, x.covariance))
    return Moments(0.0, own * gradient.variance, both * gradient.covariance)


def layernorm(x: Moments, width: int) -> Moments:
    """Return those of (x − μ)/σ over d features: mean 0, variance 1, covariance r(1 − (1 − r²)/2(d − 1)).

    The covariance is here the mean of a sample correlation, to first order in 1/d; the paper has r(1 − 1/d).
    """
    r = x.correlation
    return Moments(0.0, 1.0, r * (1 - (1 - r**2) / (2 * (width - 1))))


def layernorm_gradient(gradient: Gradient, x: Moments, width: int) -> Gradient:
    """Return those of (I − 11ᵀ/d − x̂x̂ᵀ/d)g/σ: variance g²/σ²·(d − 2)/(d − 3), covariance cov/σ²·(1 + (3r² − 1)/2d).

    The paper has 1 for both factors. Here two of d directions are taken from a gradient, 1 − 2/d, and E[1/σ²] over
    features that are drawn is d/(d − 3) times 1/E[σ²]; the covariance is to first order in 1/d.

    Raises:
        OutsideTheoryError: E[1/σ²] is infinite with 3 features or fewer.
    """
    if width <= 3:
        raise OutsideTheoryError(f"The gradient's moments behind a norm need a width of at least 4, got {width}.")
    correction = 1 + (3 * x.correlation**2 - 1) / (2 * width)
    variance = gradient.variance / x.variance * (width - 2) / (width - 3)
    return Moments(0.0, variance, gradient.covariance / x.variance * correction)


def dropout(x: Moments, probability: float) -> Moments:
    """Return those of x/(1 − p) or 0: variance (σ² + pμ²)/(1 − p), else as they were; the same for a gradient."""
    return Moments(x.mean, (x.variance + probability * x.mean**2) / (1 - probability), x.covariance)


def softmax(logits: Moments, count: int) -> Moments:
    """Return those of softmax over n logits: mean 1/n, variance (eˢ − 1)/n², s = σ² − cov.

    The two "tokens" are here two logits of one softmax. The paper's log-normal approximation, in which the sum of n
    exponentials is its mean, is too large by a share of eˢ(2eˢ − 1)/n to first order. The covariance −variance/(n − 1)
    is exact: the sum is 1.

    Raises:
        OutsideTheoryError: that share is more than 5 %.
    """
    growth = float(np.exp(logits.variance - logits.covariance))
    _require_concentrated(growth * (2 * growth - 1), count)
    variance = (growth - 1) / count**2
    return Moments(1 / count, variance, -variance / (count - 1))


def softmax_gradient(gradient: Gradient, logits: Moments, count: int) -> Gradient:
    """Return those of a ⊙ (g − a·g): variance eˢ/n²·(g² − cov), covariance −variance/(n − 1).

    As for ``softmax``; too large by a share of (2eˢ − 1)²/n.

    Raises:
        OutsideTheoryError: that share is more than 5 %.
    """
    growth = float(np.exp(logits.variance - logits.covariance))
    _require_concentrated((2 * growth - 1) ** 2, count)
    variance = growth / count**2 * (gradient.variance - gradient.covariance)
    return Moments(0.0, variance, -variance / (count - 1))


def attention(keys: Moments, count: int, n_in: int, weight_variance: float, *, probability: float = 0.0) -> Moments:
    """Return those of Σⱼ aⱼ W_V yⱼ, one head over n keys with uniform weights (W_Q = W_K = 0) after dropout.

    Variance n_in·w²(1 + (n − 1)r(1 − p))/(n(1 − p))·σ², covariance of two queries n_in·w²(1 + (n − 1)r)/n·σ². The same
    for attention to a memory, whose tokens are the keys: the output knows nothing of the queries.

    Args:
        keys: moments of the tokens that are attended to.
        count: n.
        n_in: their width.
        weight_variance: of W_V.
        probability: p, of dropout on the weights.
    """
    values = linear(keys, n_in, weight_variance)
    kept, pooled = values.variance / (1 - probability), (count - 1) * values.covariance
    return Moments(0.0, (kept + pooled) / count, (values.variance + pooled) / count)


def attention_gradient(
    gradient: Gradient, queries: int, keys: int, n_out: int, weight_variance: float, *, probability: float = 0.0
) -> Gradient:
    """Return those of what comes back at the keys' tokens of uniform attention, through W_V, from m queries.

    Variance n_out·w²·m/n²·(1 + (m − 1)r(1 − p))/(1 − p)·g²; self-attention has m = n. Nothing comes back through the
    weights, which is all that the queries' tokens would get: a decoder's stream gets none from cross-attention.

    Args:
        gradient: at the m outputs.
        queries: m.
        keys: n.
        n_out: width of the output.
        weight_variance: of W_V.
        probability: p, of dropout on the weights.
    """
    at_values = linear_gradient(gradient, n_out, weight_variance)
    kept, pooled = at_values.variance / (1 - probability), (queries - 1) * at_values.covariance
    share = queries / keys**2
    return Moments(0.0, share * (kept + pooled), share * (at_values.variance + pooled))


def ffn(x: Moments, n_in: int, n_hidden: int, variances: tuple[float, float], function: ActivationMoments) -> Moments:
    """Return those of W2 φ(W1 x), with the variances of W1 and W2."""
    return linear(activation(linear(x, n_in, variances[0]), function), n_hidden, variances[1])


def ffn_gradient(
    gradient: Gradient,
    x: Moments,
    n_in: int,
    n_hidden: int,
    variances: tuple[float, float],
    function: ActivationMoments,
) -> Gradient:
    """Return those of W1ᵀ(φ′ ⊙ W2ᵀg), for as many outputs as inputs."""
    hidden = linear(x, n_in, variances[0])
    at_hidden = activation_gradient(linear_gradient(gradient, n_in, variances[1]), hidden, function)
    return linear_gradient(at_hidden, n_hidden, variances[0])


def _at(function: ActivationMoments, variance: float, covariance: float) -> tuple[float, float]:
    own = np.asarray(variance, dtype=np.float64)
    second, slope = function(own, own, np.asarray(covariance, dtype=np.float64))
    return float(second), float(slope)


def _require_centred(x: Moments) -> None:
    if x.mean != 0:
        raise OutsideTheoryError(
            f"The moments behind an activation are known for pre-activations of mean 0, as a linear layer gives them; "
            f"got mean {x.mean:g}."
        )


def _require_concentrated(spread: float, count: int) -> None:
    if spread > _TOLERANCE * count:
        raise OutsideTheoryError(
            f"The log-normal approximation of softmax needs at least {spread / _TOLERANCE:.0f} logits of this variance "
            f"to be within {_TOLERANCE:.0%}; got {count}. Give it more logits or a smaller variance, or simulate it."
        )
