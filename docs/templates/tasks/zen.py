"""The task ``zen``: the next byte of the text that ``import this`` prints, as Python keeps it."""

import hashlib
import math
import platform
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradlens.errors import GradlensError
from gradlens.lab.models.transformer import Transformer
from gradlens.lab.tasks.held_out import held_out_loss
from gradlens.lab.tasks.task import Batch, Split

VOCAB, VALID_SHARE = 256, 0.2


class Zen:
    """Predict the next byte. A batch is tokens [B, T], int64; its loss is over T - 1 bytes.

    Raises:
        GradlensError: the data is not here; the message says how it gets here.
    """

    name = "zen"
    uniform_loss = math.log(VOCAB)

    def __init__(self) -> None:
        path = Path(sysconfig.get_path("stdlib")) / "this.py"
        if not path.is_file():
            raise GradlensError(f"The task 'zen' needs {path}; it is not there. Use a Python that has its source.")
        self._bytes = path.read_bytes()
        text = np.frombuffer(self._bytes, dtype=np.uint8).astype(np.int64)
        cut = int(len(text) * (1 - VALID_SHARE))
        self._splits: dict[Split, Any] = {"train": text[:cut], "valid": text[cut:]}

    def describe(self) -> dict[str, Any]:
        """Return version, sha256, sizes, origin, licence and the unit of the loss."""
        return {
            "name": self.name,
            "version": f"Python {platform.python_version()}",
            "sha256": hashlib.sha256(self._bytes).hexdigest(),
            "origin": "this.py of the Python standard library, read in place",
            "licence": "PSF-2.0",
            "unit": "nats per byte",
            "vocab": VOCAB,
        }

    def model(self, variant: str, **size: Any) -> nn.Module:
        """Build the zoo's model for this task, such as ``model("post-ln/adanorm", width=64)``."""
        return Transformer(variant, **{"kind": "decoder", **size}, vocab=VOCAB)

    def batch(self, index: int, *, seed: int, batch_size: int, length: int, split: Split = "train") -> Tensor:
        """Return windows [B, T] from uniformly random places of the split, the same for every variant.

        Raises:
            GradlensError: a window needs at least 2 bytes and at most what the split has.
        """
        text = self._splits[split]
        if not 2 <= length <= len(text):
            raise GradlensError(f"The task 'zen' takes windows of 2 to {len(text)} bytes; length is {length}.")
        rng = np.random.default_rng([split == "valid", seed, index])
        starts = rng.integers(len(text) - length + 1, size=(batch_size, 1))
        return torch.from_numpy(text[starts + np.arange(length)])

    def loss(self, output: Any, batch: Batch) -> Tensor:
        """Return the mean cross-entropy of each next byte, in nats, of logits [B, T, V] for tokens [B, T]."""
        assert isinstance(batch, Tensor)
        return F.cross_entropy(output[:, :-1].flatten(0, 1).float(), batch[:, 1:].flatten())

    def evaluate(
        self, model: nn.Module, *, batches: int, batch_size: int, length: int, device: torch.device | str
    ) -> dict[str, float]:
        """Return ``valid_loss``, in nats per byte."""
        loss = held_out_loss(self, model, batches=batches, batch_size=batch_size, length=length, device=device)
        return {"valid_loss": loss}
