"""Networks over graphs, states, coordinates and columns, as a user would write them. Options are what goes wrong."""

import copy
import itertools
import math

import torch
from torch import Tensor, nn

from tests.calibration.blocks import Wrong
from tests.calibration.unseen.data import CATEGORIES, COLUMNS, KINDS_OF_NODE


class MessageBlock(nn.Module):
    """What the neighbours say, as their mean, and an MLP of it and of oneself."""

    def __init__(self, width: int, mean: bool, skip: bool, twice: bool) -> None:
        super().__init__()
        self.norm = nn.Sequential(nn.LayerNorm(width), nn.LayerNorm(width)) if twice else nn.LayerNorm(width)
        self.message = nn.Linear(width, width)
        self.update = nn.Sequential(nn.Linear(2 * width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))
        self.mean, self.skip = mean, skip

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        h = self.norm(x)
        heard = torch.zeros_like(h).index_add(0, edges[1], self.message(h)[edges[0]])
        if self.mean:
            heard = heard / torch.bincount(edges[1], minlength=len(h))[:, None]
        h = self.update(torch.cat([h, heard], -1))
        return x + h if self.skip else h


class GraphNet(nn.Module):
    """Classes of nodes from features [N, 8] and edges [2, E]."""

    def __init__(
        self, wrong: Wrong, width: int = 48, blocks: int = 4, mean: bool = True, no_skip: int = -1, twice: int = -1,
        final: bool = True, listed: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.encode = nn.Linear(8, width)
        made = [MessageBlock(width, mean, i != no_skip, i == twice) for i in range(blocks)]
        self.convs = made if listed else nn.ModuleList(made)
        self.norm = nn.LayerNorm(width) if final else nn.Identity()
        self.head = nn.Linear(width, KINDS_OF_NODE)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        x = self.encode(x)
        for conv in self.convs:
            x = conv(x, edges)
        return self.head(self.norm(x))


class DQN(nn.Module):
    """Values of three actions, and those of the next state by a copy that follows every tenth step."""

    def __init__(self, wrong: Wrong, width: int = 64, every: int = 10) -> None:
        super().__init__()
        self.policy = nn.Sequential(
            nn.Linear(4, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 3)
        )
        self.target = copy.deepcopy(self.policy).requires_grad_(False)
        self.every, self.calls = every, 0

    def forward(self, state: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
        if self.calls % self.every == 0:
            self.target.load_state_dict(self.policy.state_dict())
        self.calls += 1
        with torch.no_grad():
            following = self.target(after)
        return self.policy(state), following


class PINN(nn.Module):
    """Solves u'' = -π² sin(πx), u(-1) = u(1) = 0, with sines: residual [N, 1] and boundary [2, 1]."""

    def __init__(self, wrong: Wrong, width: int = 48, unit: float = 1.0, root: bool = False) -> None:
        super().__init__()
        self.unit, self.root = unit, root
        sizes = (2 if root else 1, width, width, width)
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.out = nn.Linear(width, 1)

    def u(self, x: Tensor) -> Tensor:
        h = torch.cat([x, x.abs().sqrt()], -1) if self.root else x
        for layer in self.hidden:
            h = torch.sin(layer(h))
        return self.out(h)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.detach().requires_grad_()
        u = self.u(x)
        (du,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        (ddu,) = torch.autograd.grad(du.sum(), x, create_graph=True)
        residual = ddu * self.unit**2 + math.pi**2 * torch.sin(math.pi * x / self.unit)
        return residual, self.u(torch.tensor([[-self.unit], [self.unit]]).type_as(x))


class TabTransformer(nn.Module):
    """Categories through torch's own encoder, numbers through a norm, and an MLP: one logit."""

    def __init__(self, wrong: Wrong, width: int = 24, relu: bool = False, cut: bool = False) -> None:
        super().__init__()
        self.cut = cut
        self.embed = nn.Embedding(CATEGORIES * COLUMNS, width)
        self.column = nn.Parameter(0.02 * torch.randn(COLUMNS, width))
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True)
        self.transformer = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(6)
        last = (nn.ReLU(),) if relu else ()
        self.mlp = nn.Sequential(nn.Linear(COLUMNS * width + 6, 64), nn.ReLU(), nn.Linear(64, 1), *last)

    def forward(self, categories: Tensor, numbers: Tensor) -> Tensor:
        x = self.embed(categories + CATEGORIES * torch.arange(COLUMNS)) + self.column
        x = self.transformer(x.detach() if self.cut else x).flatten(1)
        return self.mlp(torch.cat([x, self.norm(numbers)], -1))[:, 0]
