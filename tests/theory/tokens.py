"""Tokens whose products are exactly those of a table, and the products of tokens by class of pairs."""

import numpy as np
import torch
from torch import Tensor

from gradlens.theory.pairs import Pairs


def classes(pairs: Pairs) -> np.ndarray:
    """Return the column of a table for each pair of positions [length, length]."""
    of = np.repeat(np.arange(pairs.groups), pairs.sizes.astype(int))
    column = {
        (a, b): pairs.groups + index
        for index, (a, b) in enumerate(zip(pairs.left[pairs.groups :], pairs.right[pairs.groups :], strict=True))
    }
    found = np.array([[column[min(a, b), max(a, b)] for b in of] for a in of])
    np.fill_diagonal(found, of)
    return found


def gram(pairs: Pairs, products: np.ndarray) -> np.ndarray:
    """Return the table's product of each pair of tokens [sequences · length, sequences · length]."""
    within, across = products[0][classes(pairs)], products[1][classes(pairs)]
    same = np.eye(pairs.sequences)
    whole: np.ndarray = np.kron(same, within) + np.kron(1 - same, across)
    return whole


def drawn(pairs: Pairs, products: np.ndarray, width: int, generator: torch.Generator) -> Tensor:
    """Draw tokens [sequences, length, width] whose mean products over features are exactly the table's."""
    root = torch.linalg.cholesky(torch.tensor(gram(pairs, products)))
    noise = torch.randn(width, len(root), generator=generator, dtype=torch.float64)
    orthonormal = torch.linalg.qr(noise - noise.mean(0)).Q
    return (root @ orthonormal.T * width**0.5).view(pairs.sequences, -1, width)


def table(pairs: Pairs, tokens: Tensor) -> np.ndarray:
    """Return the mean products of tokens [sequences, length, width] by class [2, classes]; NaN without a pair."""
    flat = tokens.detach().flatten(0, 1)
    products = (flat @ flat.T / flat.shape[-1]).numpy()
    same = np.kron(np.eye(pairs.sequences), np.ones((tokens.shape[1], tokens.shape[1])))
    column = np.tile(classes(pairs), (pairs.sequences, pairs.sequences))
    chosen = [[(same == inside) & (column == index) for index in range(pairs.count.shape[1])] for inside in (1, 0)]
    return np.array([[products[mask].mean() if mask.any() else np.nan for mask in row] for row in chosen])
