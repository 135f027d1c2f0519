"""Xiong et al. 2020, "On Layer Normalization in the Transformer Architecture" (2002.04745).

Predictions at initialization, in the setting of the paper's proofs: Xavier normal matrices, gains 1, biases
0, ReLU, uniform attention (W_Q = W_K = 0), independent Gaussian inputs with E‖x₀‖² = d. Second moments here
are per feature, q = E‖x‖²/d, and the FFN may be wider than the stream: ``ffn_ratio`` is its width over d (1
in the paper).
"""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def relu_second_moment(width: int, variance: float = 1.0) -> float:
    """E‖ReLU(X)‖² for X ~ N(0, variance·I) of this width: variance·width/2 (Lemma 1)."""
    return variance * width / 2


def ffn_gain(ffn_ratio: float = 1.0) -> float:
    """E‖FFN(x)‖²/E‖x‖², written v: 2r/(1 + r)² with r = ffn_ratio; 1/2 at r = 1.

    By Lemma 1 a hidden unit has the second moment d/(d + f), and W2 adds f of them times 2/(d + f). The
    energy of the gradient at x over that at FFN(x) is the same v.
    """
    return 2 * ffn_ratio / (1 + ffn_ratio) ** 2


def normalization_singular_values(x: npt.ArrayLike) -> Array:
    """Return the singular values of LN's Jacobian at x, gain 1 and no eps (Lemma 3, exactly).

    J = (I − yyᵀ/d)(I − 11ᵀ/d)/σ with y the normalized x: d − 2 values of 1/σ = √d/‖x − mean‖, which is ‖J‖₂ and the
    paper's O(√d/‖x‖), and two zeros, along 1 and along y.

    Args:
        x: vectors [..., d], d at least 2, none constant.

    Returns:
        [..., d], descending.
    """
    vectors = np.asarray(x, dtype=np.float64)
    values = np.repeat(1 / vectors.std(-1, keepdims=True), vectors.shape[-1], axis=-1)
    values[..., -2:] = 0
    return values


def concentration(width: int, epsilon: float) -> float:
    """Bound of P(‖Y‖² > (1 + ε)E‖Y‖²) for Y ~ N(0, I) of this width: exp(−dε²/8) (Definition 1, example).

    Args:
        width: d.
        epsilon: ε, between 0 and 1.
    """
    return float(np.exp(-width * epsilon**2 / 8))


def last_gradient_order_post(width: int) -> float:
    """Order of ‖∂L/∂W2‖ in the last block of Post-LN, whatever its depth: d√(ln d) (Theorem 1), an upper bound.

    A loose one: measured for d from 64 to 512 the norm grows like √d.
    """
    return width * float(np.sqrt(np.log(width)))


def last_gradient_order_pre(width: int, blocks: npt.ArrayLike) -> Array:
    """Order of ‖∂L/∂W2‖ in the last of L = ``blocks`` blocks of Pre-LN: d√(ln d/L) (Theorem 1), an upper bound."""
    order: Array = last_gradient_order_post(width) / np.sqrt(np.asarray(blocks, dtype=np.float64))
    return order


def stream_second_moment_pre(blocks: int, ffn_ratio: float = 1.0, attention_sublayers: int = 1) -> tuple[Array, Array]:
    """Bounds of the Pre-LN stream's q after l = 0..blocks blocks (Lemma 2, Pre-LN).

    In each block the FFN adds exactly v (`ffn_gain`), and attention adds between 0, where the mean of many
    independent tokens vanishes, and 1, where all tokens are alike: 1 + v·l ≤ q ≤ 1 + (1 + v)·l. At
    ffn_ratio = 1 this is the paper's (1 + l/2)·d ≤ E‖x_l‖² ≤ (1 + 3l/2)·d.

    Args:
        blocks: L, the number of blocks.
        ffn_ratio: width of the FFN over d.
        attention_sublayers: per block; 2 in the decoder of an encoder-decoder.

    Returns:
        low and high, each [blocks + 1].
    """
    applied = np.arange(blocks + 1, dtype=np.float64)
    v = ffn_gain(ffn_ratio)
    return 1 + v * applied, 1 + (attention_sublayers + v) * applied


