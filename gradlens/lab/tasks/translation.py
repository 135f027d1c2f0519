"""Translation of LibreOffice's help, or of any aligned text: an encoder-decoder, beam search and sacreBLEU.

As in Xu et al. 2019: one vocabulary of byte pairs and one embedding for both languages, label smoothing 0.1, a
beam of 5, pre-norm as the arrangement to take. Ours, for two cores and a narrow domain: 4,000 pieces instead
of 10,000 or more, dropout 0.1 instead of 0.3, and the size. Their embedding is tied to the output; ours is not.
"""

import math
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
from gradlens.lab.tasks.beam_search import NextLogits, Search, beam_search
from gradlens.lab.tasks.bitext import Bitext, Pair, read_bitext
from gradlens.lab.tasks.held_out import evaluating
from gradlens.lab.tasks.incremental_decoder import IncrementalDecoder
from gradlens.lab.tasks.pieces import BEGIN, END, PAD, Pieces, required
from gradlens.lab.tasks.sources import about, located
from gradlens.lab.tasks.task import Batch, Split

VOCAB = 4000
DROPOUT = 0.1
SMOOTHING = 0.1
#: A translation has at most this many pieces for each of the source's, and so many more.
LONGEST = (1.5, 10)
_TRANSLATED_TOGETHER = 32
#: How many held-out sentences a finished run shows, and of how many letters.
SHOWN, _LETTERS_SHOWN = 8, range(30, 141)


