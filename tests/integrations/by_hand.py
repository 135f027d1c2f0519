"""A small network, its data, and the comparison of a trainer's recording with that of the loop written by hand."""

import pandas as pd
import torch
from torch import Tensor, nn

import gradlens
from gradlens.recording.schema import TABLES

WIDTH, CLASSES, BATCH = 16, 4, 8


class Net(nn.Module):
    """Two residual blocks, Pre-LN, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, CLASSES)
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(3))
        self.branches = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for norm, branch in zip(self.norms, self.branches, strict=False):
            x = x + branch(norm(x)).relu()
        return self.head(self.norms[-1](x))


def batches(count: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(BATCH, WIDTH, generator=generator), torch.randint(0, CLASSES, (BATCH,), generator=generator))
        for _ in range(count)
    ]


def assert_same(got: gradlens.Recording, expected: gradlens.Recording, **tolerance: float) -> None:
    """Every column of every table, but for wall time; bit by bit where no tolerance is given."""
    exact = {} if tolerance else {"check_exact": True}
    assert len(expected.steps) > 1
    assert len(expected.norms)
    for table in TABLES:
        one, other = (r.table(table).drop(columns="seconds", errors="ignore") for r in (got, expected))
        pd.testing.assert_frame_equal(one, other, obj=table, **exact, **tolerance)
    assert got.meta["audit"]["problems"] == expected.meta["audit"]["problems"]
