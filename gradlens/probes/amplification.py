"""Amplification: how much a small random change of the weights changes the output (Liu et al. 2020, 2004.08249)."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from scipy.stats import t as student
from torch import nn

from gradlens.errors import GradlensError, ModelError
from gradlens.probes.calls import first_calls
from gradlens.probes.reading import Reading


def amplification(
    model: nn.Module,
    batch: Any,
    *,
    moved: Iterable[str] = ("",),
    scale: float = 0.01,
    draws: int = 5,
    site: str = "",
    seed: int = 0,
) -> Reading:
    """Measure mean (F(W + e·dW) − F(W))² / e², over the entries of the output and over draws of dW.

    dW is Gaussian, in each trainable matrix with the standard deviation of its own entries; gains and biases stay.
    Noise in the blocks alone grows in proportion to their number N with Post-LN, as log N with Pre-LN and Admin; that
    in embedding and head adds what does not depend on N.

    Args:
        model: never changed.
        batch: what its forward takes.
        moved: paths of modules whose matrices are changed, such as the blocks (``stacked``); empty for the model.
        scale: e.
        draws: how many, at least 2.
        site: path of the module whose output is F, such as the last block; empty for the model's.
        seed: of the noise and of dropout, the same in every evaluation.

    Returns:
        The mean, in output²; its interval is that of 95 % over the draws (Student's t).

    Raises:
        GradlensError: fewer than two draws.
        ModelError: there is no trainable matrix, or see ``first_calls``.
    """
    if draws < 2:
        raise GradlensError(f"An interval over draws needs at least 2; got {draws}.")
    inside = tuple(f"{path}." if path else "" for path in moved)
    trainable = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad and p.ndim > 1}
    matrices = {name: matrix for name, matrix in trainable.items() if name.startswith(inside)}
    if not matrices:
        raise ModelError("Amplification needs trainable matrices; the model has none. Set requires_grad on them.")
    generator = torch.Generator().manual_seed(seed)
    still = first_calls(model, batch, [site], seed=seed)[0].output.double()
    values = []
    for _ in range(draws):
        changed = {
            name: w + scale * w.std() * torch.randn(w.shape, generator=generator).to(w) for name, w in matrices.items()
        }
        output = first_calls(model, batch, [site], parameters=changed, seed=seed)[0].output.double()
        values.append(float((output - still).square().mean()) / scale**2)
    mean = float(np.mean(values))
    half = float(student.ppf(0.975, draws - 1)) * float(np.std(values, ddof=1)) / draws**0.5
    return Reading(
        probe="amplification",
        name="amplification",
        value=mean,
        low=mean - half,
        high=mean + half,
        unit="output²",
        site=site,
        forward=1 + draws,
        misleads="It is in units of the output: compare only outputs of one size, such as those of normalized streams.",
        notes=(f"noise of {scale:g} of each matrix' own standard deviation, {draws} draws",),
    )
