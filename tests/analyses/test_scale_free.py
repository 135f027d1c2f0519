"""Σ g·w is 0 of what is normalized, and tells which parameters are scale-free; GL404 lets these grow."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from analyses.scale_free.free import free
from gradlens.recording import Recording
from tests.analyses.parameters.test_what_steps_change import judged, sgd, train
from tests.analyses.trained import points

#: As large as the variance.
LARGE = 0.5
BEFORE_NORMS = {"0.weight", "3.weight", "6.weight"}


def network(eps: float = 1e-12, bias: bool = False) -> nn.Sequential:
    """Matrices in front of norms without gains, and a head behind."""
    norm = {"eps": eps, "elementwise_affine": False}
    layers = [(nn.Linear(16, 16, bias=bias), nn.LayerNorm(16, **norm), nn.ReLU()) for _ in range(3)]
    return nn.Sequential(*(layer for three in layers for layer in three), nn.Linear(16, 5))


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("eps", [0.0, LARGE])
def test_in_front_of_a_norm_the_product_is_what_eps_leaves_of_it(eps: float) -> None:
    """In float64: y = x s / √(s² σ² + eps) by the logarithm of s is y eps / (σ² + eps)."""
    model = network(eps).double()
    seen: dict[str, Tensor] = {}

    def keep(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        output.retain_grad()
        seen.update(x=args[0], y=output)

    model[1].register_forward_hook(keep)
    x, labels = points()(0)
    nn.functional.cross_entropy(model(x.double()), labels).backward()
    weight, y = model[0].weight, seen["y"]
    assert isinstance(weight, Tensor)
    assert weight.grad is not None
    assert y.grad is not None
    variance = seen["x"].var(dim=-1, unbiased=False, keepdim=True)
    size = (weight.grad.norm() * weight.norm()).item()
    expected = (y.grad * y * eps / (variance + eps)).sum().item() / size
    assert (weight.grad * weight).sum().item() / size == pytest.approx(expected, rel=1e-9, abs=1e-14)
    assert (abs(expected) > 1e-3) == bool(eps)


def scale_free(model: nn.Module) -> set[str]:
    found = free(train(model, points(), sgd(model, 0.0), steps=6).params)
    return set(found.index[found["free"]])


def test_the_recorded_products_tell_which_parameters_are_scale_free() -> None:
    assert scale_free(network()) == BEFORE_NORMS
    assert not scale_free(network(LARGE)) & BEFORE_NORMS
    assert not scale_free(network(bias=True)) & BEFORE_NORMS


def test_without_decay_scale_free_matrices_grow_by_the_square_of_each_step() -> None:
    model = network()
    params = train(model, points(), sgd(model, 0.5), steps=20).params
    own = params[params["name"] == "3.weight"].sort_values("step")
    squares, gradients = own["weight_norm"].to_numpy() ** 2, own["grad_norm"].to_numpy() ** 2
    np.testing.assert_allclose(np.diff(squares), 0.25 * gradients[:-1], rtol=1e-3)


@pytest.mark.parametrize(("gain", "free", "status"), [(15, True, "pass"), (100, True, "warn"), (15, False, "warn")])
def test_scale_free_matrices_may_grow_as_far_as_steps_at_right_angles_make_them(
    gain: float, free: bool, status: str
) -> None:
    """To four times their size in a hundred steps; ``gain`` is that of the square over those of the steps."""
    ratio = np.sqrt((4**0.02 - 1) / gain)
    params = pd.DataFrame(
        {"step": step, "name": f"{at}.weight", "numel": 100, "grad_norm": 1.0, "weight_norm": 4 ** (step / 100),
         "update_ratio": ratio, "grad_weight": 0.0 if free else 0.1 * 4 ** (step / 100)}
        for step in range(120) for at in range(4)
    )  # fmt: skip
    steps = pd.DataFrame({"step": range(120), "loss": 1.0})
    run = Recording.from_tables({"kind": "attached", "label": "run"}, steps=steps, params=params)
    found = judged(run)["GL404"]
    assert (found.status, "grows to" in found.claim) == (status, status == "warn"), found.claim
