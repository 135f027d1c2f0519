"""Pairs of real trainings that share everything up to a step."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import gradlens
from analyses.parting import ANALYSIS
from gradlens.analysis import Comparison, Finding, compare
from gradlens.recording import Recording
from tests.analyses.trained import sequences, transformer

STEPS = 24


class Wrapped(nn.Module):
    """As DataParallel's name their weights."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.module(x)


def train(
    label: str,
    *,
    build: Callable[[], nn.Module] = transformer,
    at: Callable[[int, nn.Module, torch.optim.Optimizer], None] | None = None,
    seed: int = 0,
    first_batch: int = 0,
    every: int = 1,
    updates: bool = False,
    out: Path | None = None,
) -> Recording:
    """Train with SGD and record.

    Args:
        label: of the recording.
        build: makes the model, under the seed.
        at: called with step, model and optimizer before each step.
        seed: of the weights.
        first_batch: the number of the first step's batch.
        every: the cadence.
        updates: whether they are watched.
        out: the run folder.
    """
    torch.manual_seed(seed)
    model = build()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    watch = ("norms", "blocks", "params", *["updates"] * updates)
    with gradlens.attach(model, out=out, watch=watch, every=every, optimizer=optimizer, label=label) as lens:
        for step in range(STEPS):
            if at is not None:
                at(step, model, optimizer)
            x, y = sequences()(step + first_batch)
            loss = nn.functional.cross_entropy(model(x).flatten(0, -2), y.flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            lens.step(loss=loss)
    return lens.recording


def asked(*runs: Recording, **more: Any) -> Comparison:
    """Ask the question of recordings."""
    return compare(runs, [ANALYSIS], **more)


def judged(*runs: Recording, **more: Any) -> dict[str, Finding]:
    """Return what is found, by code."""
    return {finding.code: finding for finding in asked(*runs, **more).findings}