class Translation:
    """The task ``translation``. A batch is source [B, S] and target [B, T] with begin and end.

    A model gives logits for every token of the target; its loss is over the T - 1 tokens after the first that
    are no padding. ``batch_size`` x ``length`` is the number of tokens of a batch, padding counted, on its longer
    side: B is larger where sentences are short. Pairs with a side of more than ``length`` tokens are left out of
    training and of the loss on held-out pairs, not of BLEU.

    Args:
        source: language.
        target: language.
        data: what to read; by default the data set libreoffice-help.
        vocab: pieces of the two languages together.
    """

    def __init__(self, source: str = "en", target: str = "de", data: Bitext | None = None, vocab: int = VOCAB) -> None:
        self.name = "translation" if (source, target) == ("en", "de") else f"translation-{source}-{target}"
        self.languages = (source, target)
        required("sacrebleu")  # said before hours of training, not after
        self._about = about("libreoffice-help") if data is None else {}
        if data is None:
            self._data, self._pieces = _prepared(located("libreoffice-help"), source, target, vocab)
        else:
            self._data, self._pieces = data, _pieces(data, vocab)
        self.uniform_loss = math.log(len(self._pieces))
        self._encoded = {split: self._encode(pairs) for split, pairs in self._data.splits.items()}
        self._lengths = {
            split: np.array([max(len(a), len(b)) for a, b in encoded]) for split, encoded in self._encoded.items()
        }

    def describe(self) -> dict[str, Any]:
        """Return where the pairs are from, their number, what was left out and why, and how BLEU is computed."""
        data = self._data
        return {
            "name": self.name,
            **(self._about or {"version": "given", "sha256": "", "origin": "given", "licence": "not known"}),
            "languages": list(self.languages),
            "unit": "nats per piece",
            "vocab": len(self._pieces),
            "vocab_sha256": self._pieces.sha256,
            "train_pairs": len(data.splits["train"]),
            "valid_pairs": len(data.splits["valid"]),
            "train_pages": len(data.pages.get("train", ())),
            "valid_pages": len(data.pages.get("valid", ())),
            "left_out": dict(data.left_out),
            "label_smoothing": SMOOTHING,
            "bleu": str(_bleu([""], [[""]])[1]),
        }

    def model(self, variant: str, **size: Any) -> nn.Module:
        """Build an encoder-decoder; ``size`` goes to ``Transformer`` as it is, ``blocks`` for each stack."""
        size = {"dropout": DROPOUT, **size}
        return Transformer(variant, kind="encoder-decoder", vocab=len(self._pieces), pad=PAD, **size)

    def batch(
        self, index: int, *, seed: int, batch_size: int, length: int, split: Split = "train"
    ) -> tuple[Tensor, Tensor]:
        """Return pairs of about the same length, each once an epoch.

        Raises:
            GradlensError: no pair is as short as that.
        """
        chosen = self._epochs(batch_size, length, split).batch(index, seed=(split == "valid", seed))
        pairs = [self._encoded[split][i] for i in self._short(length, split)[chosen].tolist()]
        return padded([source for source, _ in pairs], PAD), padded([target for _, target in pairs], PAD)

    def loss(self, output: Any, batch: Batch) -> Tensor:
        """Return the cross-entropy of the next pieces with smoothed labels, in nats per piece."""
        return self._cross_entropy(output, batch, label_smoothing=SMOOTHING)

    def evaluate(
        self, model: nn.Module, *, batches: int, batch_size: int, length: int, device: torch.device | str
    ) -> dict[str, float]:
        """Return ``valid_loss`` in nats per piece, without smoothing, and ``bleu`` on held-out pairs.

        The loss is over the first ``batches`` held-out batches, BLEU over ``batches`` x ``batch_size`` held-out
        pairs of any length, the same for every model.
        """
        total, count = 0.0, 0
        with evaluating(model):
            for index in range(min(batches, len(self._epochs(batch_size, length, "valid")))):
                batch = self.batch(index, seed=0, batch_size=batch_size, length=length, split="valid")
                batch = to_device(batch, device)
                pieces = int((batch[1][:, 1:] != PAD).sum())
                total += float(self._cross_entropy(run_model(model, batch), batch)) * pieces
                count += pieces
            everything = self._data.splits["valid"]
            chosen = np.random.default_rng(0).permutation(len(everything))[: batches * batch_size].tolist()
            found = self.translate(model, [everything[i][0] for i in chosen], device=device)
        bleu, _ = _bleu(found, [[everything[i][1] for i in chosen]])
        return {"valid_loss": total / count, "bleu": bleu}

    def samples(self, model: nn.Module, device: torch.device | str = "cpu") -> list[dict[str, str]]:
        """Translate a few held-out sentences, drawn with a fixed seed: source, reference, translation."""
        short = [pair for pair in self._data.splits["valid"] if len(pair[0]) in _LETTERS_SHOWN]
        chosen = [short[i] for i in np.random.default_rng(0).permutation(len(short))[:SHOWN].tolist()]
        with evaluating(model):
            found = self.translate(model, [source for source, _ in chosen], device=device)
        return [
            {"source": source, "reference": reference, "translation": text}
            for (source, reference), text in zip(chosen, found, strict=True)
        ]

    @torch.no_grad()
    def translate(
        self, model: nn.Module, sentences: list[str], *, device: torch.device | str = "cpu", beam: int = 5
    ) -> list[str]:
        """Translate sentences by beam search; the model should be in evaluation mode."""
        sources = [[*pieces, END] for pieces in self._pieces.encode(sentences)]
        search = Search(begin=BEGIN, end=END, banned=(PAD,), beam=beam)
        longest = model.size.max_length if isinstance(model, Transformer) else math.inf
        found = [""] * len(sentences)
        order = sorted(range(len(sources)), key=lambda i: len(sources[i]))  # together what is about as long
        for start in range(0, len(order), _TRANSLATED_TOGETHER):
            chosen = order[start : start + _TRANSLATED_TOGETHER]
            source = padded([sources[i] for i in chosen], PAD).to(device)
            most = [int(min(LONGEST[0] * len(sources[i]) + LONGEST[1], longest)) for i in chosen]
            best = beam_search(_next_logits(model, source), search, most, device)
            for i, (pieces, _) in zip(chosen, best, strict=True):
                found[i] = self._pieces.decode(pieces)
        return found

    def _cross_entropy(self, output: Any, batch: Batch, *, label_smoothing: float = 0.0) -> Tensor:
        """Return the mean over the target's real tokens after the first.

        Raises:
            ModelError: the output is no logits [B, T, V], nor an object that has them as ``.logits``.
        """
        assert isinstance(batch, tuple)
        target = batch[1]
        logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
        expected = (*target.shape, len(self._pieces))
        if not isinstance(logits, Tensor) or tuple(logits.shape) != expected:
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(output).__name__
            raise ModelError(
                f"The task {self.name!r} needs logits of shape {expected}, one per token of the target; the model "
                f"gave {got}. Return the logits, or an object that has them as .logits."
            )
        return F.cross_entropy(
            logits[:, :-1].flatten(0, 1).float(),
            target[:, 1:].flatten(),
            ignore_index=PAD,
            label_smoothing=label_smoothing,
        )

    def _encode(self, pairs: list[Pair]) -> list[tuple[list[int], list[int]]]:
        sources, targets = (self._pieces.encode([pair[side] for pair in pairs]) for side in (0, 1))
        return [([*a, END], [BEGIN, *b, END]) for a, b in zip(sources, targets, strict=True)]

    def _short(self, length: int, split: Split) -> np.ndarray[Any, np.dtype[np.int64]]:
        return np.flatnonzero(self._lengths[split] <= length)

    def _epochs(self, batch_size: int, length: int, split: Split) -> Epochs:
        short = self._short(length, split)
        if not short.size:
            raise GradlensError(
                f"The task {self.name!r} has no {split} pair of at most {length} tokens; the shortest has "
                f"{self._lengths[split].min()}. Choose a greater length."
            )
        return Epochs(self._lengths[split][short], most=short.size, tokens=batch_size * length)


def german_to_english() -> Translation:
    """Return the task ``translation-de-en``."""
    return Translation("de", "en")


def english_to_vietnamese() -> Translation:
    """Return the task ``translation-en-vi``."""
    return Translation("en", "vi")


def _next_logits(model: nn.Module, source: Tensor) -> NextLogits:
    """Return what beam search asks for the next token; a model of the zoo reads each token once."""
    if not isinstance(model, Transformer):

        def run_all(prefixes: Tensor, sentence: Tensor, parents: Tensor) -> Tensor:
            output = run_model(model, (source[sentence], prefixes))
            logits: Tensor = output if isinstance(output, Tensor) else output.logits
            return logits[:, -1]

        return run_all
    return IncrementalDecoder(model, source)


def _bleu(found: list[str], references: list[list[str]]) -> tuple[float, Any]:
    """Return sacreBLEU's score in percent and its signature."""
    metric = required("sacrebleu").metrics.BLEU()
    return float(metric.corpus_score(found, references).score), metric.get_signature()


@cache
def _prepared(folder: Path, source: str, target: str, vocab: int) -> tuple[Bitext, Pieces]:
    """Read the data and train its pieces, which takes seconds, once in a process."""
    data = read_bitext(folder, source, target)
    return data, _pieces(data, vocab)


def _pieces(data: Bitext, size: int) -> Pieces:
    return Pieces((side for pair in data.splits["train"] for side in pair), size)
