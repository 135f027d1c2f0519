"""What the set-ups learn from: real data that is here without a network, and one generated regression."""

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gradlens.lab.tasks.digits import read_digits
from gradlens.lab.tasks.sources.store import located
from gradlens.lab.tasks.stdlib_source import StdlibSource

Batch = tuple[Tensor, Tensor]
#: From the number of a batch to inputs and targets.
Batches = Callable[[int], Batch]

VOCAB, LENGTH = 256, 48
SIDE, CLASSES = 14, 10
#: Stands for a byte that is to be guessed; it occurs in no source file.
MASK = 1
#: No target where this stands.
IGNORED = -100


@cache
def _source() -> StdlibSource:
    return StdlibSource()


@cache
def _images() -> tuple[Tensor, Tensor]:
    """MNIST at half its resolution, [N, 14, 14] of mean 0 and variance 1, with labels [N]."""
    digits = read_digits(located("mnist"))
    images = F.avg_pool2d(torch.from_numpy(digits.images["train"]).float()[:, None] / 255, 2)[:, 0]
    return (images - images.mean()) / images.std(), torch.from_numpy(digits.labels["train"])


def text(seed: int, size: int = 8, length: int = LENGTH) -> Batches:
    """Python's own source: bytes [B, T] and the bytes that follow them."""

    def of(index: int) -> Batch:
        tokens = _source().batch(index, seed=seed, batch_size=size, length=length + 1)
        return tokens[:, :-1], tokens[:, 1:]

    return of


def masked(seed: int, size: int = 8, length: int = LENGTH) -> Batches:
    """Python's own source with every sixth byte hidden, and the hidden bytes."""

    def of(index: int) -> Batch:
        tokens = _source().batch(index, seed=seed, batch_size=size, length=length)
        hidden = torch.from_numpy(np.random.default_rng([seed, index, 1]).random(tokens.shape) < 1 / 6)
        return tokens.masked_fill(hidden, MASK), tokens.masked_fill(~hidden, IGNORED)

    return of


def digits(seed: int, size: int = 32) -> Batches:
    """Handwritten digits [B, 14, 14] and their labels [B]."""

    def of(index: int) -> Batch:
        images, labels = _images()
        chosen = torch.from_numpy(np.random.default_rng([seed, index]).integers(len(labels), size=size))
        return images[chosen], labels[chosen]

    return of


def one_class(seed: int, size: int = 32) -> Batches:
    """Handwritten digits, of one class in each batch."""

    def of(index: int) -> Batch:
        images, labels = _images()
        own = torch.nonzero(labels == index % CLASSES)[:, 0]
        chosen = own[torch.from_numpy(np.random.default_rng([seed, index]).integers(len(own), size=size))]
        return images[chosen], labels[chosen]

    return of


def noisy(seed: int, size: int = 16) -> Batches:
    """Handwritten digits with noise on them, and without it: both [B, 14, 14]."""
    clean = digits(seed, size)

    def of(index: int) -> Batch:
        images, _ = clean(index)
        noise = np.random.default_rng([seed, index, 1]).standard_normal(images.shape)
        return images + 0.5 * torch.from_numpy(noise).float(), images

    return of


def same(seed: int, size: int = 32) -> Batches:
    """Handwritten digits twice: as input and as what is to be made of it."""
    clean = digits(seed, size)
    return lambda index: (clean(index)[0],) * 2


def line(seed: int, size: int = 32, width: int = 16, noise: float = 0.3) -> Batches:
    """The sum of the inputs [B, 16], with noise: [B, 1]. What remains of the loss is known: the noise's variance."""

    def of(index: int) -> Batch:
        draws = torch.from_numpy(np.random.default_rng([seed, index]).standard_normal((size, width + 1))).float()
        return draws[:, :-1], draws[:, :-1].sum(1, keepdim=True) + noise * draws[:, -1:]

    return of
