"""Amplification: how much a small random change of the weights changes the output (Liu et al. 2020, 2004.08249)."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from scipy.stats import t as student
from torch import nn

from gradlens.errors import GradlensError, ModelError
from gradlens.probes.calls import first_calls, stacks
from gradlens.probes.reading import Reading


def amplification(
    model: nn.Module,
    batch: Any,
    *,
    moved: Iterable[str] | None = None,
    scale: float = 0.01,
    draws: int = 5,
    site: str = "",
    seed: int = 0,
) -> Reading:
    """Measure mean (F(W + e·dW) − F(W))² / e², over the entries of the output and over draws of dW.

    dW is Gaussian, in each trainable matrix with the standard deviation of its own entries; gains and biases stay, and
    so do matrices of one value, such as zeros.
    Noise in the blocks alone grows in proportion to their number N with Post-LN, as log N with Pre-LN and Admin; that
    in embedding and head adds what does not depend on N.

    Args:
        model: never changed.
        batch: what its forward takes.
        moved: paths of modules whose matrices are changed; by default the blocks (``stacks``), and the whole model
            where it has none.
        scale: e.
        draws: how many, at least 2.
        site: path of the module whose output is F, such as the last block; empty for the model's.
        seed: of the noise and of dropout, the same in every evaluation.

    Returns:
        The mean, in output²; its interval is that of 95 % over the draws (Student's t).

    Raises:
        GradlensError: fewer than two draws.
        ModelError: there is no trainable matrix with a spread, or see ``first_calls``.
    """
    if draws < 2:
        raise GradlensError(f"An interval over draws needs at least 2; got {draws}.")
    within = (stacks(model) or [""]) if moved is None else list(moved)
    inside = tuple(f"{path}." if path else "" for path in within)
    trainable = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad and p.ndim > 1}
    matrices = {name: matrix for name, matrix in trainable.items() if name.startswith(inside)}
    spreads = {name: float(matrix.double().std(correction=0)) for name, matrix in matrices.items()}
    constant = [name for name, spread in spreads.items() if spread == 0]
    if len(constant) == len(matrices):
        raise ModelError(
            "Amplification needs a trainable matrix whose entries differ, for the noise is in proportion to their "
            f"spread; {', '.join(filter(None, within[:3])) or type(model).__name__} "
            f"{'has only constant ones' if matrices else 'has none'}. Set requires_grad, train a few steps, or name "
            "other modules."
        )
    generator = torch.Generator().manual_seed(seed)
    unmoved = first_calls(model, batch, [site], seed=seed)[0].output.double()
    values = []
    for _ in range(draws):
        changed = {
            name: w + scale * spreads[name] * torch.randn(w.shape, generator=generator).to(w)
            for name, w in matrices.items()
        }
        output = first_calls(model, batch, [site], parameters=changed, seed=seed)[0].output.double()
        values.append(float((output - unmoved).square().mean()) / scale**2)
    mean = float(np.mean(values))
    notes = [f"noise of {scale:g} of each matrix' own standard deviation, {draws} draws"]
    notes += ["in all matrices of the model, for it has no blocks"] if moved is None and within == [""] else []
    if constant:
        more = f" and {len(constant) - 3} more" if len(constant) > 3 else ""
        notes.append(f"no noise in matrices of one value: {', '.join(constant[:3])}{more}")
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
        notes=tuple(notes),
    )


def readings(model: nn.Module, batch: Any, loss_fn: Any, seed: int) -> list[Reading]:
    """Return the amplification of the blocks, or of a model without; the probe of ``PROBES``."""
    return [amplification(model, batch, seed=seed)]
