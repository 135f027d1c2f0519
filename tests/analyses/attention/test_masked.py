"""Masks of a finite number: what they hide is hidden, and attention that has nothing left to choose from is named."""

import math

import pytest
import torch
from torch import Tensor, nn

import gradlens
from analyses.attention import ANALYSIS
from gradlens.recording import Recording
from tests.analyses.trained import CLASSES

TOKENS, WIDTH = 6, 8


class Masked(nn.Module):
    """Attention by hand, with -1e9 in the place of what is hidden from each query.

    Args:
        hidden: [TOKENS, TOKENS], or a row of it for all queries.
        filled: by masked_fill in place of where.
    """

    def __init__(self, hidden: Tensor, filled: bool = False) -> None:
        super().__init__()
        self.qkv, self.head, self.hidden, self.filled = (
            nn.Linear(WIDTH, 3 * WIDTH),
            nn.Linear(WIDTH, CLASSES),
            hidden,
            filled,
        )

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        scores = q @ k.transpose(-1, -2) / math.sqrt(WIDTH)
        hidden = self.hidden.expand(scores.shape)
        scores = scores.masked_fill(hidden, -1e9) if self.filled else torch.where(hidden, -1e9, scores)
        y: Tensor = self.head((scores.softmax(-1) @ v).mean(1))
        return y


def recorded(model: nn.Module, steps: int = 12) -> Recording:
    with gradlens.attach(model, watch=("norms", "params", "attention"), label="run") as lens:
        for step in range(steps):
            model.zero_grad()
            x = torch.randn(4, TOKENS, WIDTH, generator=torch.Generator().manual_seed(step))
            nn.functional.cross_entropy(model(x), torch.arange(4)).backward()
            lens.step()
    return lens.recording


@pytest.mark.parametrize("filled", [False, True])
@pytest.mark.parametrize("seen", [0, 1])
def test_a_mask_that_leaves_no_query_two_keys_is_named(seen: int, filled: bool) -> None:
    torch.manual_seed(0)
    recording = recorded(Masked(torch.arange(TOKENS) < TOKENS - seen, filled))
    (found,) = ANALYSIS.judge(ANALYSIS.compute([recording]))
    assert (found.code, found.status, found.sites) == ("GL902", "warn", ("",))
    assert "no query that was looked at sees two keys" in found.claim
    few = ANALYSIS.judge(ANALYSIS.compute([recorded(Masked(torch.ones(TOKENS, dtype=torch.bool)), steps=3)]))
    assert [one.status for one in few] == ["inconclusive"]


def test_a_row_all_of_whose_keys_are_hidden_is_no_query() -> None:
    torch.manual_seed(0)
    hidden = torch.ones(TOKENS, TOKENS, dtype=torch.bool)
    hidden[:3, 1:5] = False  # three queries see four keys each, the others none
    model = Masked(hidden)
    rows = recorded(model, steps=1).attention
    assert (rows["sampled"].sum(), rows["queries"].sum(), rows["keys"].unique().tolist()) == (24, 12, [4.0])
    x = torch.randn(4, TOKENS, WIDTH, generator=torch.Generator().manual_seed(0)).double()
    q, k, _ = model.double().qkv(x).chunk(3, -1)
    p = (q.detach()[:, :3] @ k.detach()[:, 1:5].transpose(-1, -2) / math.sqrt(WIDTH)).softmax(-1)
    entropy = float(-(p * p.log()).sum(-1).mean())
    assert rows["entropy"].mean() == pytest.approx(entropy, rel=1e-5)
    assert {one.status for one in ANALYSIS.judge(ANALYSIS.compute([recorded(model.float())]))} <= {
        "pass",
        "not applicable",
    }