def stream_second_moment_post(ffn_ratio: float = 1.0) -> float:
    """Return q of the Post-LN stream before a block's last norm: 1 + v in every block (Lemma 2, Post-LN).

    The skip path carries a normalized vector (q = 1), the FFN adds v; the paper's 3/2 at ffn_ratio = 1.
    """
    return 1 + ffn_gain(ffn_ratio)


def gradient_ratio_by_block(second_moment: npt.ArrayLike) -> Array:
    """‖∂L/∂W2‖ of each block over that of the first: √(q_1/q_l).

    The norm of the gradient of the FFN's second matrix times √q_l is one constant for all blocks, where q_l
    is the second moment of the stream just after the FFN is added: after block l for Pre-LN, before the
    block's last norm for Post-LN (flat there). It follows where each branch gains as much backward as
    forward: through the blocks above l in a Pre-LN stack, the energy of ∂L/∂x then grows by q_L/q_l, and
    the final norm divides it by q_L. For l = L it is the 1/√L of the paper's Theorem 1; the paper has no
    closed form for l < L.

    Holds in a stack with self-attention only. In the decoder of an encoder-decoder, cross-attention sends
    hardly any gradient back into the stream: with Post-LN the gradient decays from the last block to the
    first.

    Args:
        second_moment: q_l of the blocks in order, predicted or measured; positive [blocks].

    Returns:
        [blocks], 1 first.
    """
    q = np.asarray(second_moment, dtype=np.float64)
    ratio: Array = np.sqrt(q[0] / q)
    return ratio


def gradient_energy_growth_post(forward_gain: npt.ArrayLike, backward_gain: npt.ArrayLike) -> Array:
    """E‖∂L/∂x‖²/E‖∂L/∂x'‖² over a Post-LN sub-layer x' = LN(x + f(x)): (1 + b)/(1 + v).

    Not in the paper, whose appendix F has 1/(1 + v): the norm divides by 1 + v, and the branch sends back b beside the
    skip. With as much gain backward as forward, as `ffn_gain` has it, the gradient neither grows nor decays.

    Args:
        forward_gain: v, E‖f(x)‖²/E‖x‖².
        backward_gain: b, the energy that the branch sends back over what it gets.
    """
    growth: Array = (1 + np.asarray(backward_gain, dtype=np.float64)) / (1 + np.asarray(forward_gain))
    return growth


def gradient_energy_growth_pre(second_moment: npt.ArrayLike, backward_gain: npt.ArrayLike) -> Array:
    """E‖∂L/∂x‖²/E‖∂L/∂x'‖² over a Pre-LN sub-layer x' = x + f(LN(x)): 1 + b/q; the stream grows by v to q + v.

    Args:
        second_moment: q of x.
        backward_gain: b, as for `gradient_energy_growth_post`.
    """
    growth: Array = 1 + np.asarray(backward_gain, dtype=np.float64) / np.asarray(second_moment)
    return growth


def extended_decay_post(blocks: int) -> Array:
    """(2/3)^((L−l)/2) for l = 1..L: what ‖∂L/∂W2_l‖ of Post-LN holds by appendix F, which leaves out the branch's b.

    Exactly, each block multiplies the energy by `gradient_energy_growth_post`: in the paper's own setting that is 1 for
    the FFN, and the gradient of an encoder is flat.

    Returns:
        [blocks], 1 last.
    """
    decay: Array = (2 / 3) ** (np.arange(blocks - 1, -1, -1) / 2)
    return decay


def last_gradient_ratio(last_second_moment: float, ffn_ratio: float = 1.0) -> float:
    """‖∂L/∂W2‖ of the last block of Pre-LN over that of Post-LN: √((1 + v)/q_L), √(1.5/q_L) at ffn_ratio = 1.

    `gradient_ratio_by_block` across the two: the gradient times √q is one constant for both.

    Args:
        last_second_moment: q_L of the Pre-LN stream.
        ffn_ratio: width of the FFN over d.
    """
    return float(np.sqrt(stream_second_moment_post(ffn_ratio) / last_second_moment))
