"""Xu et al. 2019 at toy scale: whose derivative it is that training needs, that of the mean or that of the variance.

An 8-block Transformer, width 64, learns a Markov chain of order 2 over 16 symbols in 200 steps of Adam without
warm-up, from matrices as their code's ``--init-method km`` has them. A run's loss is the mean of its last 20 steps,
a variant's the mean of its runs. Takes minutes, so it runs only where it is asked for:

    GRADLENS_SLOW=1 python -m pytest tests/lab/training/test_xu2019_toy.py -s
"""

import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gradlens.lab.models.transformer import Transformer

pytestmark = pytest.mark.skipif(
    "GRADLENS_SLOW" not in os.environ, reason="20 training runs, some minutes: set GRADLENS_SLOW=1 to run it"
)
SYMBOLS, BATCH, LENGTH, STEPS, LAST, SEEDS = 16, 16, 24, 200, 20, (0, 1)


def chain(generator: torch.Generator) -> Tensor:
    """P(next | two before): softmax of logits N(0, 9), [16, 16, 16]."""
    return (3 * torch.randn(SYMBOLS, SYMBOLS, SYMBOLS, generator=generator)).softmax(-1)


def draw(transitions: Tensor, generator: torch.Generator) -> Tensor:
    """A batch of the chain, [16, 24]."""
    tokens = torch.randint(SYMBOLS, (BATCH, 2), generator=generator)
    for _ in range(LENGTH - 2):
        following = torch.multinomial(transitions[tokens[:, -2], tokens[:, -1]], 1, generator=generator)
        tokens = torch.cat([tokens, following], 1)
    return tokens


def final_loss(variant: str, seed: int) -> float:
    data = torch.Generator().manual_seed(1000 + seed)
    transitions = chain(data)
    torch.manual_seed(seed)
    model = Transformer(variant, vocab=SYMBOLS, width=64, blocks=8, heads=4, ffn=256, max_length=LENGTH, init="torch")
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, betas=(0.9, 0.98))
    losses = []
    for _ in range(STEPS):
        tokens = draw(transitions, data)
        loss = F.cross_entropy(model(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return float(np.mean(losses[-LAST:]))


@pytest.fixture(scope="module", params=["pre-ln", "post-ln"])
def loss(request: pytest.FixtureRequest) -> dict[str, float]:
    """Norm to the mean final loss over the seeds; without a norm both arrangements are the same network."""
    norms = ("layernorm-simple", "detachnorm", "detachnorm-mean", "detachnorm-variance", "none")
    runs = {n: [final_loss(f"{request.param}/{n}", seed) for seed in SEEDS] for n in norms}
    print(f"\n{request.param}: " + ", ".join(f"{n} {' / '.join(f'{v:.3f}' for v in runs[n])}" for n in norms))
    return {norm: float(np.mean(values)) for norm, values in runs.items()}


def test_without_both_derivatives_it_learns_worse(loss: dict[str, float]) -> None:
    assert loss["detachnorm"] - loss["layernorm-simple"] > 0.10


def test_all_of_that_comes_from_the_derivative_of_the_variance(loss: dict[str, float]) -> None:
    assert abs(loss["detachnorm-variance"] - loss["detachnorm"]) < 0.05


def test_and_none_from_the_derivative_of_the_mean(loss: dict[str, float]) -> None:
    assert abs(loss["detachnorm-mean"] - loss["layernorm-simple"]) < 0.05


def test_forward_normalization_alone_is_worse_than_no_norm(loss: dict[str, float]) -> None:
    assert loss["detachnorm"] > loss["none"]
