"""Networks small enough for a dense Hessian, and what is compared with it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gradlens.batches import run_model
from gradlens.lab.models.transformer import Transformer


class Quadratic(nn.Module):
    """½ Σ λ_i w_i²: its output is its loss, its curvature is known."""

    def __init__(self, *curvatures: float, start: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("curvatures", torch.tensor(curvatures))
        self.w = nn.Parameter(torch.full((len(curvatures),), start))

    def forward(self, x: Tensor) -> Tensor:
        return (self.curvatures * self.w.square()).sum() / 2


def own(output: Tensor, batch: Any) -> Tensor:
    return output


def squares(output: Tensor, batch: Any) -> Tensor:
    return output.square().mean()


def cross_entropy(output: Tensor, batch: Tensor) -> Tensor:
    return nn.functional.cross_entropy(output.flatten(0, 1), batch.roll(1, -1).flatten())


def mlp(dropout: float = 0.0) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.LayerNorm(6), nn.Dropout(dropout), nn.Linear(6, 3))
    return net, 3 * torch.randn(5, 4)


def transformer(arrangement: str = "post-ln") -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    net = Transformer(arrangement, vocab=4, width=4, blocks=2, heads=2, ffn=4, max_length=6, activation="gelu")
    return net, torch.randint(4, (3, 6))


def dense_hessian(model: nn.Module, batch: Any, loss_fn: Callable[[Any, Any], Tensor]) -> Tensor:
    """The Hessian [n, n] by one backward pass a row, without anything of the probes'."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        loss = loss_fn(run_model(model, batch), batch)
        gradients = torch.autograd.grad(loss, parameters, create_graph=True)
        flat = torch.cat([g.reshape(-1) for g in gradients])
        rows = [torch.autograd.grad(g, parameters, retain_graph=True, materialize_grads=True) for g in flat]
    return torch.stack([torch.cat([part.reshape(-1) for part in row]) for row in rows])
