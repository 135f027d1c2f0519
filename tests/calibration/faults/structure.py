"""Faults of the architecture: skips, norms, initialization, attention."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.calibration.faults.kind import (
    ATTENTION,
    BATCH_NORM,
    BOTH,
    GROSS,
    PRE_NORM,
    RESIDUAL,
    TOKENS,
    Planted,
    kind,
)
from tests.calibration.faults.sites import block, index, of

_START_AND_LATER = (("gross", "start"), ("gross", "later"))


@kind("skip missing in one block", "GL801", on=RESIDUAL, variants=GROSS)
def skip_missing(planted: Planted) -> None:
    planted.places.append(block(planted))
    planted.run.wrong.block, planted.run.wrong.skip = index(planted), "missing"


@kind("skip with the wrong sign", "GL802", on=RESIDUAL, variants=GROSS)
def skip_sign(planted: Planted) -> None:
    planted.places.append(block(planted))
    planted.run.wrong.block, planted.run.wrong.skip = index(planted), "minus"


@kind("skip stretched", "GL808", "GL101", "GL102", on=(*PRE_NORM, "resnet"), variants=BOTH)
def skip_stretched(planted: Planted) -> None:
    planted.run.wrong.stretch = planted.pick(4.0, 2.0)


@kind("final norm missing", "GL804", on=PRE_NORM, variants=GROSS)
def no_final_norm(planted: Planted) -> None:
    planted.run.wrong.final_norm = False


class OverTokens(nn.Module):
    """LayerNorm over the tokens (in `dense` over the batch) instead of the features."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(tokens)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.transpose(-1, -2)).transpose(-1, -2)


class ByHand(nn.Module):
    """LayerNorm whose statistics are detached."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        mean, variance = x.mean(-1, keepdim=True).detach(), x.var(-1, keepdim=True, unbiased=False).detach()
        return (x - mean) / (variance + 1e-5).sqrt() * self.weight + self.bias


def _norm(planted: Planted, norm: Callable[[int, int], nn.Module]) -> None:
    """Put another norm in one block."""
    planted.places.append(_norm_path(planted))
    planted.run.wrong.block, planted.run.wrong.norm = index(planted), norm


def _norm_path(planted: Planted) -> str:
    return block(planted) + (".body.1" if planted.run.network.name == "resnet" else ".norm1")


@kind("norm over the wrong axis", "GL805", on=TOKENS, variants=GROSS)
def wrong_axis(planted: Planted) -> None:
    _norm(planted, lambda width, tokens: OverTokens(tokens))


@kind("norm twice", "GL803", on=RESIDUAL, variants=GROSS)
def norm_twice(planted: Planted) -> None:
    def twice(width: int, tokens: int) -> nn.Module:
        new = nn.LayerNorm if tokens else nn.BatchNorm2d
        return nn.Sequential(new(width), new(width))

    _norm(planted, twice)


@kind("statistics of a norm detached", "GL807", on=PRE_NORM, variants=GROSS)
def detached_statistics(planted: Planted) -> None:
    _norm(planted, lambda width, tokens: ByHand(width))


@kind("BatchNorm in evaluation mode", "GL806", on=BATCH_NORM, variants=_START_AND_LATER)
def evaluation_mode(planted: Planted) -> None:
    """As after a validation that forgets to put the model back into training."""
    planted.run.each_step.append(lambda model, optimizer, step: model.eval() if step == planted.step else None)


@kind("eps as large as the variance", "GL204", on=PRE_NORM, variants=BOTH)
def large_eps(planted: Planted) -> None:
    eps = planted.pick(100.0, 3.0)
    _norm(planted, lambda width, tokens: nn.LayerNorm(width, eps=eps))


def _matrices(model: nn.Module) -> list[Tensor]:
    return [p for p in model.parameters() if p.dim() > 1]


@torch.no_grad()
def _multiplied(parameters: list[Tensor], factor: float) -> None:
    for parameter in parameters:
        parameter.mul_(factor)


@kind("initialization too large", "GL809", "GL808", on=("gpt", "vit", "dense", "lstm", "zoo", "mixer"), variants=BOTH)
def large_init(planted: Planted) -> None:
    factor = planted.pick(20, 5)
    planted.run.on_model.append(lambda model: _multiplied(_matrices(model), factor))


@kind("initialization too small", "GL809", "GL808", on=("gpt", "vit", "dense", "lstm", "zoo", "mixer"), variants=BOTH)
def small_init(planted: Planted) -> None:
    factor = planted.pick(1e-3, 0.03)
    planted.run.on_model.append(lambda model: _multiplied(_matrices(model), factor))


@kind("one block's initialization too large", "GL808", "GL309", "GL402", on=RESIDUAL, variants=BOTH)
def large_block(planted: Planted) -> None:
    path, factor = block(planted), planted.pick(30, 8)
    planted.places.append(path)
    planted.run.on_model.append(lambda model: _multiplied(_matrices(of(model, path)), factor))


@kind("block of zeros", "GL809", "GL401", "GL406", on=RESIDUAL, variants=GROSS)
def zeros(planted: Planted) -> None:
    """All matrices of a block are 0: in its branches none ever gets a gradient."""
    path = block(planted)
    planted.places.append(path)
    planted.run.on_model.append(lambda model: _multiplied(_matrices(of(model, path)), 0.0))


@kind("attention's logits saturated", "GL901", on=ATTENTION, variants=BOTH)
def saturated(planted: Planted) -> None:
    """Scores that are not divided by √d, of vectors that are large besides."""
    planted.run.watch += ("attention",)
    planted.run.wrong.logits = planted.pick(300, 60)


def _attention_gain(model: Any, factor: float) -> None:
    for one in model.modules():
        if hasattr(one, "qkv"):
            width = one.out.in_features
            _multiplied([one.qkv.weight[: 2 * width]], factor)


@kind("queries and keys too large", "GL901", on=ATTENTION, variants=BOTH)
def large_queries(planted: Planted) -> None:
    factor = planted.pick(30, 10)
    planted.run.watch += ("attention",)
    planted.run.on_model.append(lambda model: _attention_gain(model, factor))
