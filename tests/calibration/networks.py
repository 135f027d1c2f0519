"""The networks that faults are planted in, each with the data, loss and optimizer that it learns with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.calibration import batches, families, models
from tests.calibration.batches import IGNORED, Batches
from tests.calibration.blocks import Wrong

Loss = Callable[[Any, Tensor], Tensor]


def cross_entropy(output: Any, target: Tensor, reduction: str = "mean") -> Tensor:
    logits = getattr(output, "logits", output)
    return F.cross_entropy(logits.flatten(0, -2).float(), target.flatten(), ignore_index=IGNORED, reduction=reduction)


def squared_error(output: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    return F.mse_loss(output.float(), target, reduction=reduction)


@dataclass(frozen=True)
class Network:
    """A network and how it learns well.

    Attributes:
        name: of it.
        build: makes it; takes what is wrong in its architecture.
        data: from a seed to batches.
        optimizer: name in ``torch.optim``.
        lr: a good rate.
        settings: further ones of the optimizer.
        loss: from output and target; takes ``reduction``.
        warm_up: steps until the whole rate.
    """

    name: str
    build: Callable[[Wrong], nn.Module]
    data: Callable[[int], Batches]
    optimizer: str = "Adam"
    lr: float = 1e-3
    settings: tuple[tuple[str, Any], ...] = ()
    loss: Callable[..., Tensor] = cross_entropy
    warm_up: int = 0


_MOMENTUM = (("momentum", 0.9),)
NETWORKS = {
    network.name: network
    for network in (
        Network("gpt", models.gpt, batches.text, "AdamW", 2e-3, warm_up=10),
        Network("vit", models.vit, batches.digits, "AdamW", 2e-3),
        Network("post", models.post, batches.digits, "Adam", 1e-3, warm_up=20),
        Network("resnet", models.resnet, batches.digits, "SGD", 0.03, _MOMENTUM),
        Network("hybrid", models.hybrid, batches.digits, "AdamW", 2e-3),
        Network("dense", models.dense, batches.digits, "Adam", 1e-3),
        Network("mixer", models.mixer, batches.digits, "AdamW", 2e-3),
        Network("mlp", models.mlp, batches.digits, "SGD", 0.1),
        Network("cnn", models.cnn, batches.digits, "SGD", 0.03, _MOMENTUM),
        Network("lstm", models.LSTM, batches.text, "Adam", 3e-3),
        Network("gru", models.GRU, batches.digits, "Adam", 2e-3),
        Network("unet", models.UNet, batches.noisy, "Adam", 2e-3, loss=squared_error),
        Network("autoencoder", models.autoencoder, batches.same, "Adam", 2e-3, loss=squared_error),
        Network("zoo", families.pre_ln, batches.text, "Adam", 2e-3, warm_up=10),
        Network("encoder", families.torch_encoder, batches.masked, "Adam", 1e-3, warm_up=20),
        Network("gpt2", families.gpt2, batches.text, "AdamW", 2e-3, warm_up=10),
        Network("llama", families.llama, batches.text, "AdamW", 3e-3, warm_up=10),
        Network("bert", families.bert, batches.masked, "AdamW", 2e-3, warm_up=20),
    )
}


def optimizer_of(name: str, parameters: Any, lr: float, settings: dict[str, Any]) -> torch.optim.Optimizer:
    """Return an optimizer of ``torch.optim`` by its name."""
    made: torch.optim.Optimizer = getattr(torch.optim, name)(parameters, lr=lr, **settings)
    return made
