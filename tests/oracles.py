"""Independent oracles: float64 autograd on the normalization written out, with μ and σ detached one at a time.

Energy that a derivative removes = energy with that derivative cut, minus energy with it. Nothing here is
shared with the package.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Case:
    """A normalization over ``dims`` of a view: x [..] -> view -> (x - mean) / sqrt(var + eps) -> * gain + bias."""

    dims: tuple[int, ...]
    eps: float
    centered: bool = True
    gain: Tensor | None = None
    to_view: object = None

    def view(self, x: Tensor) -> Tensor:
        return self.to_view(x) if self.to_view else x


def normalized(x: Tensor, case: Case, *, detach_mean: bool = False, detach_scale: bool = False) -> Tensor:
    """x̂ of the viewed input, with the derivative of μ or of σ cut where asked."""
    mean = x.mean(case.dims, keepdim=True) if case.centered else torch.zeros_like(x[..., :1])
    centred_for_scale = x - mean if case.centered else x
    var = centred_for_scale.square().mean(case.dims, keepdim=True)
    scale = (var + case.eps).sqrt()
    mean = mean.detach() if detach_mean else mean
    scale = scale.detach() if detach_scale else scale
    return (x - mean) / scale


def expected_row(x: Tensor, grad_output: Tensor, case: Case) -> dict[str, float]:
    """Every public column of a ``norms`` row, by autograd in float64.

    Args:
        x: the norm's input.
        grad_output: dL/d(output), same shape.
        case: how it normalizes.
    """
    x = case.view(x.double()).detach()
    grad_output = case.view(grad_output.double())
    g = grad_output if case.gain is None else grad_output * case.gain.double()

    def back(**cut: bool) -> Tensor:
        leaf = x.clone().requires_grad_()
        normalized(leaf, case, **cut).backward(g)
        assert leaf.grad is not None
        return leaf.grad

    full = back()
    no_scale = back(detach_scale=True)
    neither = back(detach_scale=True, detach_mean=True)
    mean = x.mean(case.dims, keepdim=True) if case.centered else 0.0
    sigma = ((x - mean).square().mean(case.dims, keepdim=True) + case.eps).sqrt()

    def energy(a: Tensor) -> float:
        return float((a * sigma).square().sum())

    total = float(g.square().sum())
    detached = g / sigma
    return {
        "recentering": (energy(neither) - energy(no_scale)) / total if case.centered else 0.0,
        "rescaling": (energy(no_scale) - energy(full)) / total,
        "kept": energy(full) / total,
        "mean_share": float((g.mean(case.dims, keepdim=True).expand_as(g)).square().sum()) / total,
        "inv_sigma": float((1 / sigma).mean()),
        "grad_output_norm": float(grad_output.norm()),
        "grad_input_norm": float(full.norm()),
        "backward_gain": float(full.norm() / grad_output.norm()),
        "mean2_detached": float(detached.mean(case.dims).square().mean()),
        "var_detached": float(detached.var(case.dims, correction=0).mean()),
        "mean2_actual": float(full.mean(case.dims).square().mean()),
        "var_actual": float(full.var(case.dims, correction=0).mean()),
    }


SHARES = ("recentering", "rescaling", "kept", "mean_share")
MOMENTS = ("mean2_detached", "var_detached", "mean2_actual", "var_actual")
SCALES = ("inv_sigma", "grad_output_norm", "grad_input_norm", "backward_gain")


def assert_row(row, expected: dict[str, float], *, share: float = 1e-4, relative: float = 1e-3) -> None:
    """Shares to ``share`` absolute and summing to one to 1e-5, everything else to ``relative``."""
    assert abs(row["recentering"] + row["rescaling"] + row["kept"] - 1) < 1e-5
    for name in SHARES:
        assert abs(row[name] - expected[name]) < share, (name, row[name], expected[name])
    for name in MOMENTS + SCALES:
        # A mean that is zero in theory is compared with the size of what it is a mean of.
        floor = 1e-8 * expected["var_detached"] if name.startswith("mean2") else 0.0
        assert abs(row[name] - expected[name]) <= relative * abs(expected[name]) + floor, (
            name,
            row[name],
            expected[name],
        )
