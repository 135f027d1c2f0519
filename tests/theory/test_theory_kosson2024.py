"""The equilibrium of weights that are free of scale, against torch's optimizers on gradients at right angles."""

import math

import pytest
import torch

from gradlens.theory.kosson2024 import Steps, adamw, sgd

SIZE, STEPS, LR, DECAY = 1024, 2000, 0.02, 0.1
CASES = {
    "sgd": (torch.optim.SGD, {}, sgd()),
    "momentum": (torch.optim.SGD, {"momentum": 0.9}, sgd(0.9)),
    "dampened": (torch.optim.SGD, {"momentum": 0.9, "dampening": 0.5}, sgd(0.9, 0.5)),
    "nesterov": (torch.optim.SGD, {"momentum": 0.8, "nesterov": True}, sgd(0.8, nesterov=True)),
    "adamw": (torch.optim.AdamW, {"betas": (0.9, 0.99)}, adamw((0.9, 0.99))),
}


@pytest.mark.parametrize("name", CASES)
def test_random_gradients_at_right_angles_come_to_the_equilibrium(name):
    kind, settings, steps = CASES[name]
    generator = torch.Generator().manual_seed(0)
    w = torch.nn.Parameter(torch.randn(SIZE, generator=generator, dtype=torch.float64) / 8)  # of about the right size
    optimizer = kind([w], lr=LR, weight_decay=DECAY, **settings)
    turned, ratios = [], []
    for _ in range(STEPS):
        noise = torch.randn(SIZE, generator=generator, dtype=torch.float64)
        before = w.detach().clone()
        # Of a loss without a scale the gradient is at right angles, and goes with one over the size.
        w.grad = (noise - before * (noise @ before) / (before @ before)) / before.norm()
        ratios.append(float(w.grad.norm() / before.norm()))
        optimizer.step()
        turned.append(float((w.detach() - before).norm() / before.norm()))
    late = slice(STEPS // 2, None)  # four times the steps to equilibrium and more
    rms = lambda values: math.sqrt(sum(v**2 for v in values) / len(values))  # noqa: E731
    assert rms(turned[late]) == pytest.approx(steps.rotation(LR, DECAY), rel=0.03)
    if not steps.scaled:
        assert rms(ratios[late]) == pytest.approx(steps.gradient(LR, DECAY), rel=0.03)


def test_the_numbers_of_the_papers():
    assert sgd().gradient(0.1, 5e-4) == pytest.approx(math.sqrt(2 * 5e-4 / 0.1))  # 2506.02285
    assert sgd(0.9).rotation(0.1, 5e-4) == pytest.approx(math.sqrt(2 * 0.1 * 5e-4 / 1.9))  # 2006.08419
    assert adamw().rotation(1e-3, 0.1) == pytest.approx(math.sqrt(2e-4 * 0.1 / 1.9))  # 2305.17212
    assert math.isnan(adamw().gradient(1e-3, 0.1))
    assert Steps(1.0, 1.0).relaxation(0.1, 0.01) == pytest.approx(0.002)
