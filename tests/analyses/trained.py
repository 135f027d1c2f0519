"""Small trainings that are recorded: healthy networks, and the same with a fault planted."""

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import gradlens
from analyses.norm_decomposition import ANALYSIS as NORMS
from analyses.parameters import ANALYSIS as PARAMETERS
from analyses.training_curves import ANALYSIS as CURVES
from gradlens.analysis import Finding
from gradlens.lab.models.transformer import Transformer
from gradlens.recording import Recording

VOCAB, LENGTH, CLASSES = 17, 12, 5
#: The codes that tell whether a run is sick.
CODES = ("GL204", "GL306", "GL401", "GL402", "GL403", "GL404", "GL405", "GL406", "GL407")
Batches = Callable[[int], tuple[Tensor, Tensor]]


def mlp(eps: float = 1e-5) -> nn.Module:
    hidden = [(nn.Linear(16, 32), nn.LayerNorm(32, eps=eps), nn.ReLU()), (nn.Linear(32, 32), nn.LayerNorm(32, eps=eps))]
    return nn.Sequential(*itertools.chain(*hidden), nn.ReLU(), nn.Linear(32, CLASSES))


def cnn() -> nn.Module:
    """Convolutions with biases in front of BatchNorm, whose gradient is 0 in exact arithmetic."""
    body = (nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)), *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES)
    )


def transformer(variant: str = "pre-ln") -> nn.Module:
    return Transformer(variant, vocab=VOCAB, width=32, blocks=3, heads=2, max_length=LENGTH)


def points(width: int = 16, batch: int = 32, noise: float = 0.1) -> Batches:
    """Classes that a linear map of the input gives, but for some noise; each step other points."""
    weight = torch.randn(width, CLASSES, generator=torch.Generator().manual_seed(99))

    def of(step: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(batch, width, generator=generator)
        return x, (x @ weight + noise * torch.randn(batch, CLASSES, generator=generator)).argmax(1)

    return of


def images(batch: int = 32) -> Batches:
    """Stripes of one of several widths, at any place, in noise."""

    def of(step: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(step)
        y = torch.randint(CLASSES, (batch,), generator=generator)
        place = torch.arange(8) + 8 * torch.rand(batch, 1, generator=generator)
        stripes = torch.sin(place * (0.5 + 0.6 * y[:, None]))[:, None, :].expand(batch, 8, 8)
        return (stripes + 0.3 * torch.randn(batch, 8, 8, generator=generator)).flatten(1), y

    return of


def sequences(batch: int = 8) -> Batches:
    """Tokens of which each is the one before plus 3, with some that are not."""

    def of(step: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(step)
        first = torch.randint(VOCAB, (batch, 1), generator=generator)
        tokens = (first + 3 * torch.arange(LENGTH + 1)) % VOCAB
        odd = torch.rand(tokens.shape, generator=generator) < 0.1
        tokens = torch.where(odd, torch.randint(VOCAB, tokens.shape, generator=generator), tokens)
        return tokens[:, :-1], tokens[:, 1:]

    return of


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits.flatten(0, -2), labels.flatten())


def train(
    model: nn.Module,
    batches: Batches,
    optimizer: str = "Adam",
    lr: float = 1e-2,
    *,
    steps: int = 60,
    clip: float | None = None,
    sign: float = 1.0,
    updates: bool = True,
    loss_fn: Callable[[Tensor, Tensor], Tensor] | None = None,
    **settings: Any,
) -> Recording:
    """Train, with cross-entropy unless another loss is given, and record every step.

    Args:
        model: from batch to logits.
        batches: of a step.
        optimizer: name in ``torch.optim``.
        lr: its rate.
        steps: how many.
        clip: largest norm of the whole gradient.
        sign: of the loss that is minimized; the loss itself is recorded.
        updates: whether to watch them.
        loss_fn: from output and target.
        settings: further ones of the optimizer.
    """
    chosen = getattr(torch.optim, optimizer)(model.parameters(), lr=lr, **settings)
    watch = ("norms", "blocks", "params", *["updates"] * updates)
    with gradlens.attach(model, watch=watch, optimizer=chosen, label="run") as lens:
        for step in range(steps):
            x, y = batches(step)
            loss = (loss_fn or _cross_entropy)(model(x), y)
            chosen.zero_grad()
            (sign * loss).backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            chosen.step()
            lens.step(loss=loss)
    return lens.recording


def judged(recording: Recording) -> dict[str, Finding]:
    """What is found of one run, by code; the codes are of this page alone."""
    found = [f for analysis in (CURVES, PARAMETERS, NORMS) for f in analysis.judge(analysis.compute([recording]))]
    return {finding.code: finding for finding in found if finding.code in CODES}
