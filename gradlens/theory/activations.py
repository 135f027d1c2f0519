"""What an activation makes of two Gaussian pre-activations: E[φ(x)φ(y)] and E[φ′(x)φ′(y)].

x and y are N(0, a) and N(0, b) with covariance k: the pre-activations of two tokens at one hidden unit. By Price's
theorem the second moment is the derivative of the first with respect to k.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
#: (a, b, k) to the two moments, elementwise.
Moments = Callable[[Array, Array, Array], tuple[Array, Array]]
_TERMS, _NODES = 20, 200


def relu(a: Array, b: Array, k: Array) -> tuple[Array, Array]:
    """Return √(ab)(√(1 − c²) + c(π − acos c))/2π and (π − acos c)/2π, c = k/√(ab) (Cho & Saul 2009)."""
    scale = np.sqrt(a * b)
    c = np.minimum(np.maximum(k / scale, -1), 1)
    gate = 0.5 - np.arccos(c) / (2 * np.pi)
    return scale * (np.sqrt(1 - c**2) / (2 * np.pi) + c * gate), gate


def gelu(a: Array, b: Array, k: Array) -> tuple[Array, Array]:
    """Return k·gate + √D(1 + 1/D − h)/2π and gate + k(h + 1/D)/(2π√D), the moments of xΦ(x).

    D = (a + 1)(b + 1) − k², h = 1/(a + 1) + 1/(b + 1) and gate = 1/4 + asin(k/√((a + 1)(b + 1)))/2π. With z₁, z₂
    independent standard normals Φ(x) = P(z₁ < x), so that E[xΦ(x)yΦ(y)] = E[xy; x > z₁, y > z₂] is a moment of a
    Gaussian over an orthant; Kedia et al. 2024 (2403.09635) give the case a = b.
    """
    across = (a + 1) * (b + 1)
    h, det = (a + b + 2) / across, across - k**2
    gate, root, inverse = 0.25 + np.arcsin(k / np.sqrt(across)) / (2 * np.pi), np.sqrt(det) / (2 * np.pi), 1 / det
    return k * gate + root * (1 + inverse - h), gate + k * root * inverse * (h + inverse)


def silu(a: Array, b: Array, k: Array) -> tuple[Array, Array]:
    """Return the moments of x/(1 + exp(−x)) by its Hermite series: Σ αₙ(a)αₙ(b)cⁿ, c = k/√(ab).

    It is x/2, whose moments are k/4 and 1/4, plus an even function, so that other odd terms are 0. There is no closed
    form; the terms up to n = 38 agree with quadrature to 1e-6 up to a variance of 4.
    """
    scale = np.sqrt(a * b)
    c = np.minimum(np.maximum(k / scale, -1), 1)
    product, powers = _series(np.sqrt(a)) * _series(np.sqrt(b)), (c**2)[..., None] ** np.arange(_TERMS)
    slopes = product[..., 1:] * np.arange(2, 2 * _TERMS, 2)
    second: Array = k / 4 + (product * powers).sum(-1)
    slope: Array = 1 / 4 + (slopes * powers[..., :-1]).sum(-1) * c / scale
    return second, slope


def _series(scale: Array) -> Array:
    """Return the coefficients of silu(scale·z) in the normalized Hermite polynomials 0, 2, 4, ... [..., terms]."""
    return np.array([_coefficients(s) for s in scale.ravel().tolist()]).reshape(*scale.shape, _TERMS)


@lru_cache(maxsize=4096)
def _coefficients(scale: float) -> Array:
    nodes, weights, basis = _hermite()
    coefficients: Array = basis @ (weights * scale * nodes / (1 + np.exp(-scale * nodes)))
    return coefficients


@lru_cache(maxsize=1)
def _hermite() -> tuple[Array, Array, Array]:
    """Return Gauss–Hermite nodes, weights that sum to 1, and the normalized even polynomials there [terms, nodes]."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    basis = np.ones((2 * _TERMS, _NODES))
    basis[1] = nodes
    for n in range(1, 2 * _TERMS - 1):
        basis[n + 1] = (nodes * basis[n] - np.sqrt(n) * basis[n - 1]) / np.sqrt(n + 1)
    return nodes, weights / weights.sum(), basis[::2]


#: By the names of the zoo's FFN.
ACTIVATIONS: Mapping[str, Moments] = {"relu": relu, "gelu": gelu, "silu": silu}
