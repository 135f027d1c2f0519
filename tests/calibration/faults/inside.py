"""Faults inside a block, many of which come at a later step: gains, dead units and branches, overflow."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tests.calibration.faults.kind import (
    BOTH,
    LATER,
    PRE_NORM,
    RELU,
    RESIDUAL,
    TEXT,
    WHENEVER,
    Planted,
    kind,
)
from tests.calibration.faults.sites import block, branches, of

_START_AND_LATER = (("gross", "start"), ("gross", "later"))


def _from(planted: Planted, act: Callable[[Any, int], object]) -> None:
    """Act on the model before each step from the planted one on."""

    def each(model: Any, optimizer: torch.optim.Optimizer, step: int) -> None:
        if step >= planted.step:
            with torch.no_grad():
                act(model, step - planted.step)

    planted.run.each_step.append(each)


def _last_matrices(model: Any, path: str) -> list[nn.Parameter]:
    """Return the last matrix of each branch of a block."""
    return [[p for p in branch.parameters() if p.dim() > 1][-1] for branch in branches(model, path)]


@kind("block that amplifies at once", "GL309", on=PRE_NORM, variants=LATER)
def amplifies(planted: Planted) -> None:
    path, factor = block(planted), planted.pick(100, 15)
    planted.places.append(path)

    def act(model: Any, since: int) -> None:
        for weight in _last_matrices(model, path) if since == 0 else ():
            weight.mul_(factor)

    _from(planted, act)


@kind("block that amplifies more and more", "GL309", on=PRE_NORM, variants=LATER, has_step=False)
def amplifies_slowly(planted: Planted) -> None:
    path, factor = block(planted), planted.pick(1.1, 1.05)
    planted.places.append(path)

    def act(model: Any, since: int) -> None:
        for weight in _last_matrices(model, path):
            weight.mul_(factor)

    _from(planted, act)


@kind("branch times 0", "GL310", "GL401", "GL309", on=RESIDUAL, variants=_START_AND_LATER)
def dead_branch(planted: Planted) -> None:
    path = block(planted)
    planted.places.append(path)

    def plant(model: Any) -> None:
        for branch in branches(model, path):
            branch.register_forward_hook(
                lambda module, args, out: 0.0 * out if planted.run.now >= planted.step else out
            )

    planted.run.on_model.append(plant)


def _before_relu(model: Any, path: str) -> nn.Parameter:
    """Return the bias in front of a block's ReLU."""
    one = of(model, path)
    bias: nn.Parameter = one.body[1].bias if hasattr(one, "body") else one.mlp[0].bias
    return bias


@kind("all units of a layer dead", "GL406", "GL310", "GL401", "GL309", on=RELU, variants=_START_AND_LATER)
def dead_layer(planted: Planted) -> None:
    path = block(planted)
    planted.places.append(path)
    _from(planted, lambda model, since: _before_relu(model, path).fill_(-30.0) if since == 0 else None)


@kind("most units of a layer dead", "GL406", on=RELU, variants=WHENEVER)
def dead_units(planted: Planted) -> None:
    path, share = block(planted), planted.pick(0.9, 0.6)
    planted.places.append(path)

    def act(model: Any, since: int) -> None:
        bias = _before_relu(model, path)
        if since == 0:
            bias[: int(share * len(bias))] = -30.0

    _from(planted, act)


def _gain(model: Any, path: str) -> nn.Parameter:
    one = of(model, path)
    gain: nn.Parameter = one.body[1].weight if hasattr(one, "body") else one.norm1.weight
    return gain


def _gain_path(planted: Planted) -> str:
    return block(planted) + (".body.1" if planted.run.network.name == "resnet" else ".norm1")


@kind("gain held at 0", "GL407", "GL310", "GL309", "GL401", on=RESIDUAL, variants=_START_AND_LATER)
def gain_zero(planted: Planted) -> None:
    path = block(planted)
    planted.places.append(_gain_path(planted))
    _from(planted, lambda model, since: _gain(model, path).zero_())


@kind("gain that shrinks", "GL407", on=RESIDUAL, variants=BOTH)
def gain_shrinks(planted: Planted) -> None:
    path, factor = block(planted), planted.pick(0.9, 0.96)
    planted.places.append(_gain_path(planted))
    _from(planted, lambda model, since: _gain(model, path).mul_(factor))


@kind("gain that grows", "GL407", on=RESIDUAL, variants=(*BOTH, ("gross", "later")), has_step=False)
def gain_grows(planted: Planted) -> None:
    path, factor = block(planted), planted.pick(1.08, 1.03)
    planted.places.append(_gain_path(planted))
    _from(planted, lambda model, since: _gain(model, path).mul_(factor))


@kind("float16 overflows", "GL308", "GL307", on=RESIDUAL, variants=_START_AND_LATER)
def float16_overflow(planted: Planted) -> None:
    """A branch that is computed with numbers that float16 does not hold."""
    path = block(planted)
    planted.places.append(path)

    def plant(model: Any) -> None:
        branches(model, path)[-1].register_forward_hook(
            lambda module, args, out: (
                (3e5 * out).half().float() / 3e5 if planted.run.now >= max(planted.step, 3) else out
            )
        )

    planted.run.on_model.append(plant)


@kind(
    "dropout of 0.95", "GL704", "GL306", "GL304", "GL311", on=("gpt", "vit", "dense", "hybrid", "mixer"), variants=BOTH
)
def heavy_dropout(planted: Planted) -> None:
    share = planted.pick(0.97, 0.9)

    def plant(model: Any) -> None:
        for number in range(len(model.blocks)):
            for branch in branches(model, f"blocks.{number}"):
                branch.dropout = nn.Dropout(share)
                branch.register_forward_hook(lambda module, args, out: module.dropout(out))
        model.stem.dropout = nn.Dropout(share)
        model.stem.register_forward_hook(lambda module, args, out: module.dropout(out))

    planted.run.on_model.append(plant)


@kind("embedding that drowns the rest", "GL809", "GL402", "GL808", on=TEXT, variants=BOTH)
def large_embedding(planted: Planted) -> None:
    """One token's vector, that of the space, of a thousand times the size."""
    factor = planted.pick(1000, 100)

    def plant(model: Any) -> None:
        table = next(module for module in model.modules() if isinstance(module, nn.Embedding))
        with torch.no_grad():
            table.weight[ord(" ")].mul_(factor)

    planted.run.on_model.append(plant)
