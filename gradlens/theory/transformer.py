"""A whole Transformer at initialization, predicted: the stream's second moment and every matrix's gradient, by block.

The components of ``gradlens.theory.components`` are put together as an arrangement asks. What is supposed: Xavier
normal matrices, gains 1, biases 0; embeddings N(0, 1/2) for token and position; an untied head N(0, 1/d); labels that
say nothing of the input; a width at which a token's second moment is nearly its mean (256 and more; what a finite width
scatters is O(1/√d)).
"""

from dataclasses import replace

import numpy as np

from gradlens.theory.arrangements import ARRANGEMENTS
from gradlens.theory.components import effective_sharpness
from gradlens.theory.network import Network
from gradlens.theory.pairs import Array
from gradlens.theory.stack import Predicted, Stack


def predict(network: Network) -> dict[str, Predicted]:
    """Predict a network at initialization; 64 blocks of one stack take some 10 ms.

    Returns:
        Path of the stack (empty for a single one, else ``encoder`` and ``decoder``) to what is predicted. Norms of
        gradients are roots of the mean energy over random weights.
    """
    stacks = _forward(network)
    last = stacks[-1]
    last.tape.send(last.output, _at_head(network, last))
    for stack in reversed(stacks):
        stack.tape.run_backward()
    return {stack.path: stack.predicted() for stack in stacks}


def _forward(network: Network) -> list[Stack]:
    skips: list[list[float]] = [[], []]
    if ARRANGEMENTS[network.arrangement].profiled:
        profiled = _forward(_profiled(network))
        skips = [_profiled_skips(stack.branch_moments) for stack in profiled]
    if network.kind != "encoder-decoder":
        return [Stack(network, "", skips=skips[0])]
    encoder = Stack(network, "encoder", skips=skips[0])
    return [encoder, Stack(network, "decoder", memory=encoder, skips=skips[1])]


def _profiled(network: Network) -> Network:
    """Return what Admin's skips are found on: Post-LN without dropout, on 8 sequences of 64 uniform tokens.

    The zoo draws no padding, which is one token of V, and shorter sequences where a model takes fewer than 64 tokens.
    """
    once = (1 / network.outputs, 1 / network.outputs)
    profiled = replace(network, sequences=8, length=64, source_length=64, coincidence=once, source_coincidence=once)
    return replace(profiled, arrangement="post-ln", dropout=0.0)


def _profiled_skips(branch_moments: Array) -> list[float]:
    """Return Admin's ω of each sub-layer: √(1 + Σ of the moments of the branches before it) (Liu et al. 2020)."""
    before = np.cumsum([0.0, *branch_moments[:-1]])
    return [float(skip) for skip in np.sqrt(1 + before)]


def _at_head(network: Network, stack: Stack) -> Array:
    """Return the products of the gradients at the head's inputs x: softmax less labels, through the head.

    The loss is the mean over tokens. Predicted probabilities of tokens i and k agree with E Σᵥ pᵢᵥpₖᵥ =
    exp(q)/(exp(q) + V − 1), q = ζ xᵢ·xₖ/d, the covariance of their logits but for ``effective_sharpness``.
    """
    x, labels, share = stack.output.products, network.outputs, 1 - network.smoothing
    zeta = effective_sharpness(stack.pairs.own(x), np.array(float(labels)))
    alike = np.exp(np.sqrt(zeta[stack.pairs.left] * zeta[stack.pairs.right]) * x)
    agree = alike / (alike + labels - 1)
    same_label = stack.pairs.table(1.0, network.label_coincidence[1], network.label_coincidence)
    products = agree - 2 / labels + share**2 * same_label + (1 - share**2) / labels
    if not ARRANGEMENTS[network.arrangement].normalized_output:
        products += x / network.width  # the mean of the head's rows under p lies along x, which a norm would remove
    tokens = network.sequences * network.length
    at_head: Array = products / (network.width * tokens**2)
    return at_head
