"""What they learn from: the digits and the source text of the calibration, and rules."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.calibration.batches import digits

#: From the number of a batch to the model's arguments and the targets.
Data = Callable[[int], tuple[Any, Any]]
KINDS_OF_NODE, CATEGORIES, COLUMNS = 4, 10, 5


def _normal(*seed: int) -> Callable[..., Tensor]:
    random = np.random.default_rng(seed)
    return lambda *shape: torch.from_numpy(random.standard_normal(shape)).float()


def diffused(seed: int, size: int = 16) -> Data:
    """Digits with noise on them after a time, and the noise."""
    clean = digits(seed, size)

    def of(index: int) -> tuple[Any, Any]:
        images, _ = clean(index)
        noise = _normal(seed, index, 1)(*images.shape)
        t = torch.from_numpy(np.random.default_rng([seed, index, 2]).random(size)).float()
        kept = torch.cos(t * torch.pi / 2)[:, None, None]
        return (kept * images + (1 - kept**2).sqrt() * noise, t), noise

    return of


def reversed_words(seed: int, size: int = 32, length: int = 6, words: int = 16) -> Data:
    """Words 2 to 15 and the same backwards; 0 pads, 1 begins."""

    def of(index: int) -> tuple[Any, Any]:
        random = np.random.default_rng([seed, index])
        source = torch.from_numpy(random.integers(2, words, (size, length)))
        lengths = torch.from_numpy(random.integers(length - 2, length + 1, size))
        pad = torch.arange(length) >= lengths[:, None]
        source = source.masked_fill(pad, 0)
        target = source.flip(1).gather(1, (torch.arange(length) + length - lengths[:, None]).clamp(max=length - 1))
        target = target.masked_fill(pad, -100)
        before = torch.cat([torch.ones(size, 1, dtype=torch.long), target[:, :-1].clamp(min=0)], 1)
        return (source, before, pad), target

    return of


def graphs(seed: int, many: int = 8, nodes: int = 12, degree: int = 3) -> Data:
    """Nodes that point at others; a node's class is the kind that most of those have that point at it."""

    def of(index: int) -> tuple[Any, Any]:
        random = np.random.default_rng([seed, index])
        n = many * nodes
        kinds = torch.from_numpy(random.integers(KINDS_OF_NODE, size=n))
        own = torch.arange(n).repeat_interleave(degree)
        other = torch.from_numpy(random.integers(nodes, size=n * degree)) + own // nodes * nodes
        features = torch.cat([torch.eye(KINDS_OF_NODE)[kinds] * 2, _normal(seed, index, 1)(n, 4)], 1)
        votes = torch.zeros(n, KINDS_OF_NODE).index_add(0, own, torch.eye(KINDS_OF_NODE)[kinds[other]])
        return (features, torch.stack([other, own])), votes.argmax(1)

    return of


def pixels(seed: int, size: int = 64) -> Data:
    """Digits in [0, 1], and themselves."""
    clean = digits(seed, size)

    def of(index: int) -> tuple[Any, Any]:
        images, _ = clean(index)
        x = (images - images.min()) / (images.max() - images.min())
        return x, x

    return of


def views(seed: int, size: int = 32) -> Data:
    """Two views of each of some digits, shifted and with noise; the pairs are on the diagonal."""
    clean = digits(seed, size)

    def of(index: int) -> tuple[Any, Any]:
        images, _ = clean(index)
        noise = _normal(seed, index, 1)
        shift = np.random.default_rng([seed, index, 2]).integers(-1, 2, 4)
        a, b = (images.roll((int(i), int(j)), (1, 2)) + 0.3 * noise(*images.shape) for i, j in (shift[:2], shift[2:]))
        return (a, b), torch.arange(size)

    return of


def moves(seed: int, size: int = 64) -> Data:
    """States of a mass on a line (place, speed, goal, time), the next ones; actions, rewards and whether it ended."""

    def of(index: int) -> tuple[Any, Any]:
        random = np.random.default_rng([seed, index])
        state = torch.from_numpy(random.uniform(-1, 1, (size, 4))).float()
        action = torch.from_numpy(random.integers(3, size=size))
        speed = state[:, 1] + 0.3 * (action - 1)
        after = torch.stack([state[:, 0] + 0.3 * speed, speed, state[:, 2], state[:, 3] + 0.1], 1)
        reward = 1 - (after[:, 0] - after[:, 2]).abs()
        return (state, after), (action, reward, torch.from_numpy(random.random(size) < 0.05).float())

    return of


def places(seed: int, size: int = 64) -> Data:
    """Points of [-1, 1]: [B, 1]."""
    return lambda index: (torch.from_numpy(np.random.default_rng([seed, index]).uniform(-1, 1, (size, 1))).float(), 0)


def table(seed: int, size: int = 64) -> Data:
    """Five categories and six numbers, and 0 or 1, of which there are fewer."""
    worth = _normal(1)(COLUMNS, CATEGORIES)
    slope = _normal(2)(6)

    def of(index: int) -> tuple[Any, Any]:
        categories = torch.from_numpy(np.random.default_rng([seed, index]).integers(CATEGORIES, size=(size, COLUMNS)))
        numbers = _normal(seed, index, 1)(size, 6)
        score = worth.gather(1, categories.T).sum(0) + numbers @ slope
        return (categories, numbers), (score > 1.5).float()

    return of


def real_and_fake(seed: int, size: int = 32) -> Data:
    """Digits, and smooth noise of their size."""
    clean = digits(seed, size)

    def of(index: int) -> tuple[Any, Any]:
        images, _ = clean(index)
        noise = _normal(seed, index, 1)(*images.shape)
        return (images, (noise + noise.roll(1, 1) + noise.roll(1, 2)) / 3**0.5), 0

    return of
