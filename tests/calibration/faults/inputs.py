"""Faults of the data: inputs and labels."""

import torch
from torch import Tensor

from tests.calibration import batches
from tests.calibration.batches import Batch
from tests.calibration.faults.kind import BOTH, CLASSIFIERS, GROSS, IMAGES, WHENEVER, Planted, kind

_LATER = (("gross", "later"), ("mild", "later"))


def _planted_in(planted: Planted, value: float) -> None:
    """Put a value into one pixel of one image, or into all, of one batch or of all from a step on."""
    many, first = planted.gross, max(planted.step, 5)

    def change(batch: Batch, step: int) -> Batch:
        x, y = batch
        if step == first or (many and step > first):
            x = x.clone()
            x[:, 0] = value
        return x, y

    planted.run.change_data(change)


@kind("NaN in a batch", "GL307", on=IMAGES, variants=(*BOTH, *_LATER))
def nan_input(planted: Planted) -> None:
    _planted_in(planted, float("nan"))


@kind("infinity in the input", "GL307", "GL308", on=IMAGES, variants=(*BOTH, *_LATER))
def inf_input(planted: Planted) -> None:
    _planted_in(planted, float("inf"))


def _scaled(planted: Planted, factor: float) -> None:
    def change(batch: Batch, step: int) -> Batch:
        return (batch[0] * factor, batch[1]) if step >= planted.step else batch

    planted.run.change_data(change)


@kind("input scale far too large", "GL705", on=IMAGES, variants=WHENEVER)
def input_too_large(planted: Planted) -> None:
    """Pixels from 0 to 255, or their tenfold."""
    factor = planted.pick(2550, 255)

    def change(batch: Batch, step: int) -> Batch:
        return ((batch[0] + 0.5) * factor / 3, batch[1]) if step >= planted.step else batch

    planted.run.change_data(change)


@kind("input scale far too small", "GL705", on=IMAGES, variants=BOTH)
def input_too_small(planted: Planted) -> None:
    _scaled(planted, planted.pick(1e-4, 1e-2))


@kind("odd batches", "GL303", "GL705", on=IMAGES, variants=BOTH)
def odd_batches(planted: Planted) -> None:
    """A batch in thirty has inputs of a hundred times the size, and labels of others."""
    factor = planted.pick(100, 20)

    def change(batch: Batch, step: int) -> Batch:
        x, y = batch
        return (x * factor, y.roll(1, 0)) if step % 30 == 29 else batch

    planted.run.change_data(change)


def _shuffled(y: Tensor, step: int) -> Tensor:
    """Mix targets of all places, but for those that are none."""
    order = torch.randperm(y.numel(), generator=torch.Generator().manual_seed(step))
    mixed = y.flatten()[order].view_as(y)
    return mixed if y.min() >= 0 else torch.where(y < 0, y, y[y >= 0][order[: y.numel()] % int((y >= 0).sum())])


@kind("labels shuffled", "GL704", "GL306", on=CLASSIFIERS, variants=(("gross", "start"), ("gross", "later")))
def shuffled(planted: Planted) -> None:
    def change(batch: Batch, step: int) -> Batch:
        x, y = batch
        return (x, _shuffled(y, step)) if step >= planted.step else batch

    planted.run.change_data(change)


@kind("label is constant", "GL704", on=CLASSIFIERS, variants=GROSS)
def constant(planted: Planted) -> None:
    planted.run.change_data(lambda batch, step: (batch[0], torch.where(batch[1] < 0, batch[1], 7)))


@kind("input is lost", "GL704", "GL705", "GL306", on=CLASSIFIERS, variants=GROSS)
def lost(planted: Planted) -> None:
    """Each batch is the same input with other labels: nothing but their frequency can be learned."""

    def change(batch: Batch, step: int) -> Batch:
        return torch.zeros_like(batch[0]), batch[1]

    planted.run.change_data(change)


@kind(
    "batches of one class",
    "GL707",
    "GL704",
    "GL303",
    "GL310",
    on=("resnet", "dense", "mixer", "cnn", "gru"),
    variants=GROSS,
)
def sorted_by_class(planted: Planted) -> None:
    planted.run.data = batches.one_class(planted.run.seed)


@kind(
    "GradScaler that skips every step", "GL308", "GL307", on=("resnet", "dense", "mlp", "mixer", "gpt"), variants=GROSS
)
def scaler_skips(planted: Planted) -> None:
    """A factor of the loss beyond what float16 holds, which all but does not fall; the logits are of float16."""
    run = planted.run
    run.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40, backoff_factor=0.99999, growth_interval=10**6)
    run.change_loss(lambda loss, output, target: loss(output.half().float(), target))
