"""Language modelling on text that every machine has: the Python standard library's own source.

Tokens are bytes (256 of them), not a trained byte-pair vocabulary. There is then no tokenizer to train, to
cache and to version; the output head stays small, so a minute on two cores goes into the blocks and norms
under study rather than into a softmax over thousands of pieces; and bits per byte compare across runs,
Python versions and papers (enwiki8 is reported in them).

The text is split by top-level module (``json`` with all its files is on one side), so that no validation
window repeats a file, or a sibling, that was trained on. Left out are tests, tables that a program
generated, and the packages that distributions of Python ship apart from the rest or not at all: what
remains is there wherever Python is, apart from patches, which the sha256 tells.
"""

import hashlib
import math
import platform
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradlens.errors import GradlensError, ModelError
from gradlens.lab.models.transformer import Transformer
from gradlens.lab.tasks.held_out import held_out_loss
from gradlens.lab.tasks.task import Batch, Split

VOCAB = 256
#: Share of the modules that is held out; the share of the bytes is in ``describe()``.
VALID_SHARE = 0.05
GENERATED = frozenset({"encodings", "pydoc_data"})
SHIPPED_APART = frozenset({"distutils", "ensurepip", "idlelib", "lib2to3", "tkinter", "turtle", "turtledemo"})
TESTS = frozenset({"test", "tests"})
#: Written after each file; it occurs in no source file, which Python itself forbids.
END_OF_FILE = b"\0"


@dataclass(frozen=True, eq=False)
class Corpus:
    """The text of one Python installation.

    Attributes:
        files: (path relative to the library, its module's split), in reading order.
        splits: split to its bytes [N], uint8, every file followed by ``END_OF_FILE``.
        sha256: of all paths and contents, in reading order.
        unigram_bits: bits per held-out byte of a model that knows only how often each byte occurs.
    """

    files: tuple[tuple[str, Split], ...]
    splits: dict[Split, npt.NDArray[np.uint8]]
    sha256: str
    unigram_bits: float


def split_of(path: str) -> Split:
    """Return the split of a file: a hash of its top-level module's name, the same in every Python version."""
    digest = hashlib.sha256(_module(path).encode()).digest()
    return "valid" if int.from_bytes(digest[:8]) < VALID_SHARE * 2**64 else "train"


@cache
def read_corpus(root: Path) -> Corpus:
    """Read the library below ``root`` (about 8 MB, 30 ms).

    Raises:
        GradlensError: there is no source there, as in a Python that keeps its library in a zip file.
    """
    digest = hashlib.sha256()
    parts: dict[Split, list[bytes]] = {"train": [], "valid": []}
    files: list[tuple[str, Split]] = []
    for file in _source_files(root):
        path = file.relative_to(root).as_posix()
        try:
            content = file.read_bytes()
        except OSError as error:
            raise GradlensError(
                f"The task 'lm' reads {file}, which cannot be read: {error.strerror}. Make it readable, or remove it."
            ) from error
        files.append((path, split_of(path)))
        digest.update(path.encode() + END_OF_FILE + content + END_OF_FILE)
        parts[split_of(path)].append(content + END_OF_FILE)
    if not all(parts.values()):
        raise GradlensError(
            f"The task 'lm' needs the source of Python's standard library, and {root} holds "
            f"{len(files)} of its files. Use a Python whose library is not in a zip file."
        )
    splits = {name: np.frombuffer(b"".join(part), dtype=np.uint8) for name, part in parts.items()}
    return Corpus(tuple(files), splits, digest.hexdigest(), _unigram_bits(splits["train"], splits["valid"]))


