"""A folder in MNIST's published format, written in milliseconds: ten shapes with noise, easy to tell apart."""

import gzip
from pathlib import Path

import numpy as np
import pytest

SIDE = 28


def digits(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images [count, 28, 28] and labels [count]: one bright square a digit, at a place of its own, and noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 10
    images = rng.integers(0, 100, size=(count, SIDE, SIDE))
    for image, label in zip(images, labels, strict=True):
        row, column = 3 + 12 * (label // 5), 2 + 5 * (label % 5)
        image[row : row + 6, column : column + 4] += 150
    return images.astype(np.uint8), labels.astype(np.uint8)


def idx(array: np.ndarray) -> bytes:
    """The array as an IDX file of unsigned bytes."""
    head = bytes((0, 0, 8, array.ndim)) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return head + array.astype(np.uint8).tobytes()


def write(folder: Path, part: str, images: np.ndarray, labels: np.ndarray, *, packed: bool = False) -> None:
    """Write one part, ``train`` or ``t10k``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
        content = gzip.compress(idx(array)) if packed else idx(array)
        (folder / f"{name}{'.gz' if packed else ''}").write_bytes(content)


def link(folder: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a folder the data set ``mnist``, in a store of its own."""
    from gradlens.lab.tasks.sources import store as real

    monkeypatch.setenv("GRADLENS_DATA", str(store))
    real.link("mnist", folder)
