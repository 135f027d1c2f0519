"""Faults of the loss, and of the way from it to the parameters."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.calibration.faults.kind import (
    ANY,
    BOTH,
    CLASSIFIERS,
    GROSS,
    PRE_NORM,
    RESIDUAL,
    TEXT,
    WHENEVER,
    Planted,
    kind,
)
from tests.calibration.faults.sites import block, branches, of

_START_AND_LATER = (("gross", "start"), ("gross", "later"))


@kind("loss summed", "GL701", on=ANY, variants=GROSS)
def summed(planted: Planted) -> None:
    planted.run.change_loss(lambda loss, output, target: loss(output, target, reduction="sum"))


@kind("summed over a sequence", "GL701", on=TEXT, variants=GROSS)
def summed_over_tokens(planted: Planted) -> None:
    def loss(before: Any, output: Any, target: Tensor) -> Tensor:
        whole: Tensor = before(output, target, reduction="sum") / len(target)
        return whole

    planted.run.change_loss(loss)


@kind("softmax twice", "GL702", on=CLASSIFIERS, variants=GROSS)
def softmax_twice(planted: Planted) -> None:
    def loss(before: Any, output: Any, target: Tensor) -> Tensor:
        found: Tensor = before(getattr(output, "logits", output).softmax(-1), target)
        return found

    planted.run.change_loss(loss)


@kind("logarithm of 0", "GL307", on=CLASSIFIERS, variants=WHENEVER)
def log_of_zero(planted: Planted) -> None:
    """A logarithm of probabilities of which the smallest were rounded to 0."""
    run, least = planted.run, planted.pick(1e-2, 1e-3)

    def loss(before: Any, output: Any, target: Tensor) -> Tensor:
        if run.now < max(planted.step, 3):
            found: Tensor = before(output, target)
            return found
        p = getattr(output, "logits", output).softmax(-1)
        p = torch.where(p < least, 0 * p, p)
        return F.nll_loss(p.log().flatten(0, -2), target.flatten(), ignore_index=-100)

    run.change_loss(loss)


@kind("loss of a detached output", "GL401", on=ANY, variants=GROSS)
def detached_loss(planted: Planted) -> None:
    planted.run.change_loss(lambda loss, output, target: loss(output, target).detach().requires_grad_())


@kind("detach() in the middle", "GL401", "GL310", on=RESIDUAL, variants=_START_AND_LATER)
def detached_stream(planted: Planted) -> None:
    path = block(planted)
    number = int(path.split(".")[1])
    # What is cut off is all before it.
    planted.places += [f"blocks.{i}" for i in range(number + 1)] + ["stem"]

    def plant(model: Any) -> None:
        of(model, path).register_forward_hook(
            lambda module, args, out: out.detach() if planted.run.now >= planted.step else out
        )

    planted.run.on_model.append(plant)


@kind("requires_grad is False in one block", "GL401", "GL310", "GL405", on=RESIDUAL, variants=_START_AND_LATER)
def frozen_block(planted: Planted) -> None:
    path = block(planted)
    planted.places.append(path)

    def freeze(model: Any, optimizer: torch.optim.Optimizer, step: int) -> None:
        if step == planted.step:
            of(model, path).requires_grad_(False)
            for p in of(model, path).parameters():
                p.grad = None

    run = planted.run
    if planted.step:
        run.each_step.append(freeze)
    else:
        run.on_model.append(lambda model: of(model, path).requires_grad_(False))


@kind("branch detached", "GL401", "GL310", on=RESIDUAL, variants=_START_AND_LATER)
def detached_branch(planted: Planted) -> None:
    path = block(planted)
    planted.places.append(path)

    def plant(model: Any) -> None:
        for branch in branches(model, path):
            branch.register_forward_hook(
                lambda module, args, out: out.detach() if planted.run.now >= planted.step else out
            )

    planted.run.on_model.append(plant)


@kind("layer that holds nearly all of the gradient", "GL402", on=(*PRE_NORM, "post"), variants=BOTH)
def holder(planted: Planted) -> None:
    """A scalar of its own on a branch, which is multiplied by 1,000: its gradient is so too. Only Adam bears that."""
    path, factor = block(planted), planted.pick(1000, 100)
    planted.places.append(path)

    def plant(model: Any) -> None:
        one = of(model, path)
        branch = getattr(one, one.branches[-1])
        branch.gain = nn.Parameter(torch.tensor(1 / factor))
        branch.register_forward_hook(lambda module, args, out: out * module.gain * factor)

    planted.run.on_model.append(plant)
