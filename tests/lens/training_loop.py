"""A plain training loop of the stack of blocks in ``networks``."""

import torch

import gradlens
from tests.lens.networks import WIDTH


def train(model, steps=4, lens=None, optimizer=None, **kwargs):
    """A plain training loop; returns the losses."""
    generator = torch.Generator().manual_seed(1)
    optimizer = optimizer or torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(torch.randn(4, 5, WIDTH, generator=generator)).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if lens is not None:
            lens.step(loss=loss, **kwargs)
    return losses


def at_once(model: torch.nn.Module) -> gradlens.Recording:
    with gradlens.attach(model) as lens:
        train(model, steps=1, lens=lens)
    return lens.recording
