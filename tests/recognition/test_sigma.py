"""1/σ of a kind, wherever its eps stands, and what σ's derivative is, against float64 numpy."""

import numpy as np
import pytest
import torch

from gradlens.recognition.kinds import NormKind

H, EPS = 6, 0.3
SIGMA = {
    "root": (NormKind(name="n"), lambda x: np.sqrt(x.var(1) + EPS)),
    "root, over H − 1": (NormKind(name="n", unbiased=True, eps_at="root"), lambda x: np.sqrt(x.var(1, ddof=1) + EPS)),
    "beside, over H − 1": (NormKind(name="n", unbiased=True), lambda x: x.std(1, ddof=1) + EPS),
    "beside": (NormKind(name="n", eps_at="sigma"), lambda x: x.std(1) + EPS),
    "least norm": (
        NormKind(name="n", eps_at="norm"),
        lambda x: np.maximum(np.linalg.norm(x - x.mean(1, keepdims=True), axis=1), EPS) / np.sqrt(H),
    ),
    "none": (NormKind(name="n", scaled=False), lambda x: np.ones(len(x))),
}


def vectors() -> np.ndarray:
    """[5, H] of several lengths, the last of them shorter than eps."""
    generator = np.random.default_rng(0)
    return generator.normal(size=(5, H)) * np.array([[3.0], [1.0], [0.5], [0.3], [0.01]]) + 0.7


@pytest.mark.parametrize("case", SIGMA)
def test_inv_sigma_is_one_over_what_the_layer_divides_by(case: str) -> None:
    kind, sigma = SIGMA[case]
    x = vectors()
    norm = torch.from_numpy(np.linalg.norm(x - x.mean(1, keepdims=True), axis=1))
    np.testing.assert_allclose(kind.inv_sigma(norm, H, EPS), 1 / sigma(x), rtol=1e-10)


@pytest.mark.parametrize("case", SIGMA)
def test_slope_is_the_derivative_of_sigma_by_the_norm(case: str) -> None:
    kind, _ = SIGMA[case]
    norm = torch.tensor([4.0, 1.0, 0.5, 0.1], dtype=torch.float64, requires_grad=True)
    sigma = 1 / kind.inv_sigma(norm, H, EPS)
    (expected,) = (
        torch.autograd.grad(sigma.sum(), norm, allow_unused=True, materialize_grads=True)
        if (sigma.requires_grad)
        else (torch.zeros_like(norm),)
    )
    np.testing.assert_allclose(kind.slope(norm.detach(), H, EPS), expected, rtol=1e-9, atol=1e-15)
