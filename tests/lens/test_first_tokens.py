"""At norms over tokens the first token stands against the rest, as autograd in float64 has their gradients."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gradlens

WIDTH, LENGTH = 8, 7


class Model(nn.Module):
    """A norm, causal attention, a norm; the first token is made large, and counts more in the loss."""

    def __init__(self, batch_first: bool, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.batch_first = batch_first
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH), nn.RMSNorm(WIDTH), nn.BatchNorm1d(WIDTH)])
        self.to(dtype)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        inputs, outputs = [x], [self.norms[0](x)]
        y = outputs[0] if self.batch_first else outputs[0].transpose(0, 1)
        y = F.scaled_dot_product_attention(y[:, None], y[:, None], y[:, None], is_causal=True)[:, 0]
        inputs.append(x + (y if self.batch_first else y.transpose(0, 1)))
        outputs.append(self.norms[1](inputs[1]))
        outputs.append(self.norms[2](outputs[1].flatten(0, 1)).unflatten(0, outputs[1].shape[:2]))
        for one in outputs:
            one.retain_grad()
        return outputs[-1], [*inputs, *outputs]


def batch(batch_first: bool, dtype: torch.dtype = torch.float32) -> Tensor:
    x = torch.randn(4, LENGTH, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x[:, 0] *= 30
    return (x if batch_first else x.transpose(0, 1).contiguous()).to(dtype).requires_grad_()


def loss_of(y: Tensor, batch_first: bool) -> Tensor:
    per_token = y.square().sum(-1) if batch_first else y.square().sum(-1).T
    return (per_token.mean(0) * torch.arange(LENGTH, 0, -1)).sum() / 10 + y.pow(3).mean()


@pytest.mark.parametrize("batch_first", [True, False])
def test_the_ratios_are_those_of_autograd(batch_first: bool) -> None:
    model = Model(batch_first)
    with gradlens.attach(model, watch=("norms", "attention"), strict=True) as lens:
        loss_of(model(batch(batch_first))[0], batch_first).backward()
        lens.step()
    rows = lens.recording.tokens.set_index("site")
    assert rows.index.tolist() == ["norms.0", "norms.1"]
    exact = Model(batch_first, torch.float64)
    y, (x0, x1, y0, y1, _) = exact(batch(batch_first, torch.float64))
    loss_of(y, batch_first).backward()
    sigmas = ((x0.var(-1, correction=0) + 1e-5).sqrt(), (x1.square().mean(-1) + torch.finfo(torch.float32).eps).sqrt())
    for site, sigma, out in zip(rows.index, sigmas, (y0, y1), strict=True):
        assert out.grad is not None
        energy, inverse = (t if batch_first else t.T for t in (out.grad.square().sum(-1), 1 / sigma))
        row = rows.loc[site]
        assert (row["first_vectors"], row["rest_vectors"]) == (4, 4 * (LENGTH - 1))
        ratio = math.sqrt(energy[:, 0].mean() / energy[:, 1:].mean())
        assert row["grad_output_ratio"] == pytest.approx(ratio, rel=1e-4)
        assert row["inv_sigma_ratio"] == pytest.approx((inverse[:, 0].mean() / inverse[:, 1:].mean()).item(), rel=1e-4)


def test_without_the_watch_there_is_no_row() -> None:
    model = Model(True)
    with gradlens.attach(model) as lens:
        loss_of(model(batch(True))[0], True).backward()
        lens.step()
    assert lens.recording.tokens.empty
    assert len(lens.recording.norms)


def test_micro_batches_add_up() -> None:
    model, found = Model(True), []
    for times in (1, 3):
        with gradlens.attach(model, watch=("norms", "attention"), strict=True) as lens:
            for _ in range(times):
                loss_of(model(batch(True))[0], True).backward()
            lens.step()
        model.zero_grad()
        found.append(lens.recording.tokens)
    assert found[1]["first_vectors"].tolist() == [3 * count for count in found[0]["first_vectors"]]
    ratios = ["grad_output_ratio", "inv_sigma_ratio"]
    assert found[1][ratios].to_numpy() == pytest.approx(found[0][ratios].to_numpy(), rel=1e-5)
