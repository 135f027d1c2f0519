"""
A norm of one's own
===================

A class that normalizes is recognised by what it does, whatever it and its gain are called. Here is one that nobody knows: it
divides by the mean magnitude of its input's deviations instead of their standard deviation.
"""

import torch
from torch import nn

import gradlens


class MagnitudeNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x - x.mean(-1, keepdim=True)
        return self.scale * x / (x.abs().mean(-1, keepdim=True) + 1e-6)


class OurLayerNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x - x.mean(-1, keepdim=True)
        return self.scale * x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt()


model = nn.Sequential(
    nn.Linear(16, 64),
    OurLayerNorm(64),
    nn.ReLU(),
    nn.Linear(64, 64),
    MagnitudeNorm(64),
    nn.ReLU(),
    nn.Linear(64, 1),
)

with gradlens.attach(model) as lens:
    x = torch.randn(32, 16)
    (model(x) - x.sum(1, keepdim=True)).square().mean().backward()
    lens.step()

# %%
# The one is a LayerNorm, and has proved it by its first call: the output that its formula gives, and the gradient.

print(
    lens.recording.norms[["site", "recentering", "rescaling", "kept"]].to_string(
        index=False
    )
)

# %%
# The other is none. It is named, and nothing is recorded that would be wrong; telling the lens that it is one changes nothing.

print(lens.audit())