class StdlibSource:
    """The task ``lm``: predict the next byte. A batch is tokens [B, T], int64; its loss is over T - 1 bytes.

    Args:
        root: the folder of the library; by default that of the running Python.
    """

    name = "lm"
    uniform_loss = math.log(VOCAB)

    def __init__(self, root: Path | None = None) -> None:
        self._corpus = read_corpus(root or Path(sysconfig.get_path("stdlib")))

    def describe(self) -> dict[str, Any]:
        """Return version, sha256, sizes, origin, licence and the unit of the loss."""
        corpus = self._corpus
        return {
            "name": self.name,
            "version": f"Python {platform.python_version()}",
            "sha256": corpus.sha256,
            "origin": "source of the Python standard library, read in place",
            "licence": "PSF-2.0",
            "unit": "nats per byte",
            "vocab": VOCAB,
            "files": len(corpus.files),
            "train_bytes": corpus.splits["train"].size,
            "valid_bytes": corpus.splits["valid"].size,
            "valid_modules": sorted({_module(path) for path, split in corpus.files if split == "valid"}),
            "unigram_bits": corpus.unigram_bits,
        }

    def model(self, variant: str, **size: Any) -> nn.Module:
        """Build a Transformer over bytes; ``size`` goes to ``Transformer``, causal where it names no other kind."""
        return Transformer(variant, **{"kind": "decoder", **size}, vocab=VOCAB)

    def batch(self, index: int, *, seed: int, batch_size: int, length: int, split: Split = "train") -> Tensor:
        """Return ``batch_size`` windows [B, T] from uniformly random places of the split.

        Raises:
            GradlensError: a window needs at least 2 bytes and at most what the split has.
        """
        text = self._corpus.splits[split]
        if not 2 <= length <= text.size:
            raise GradlensError(
                f"The task 'lm' takes windows of 2 to {text.size} bytes from its {split} text; "
                f"length is {length}. Choose a length in between."
            )
        rng = np.random.default_rng([split == "valid", seed, index])
        starts = rng.integers(text.size - length + 1, size=(batch_size, 1))
        return torch.from_numpy(text[starts + np.arange(length)].astype(np.int64))

    def loss(self, output: Any, batch: Batch) -> Tensor:
        """Return the mean cross-entropy of each next byte, in nats.

        Args:
            output: logits [B, T, V] with V >= 256, or an object that has them as ``.logits``.
            batch: the tokens [B, T] they answer.

        Raises:
            ModelError: the output is no such tensor.
        """
        logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
        assert isinstance(batch, Tensor)
        expected = (*batch.shape, VOCAB)
        if not isinstance(logits, Tensor) or logits.shape[:-1] != batch.shape or logits.shape[-1] < VOCAB:
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(output).__name__
            raise ModelError(
                f"The task 'lm' needs logits of shape {expected}, one per byte of the batch; the model gave "
                f"{got}. Return the logits, or an object that has them as .logits."
            )
        return F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), batch[:, 1:].flatten())

    def evaluate(
        self, model: nn.Module, *, batches: int, batch_size: int, length: int, device: torch.device | str
    ) -> dict[str, float]:
        """Return ``valid_loss`` in nats per byte and ``bits_per_byte`` on the held-out modules."""
        loss = held_out_loss(self, model, batches=batches, batch_size=batch_size, length=length, device=device)
        return {"valid_loss": loss, "bits_per_byte": loss / math.log(2)}


def _module(path: str) -> str:
    return path.split("/")[0].removesuffix(".py")


def _source_files(root: Path) -> Iterator[Path]:
    """Yield the library's own source files, sorted, without entering what is left out."""
    chosen = sys.stdlib_module_names - GENERATED - SHIPPED_APART - TESTS
    for entry in sorted(root.glob("*")):
        if entry.name.removesuffix(".py") in chosen:
            yield from _python_files(entry)


def _python_files(entry: Path) -> Iterator[Path]:
    if entry.is_dir():
        for child in sorted(entry.iterdir()):
            if child.name not in TESTS:
                yield from _python_files(child)
    elif entry.suffix == ".py":
        yield entry


def _unigram_bits(train: npt.NDArray[np.uint8], valid: npt.NDArray[np.uint8]) -> float:
    """Return the cross-entropy in bits of ``valid`` under the byte counts of ``train``, each plus one."""
    counts = np.bincount(train, minlength=VOCAB) + 1.0
    bits = -np.log2(counts / counts.sum())
    return float(np.bincount(valid, minlength=VOCAB) @ bits / valid.size)
