"""MNIST's digits, read and split: none twice, none on both sides.

With MNIST's own test files (t10k-...) in the folder, these are held out. Without them a fifth of each digit's images
is: those whose pixels have the lowest hashes, so that the split depends neither on their order nor on a seed.
"""

import hashlib
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gradlens.errors import GradlensError
from gradlens.lab.tasks.idx import Bytes, read_idx_pair, read_table
from gradlens.lab.tasks.task import Split

SIDE, CLASSES = 28, 10
#: Share of each digit's images that is held out, where the data has no test files.
VALID_SHARE = 0.2
TABLE = "mnist_5k.csv.gz"


@dataclass(frozen=True, eq=False)
class Digits:
    """Images that are all different, with their labels.

    Attributes:
        images: split to pixels [N, 28, 28], uint8.
        labels: split to digits [N], int64.
        repeated: how many images were left out because the same pixels came before.
        split: how the two were told apart, in words.
    """

    images: dict[Split, Bytes]
    labels: dict[Split, npt.NDArray[np.int64]]
    repeated: int
    split: str


@cache
def read_digits(folder: Path) -> Digits:
    """Read what a folder of the data set holds: MNIST's IDX files, or the table of 5,000 images.

    Raises:
        GradlensError: a file is missing or damaged, the images are none of 28 x 28 digits, or a split is empty.
    """
    train = _idx_pair(folder, "train")
    test = _idx_pair(folder, "t10k")
    if train is None and (folder / TABLE).is_file():
        train = read_table(folder / TABLE, SIDE)
    if train is None:
        raise GradlensError(
            f"MNIST must be in {folder} as train-images-idx3-ubyte with train-labels-idx1-ubyte, or as {TABLE}; "
            f"neither is there. Get the files, then run: gradlens data fetch mnist --from FOLDER"
        )
    parts: dict[Split, tuple[Bytes, Bytes]] = {"train": train}
    if test is not None:
        parts = {"valid": test, "train": train}  # what is in both is only held out
    seen: set[str] = set()
    kept = {name: _distinct(folder, *part, seen) for name, part in parts.items()}
    repeated = sum(len(part[1]) for part in parts.values()) - len(seen)
    if test is None:
        kept = _split(*kept["train"])
    for name in ("train", "valid"):
        if not len(kept[name][1]):
            raise GradlensError(
                f"The {name} split of MNIST must hold images; with the files in {folder} it is empty. Give at least "
                f"{math.ceil(1 / VALID_SHARE)} different images of a digit, or the test files t10k-... too."
            )
    how = "MNIST's test files" if test else f"a share of {VALID_SHARE} of each digit, by the hash of the pixels"
    images = {name: part[0] for name, part in kept.items()}
    return Digits(images, {name: part[1].astype(np.int64) for name, part in kept.items()}, repeated, how)


def _idx_pair(folder: Path, part: str) -> tuple[Bytes, Bytes] | None:
    """Read a part's images and labels, under any of the names they are published with; None where it has neither."""
    found: list[Path | None] = []
    for what in ("images{}idx3-ubyte", "labels{}idx1-ubyte"):
        names = [f"{part}-{what.format(dot)}{gz}" for dot in "-." for gz in ("", ".gz")]
        found.append(next((folder / name for name in names if (folder / name).is_file()), None))
    images, labels = found
    if images is None and labels is None:
        return None
    if images is None or labels is None:
        raise GradlensError(
            f"MNIST's {part} files must be two, images and labels; in {folder} only {(images or labels).name} is "  # type: ignore[union-attr]
            f"there. Get the other one."
        )
    return read_idx_pair(images, labels)


def _distinct(folder: Path, images: Bytes, labels: Bytes, seen: set[str]) -> tuple[Bytes, Bytes]:
    """Return the images that differ from all that were seen, and take note of them."""
    if images.shape[1:] != (SIDE, SIDE) or (labels.size and labels.max() >= CLASSES):
        raise GradlensError(
            f"MNIST's images must have {SIDE} x {SIDE} pixels and labels from 0 to {CLASSES - 1}; those in {folder} "
            f"have {' x '.join(map(str, images.shape[1:]))} and go up to {labels.max(initial=0)}. Give MNIST's files."
        )
    new = []
    for i, image in enumerate(images):
        key = _key(image)
        if key not in seen:
            seen.add(key)
            new.append(i)
    return images[new], labels[new]


def _split(images: Bytes, labels: Bytes) -> dict[Split, tuple[Bytes, Bytes]]:
    """Hold out the images of each digit whose hashes are lowest; both splits are in the order of the hashes."""
    order = np.array(sorted(range(len(labels)), key=lambda i: _key(images[i])), dtype=np.int64)
    held_out = np.zeros(len(labels), dtype=bool)
    for digit in range(CLASSES):
        own = order[labels[order] == digit]
        held_out[own[: int(VALID_SHARE * len(own))]] = True
    sides: dict[Split, npt.NDArray[np.int64]] = {"train": order[~held_out[order]], "valid": order[held_out[order]]}
    return {name: (images[side], labels[side]) for name, side in sides.items()}


def _key(image: Bytes) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()
