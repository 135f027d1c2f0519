"""Reading MNIST in the formats it is published in: the original IDX files, and rows of pixel values with a label.

An IDX file (Y. LeCun's page on MNIST) begins with two bytes 0, a byte for the type (8: unsigned bytes) and a byte
for the number of dimensions; then each dimension's size as a big-endian 32-bit integer, then the values.
"""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gradlens.errors import GradlensError

_UNSIGNED_BYTES = 8
Bytes = npt.NDArray[np.uint8]


def read_idx(path: Path, dimensions: int) -> Bytes:
    """Read one IDX file of unsigned bytes, as it is or gzipped.

    Args:
        path: of the file.
        dimensions: 3 for images, 1 for labels.

    Raises:
        GradlensError: it is cut off, longer than it says, or no such IDX file.
    """
    content = read_bytes(path)
    magic = (0, 0, _UNSIGNED_BYTES, dimensions)
    if tuple(content[:4]) != magic:
        wanted, got = bytes(magic).hex(" "), content[:4].hex(" ") or "nothing"
        raise GradlensError(
            f"{path} must be an IDX file of unsigned bytes in {dimensions} dimensions, which begins with the bytes "
            f"{wanted}; it begins with {got}. Is it another file under this name, or images in place of labels?"
        )
    begin = 4 + 4 * dimensions
    shape = tuple(int.from_bytes(content[i : i + 4]) for i in range(4, begin, 4))
    if len(content) < begin or len(content) != begin + math.prod(shape):
        raise GradlensError(
            f"{path} must have {begin + math.prod(shape)} bytes, as its head says ({' x '.join(map(str, shape))}); "
            f"it has {len(content)}. It is cut off or damaged: get it again."
        )
    return np.frombuffer(content, dtype=np.uint8, offset=begin).reshape(shape)


def read_idx_pair(images: Path, labels: Path) -> tuple[Bytes, Bytes]:
    """Read a file of images and the file of their labels.

    Returns:
        Images [N, rows, columns] and labels [N].

    Raises:
        GradlensError: a file is damaged, or their numbers differ.
    """
    pixels, classes = read_idx(images, 3), read_idx(labels, 1)
    if len(pixels) != len(classes):
        raise GradlensError(
            f"There must be one label an image; {images} has {len(pixels)} images and {labels} has {len(classes)} "
            f"labels. Take the files that belong together."
        )
    return pixels, classes


def read_table(path: Path, side: int) -> tuple[Bytes, Bytes]:
    """Read a table without a head, as it is or gzipped: in each line the pixels of an image, row by row, and its label.

    Args:
        path: of the file.
        side: pixels a side.

    Returns:
        Images [N, side, side] and labels [N].

    Raises:
        GradlensError: a line has another number of values, or one that is no whole number from 0 to 255.
    """
    rows = []
    for number, line in enumerate(read_bytes(path).splitlines(), start=1):
        try:
            row = np.array(line.split(b","), dtype=np.float64)  # some tables write 0 as 0.0
        except ValueError:
            row = np.array([np.nan])
        if row.size != side**2 + 1 or not (np.equal(np.mod(row, 1), 0) & (row >= 0) & (row <= 255)).all():
            raise GradlensError(
                f"{path}, line {number}, must hold {side**2} pixel values from 0 to 255 and a label, with commas "
                f"between; it has {len(line.split(b','))} values, or one that is no such number. Get the file again."
            )
        rows.append(row.astype(np.uint8))
    table = np.array(rows, dtype=np.uint8).reshape(len(rows), side**2 + 1)
    return table[:, :-1].reshape(-1, side, side), table[:, -1]


def read_bytes(path: Path) -> bytes:
    """Return the content of a file, unpacked where its name ends with .gz.

    Raises:
        GradlensError: it cannot be read or unpacked.
    """
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise GradlensError(f"{path} must be a file that can be read: {reason}. Get it again.") from error
