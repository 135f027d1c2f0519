"""Dependency parsing: the transitions of a greedy arc-standard parser, as in Chen & Manning 2014, on a UD treebank.

Xu et al. 2019 (1911.07013) parse the Penn Treebank, which is not free; the default here is UD English EWT, with the
tags that it is annotated with. What is known of their network, and what is ours, is in ``gradlens.lab.models.parser``.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradlens.batches import run_model, to_device
from gradlens.errors import ModelError
from gradlens.lab.models.parser import Parser
from gradlens.lab.tasks.held_out import evaluating, held_out_loss
from gradlens.lab.tasks.parsing.attachment import attachment_scores
from gradlens.lab.tasks.parsing.features import PLACES, Floats, parse
from gradlens.lab.tasks.parsing.transitions import Ints
from gradlens.lab.tasks.parsing.treebank import Treebank, read_treebank
from gradlens.lab.tasks.sources import about, located
from gradlens.lab.tasks.task import Batch, Split


class Parsing:
    """The task ``parsing``: predict the next transition. A batch is states [N, 48] and right transitions [N], int64.

    N is ``batch_size * length``: there are as many predictions in a batch as where it holds so many tokens. Each state
    is drawn by itself, from all on the oracle's way to the projective trees.

    Args:
        folder: of a treebank in CoNLL-U; by default the data set ``ud-ewt``.

    Raises:
        GradlensError: the data is not here, or broken; the message says the command that brings it, or the line.
    """

    name = "parsing"

    def __init__(self, folder: Path | None = None) -> None:
        self._treebank = read_treebank(folder or located("ud-ewt"))
        self._about = about("ud-ewt") if folder is None else _about(folder, self._treebank)
        self.uniform_loss = math.log(self._treebank.symbols.transitions)

    def describe(self) -> dict[str, Any]:
        """Return origin, sizes, how many trees are not projective, and how it is scored."""
        bank = self._treebank
        counts: dict[str, int] = {}
        for split, sentences in bank.sentences.items():
            counts |= {
                f"{split}_sentences": len(sentences),
                f"{split}_words": sum(map(len, sentences)),
                f"{split}_nonprojective": len(sentences) - bank.projective[split],
                f"{split}_transitions": len(bank.oracle[split][1]),
            }
        return {
            "name": self.name,
            **self._about,
            "unit": "nats per transition",
            **counts,
            "valid_sentences_also_in_train": bank.repeated,
            "valid_transitions_unknown": bank.unknown,
            "words": len(bank.symbols.words),
            "tags": len(bank.symbols.tags),
            "relations": len(bank.symbols.relations),
            "scores": "CoNLL 2018: all words with punctuation; las without subtypes of relations; per cent",
        }

    def model(self, variant: str, *, heads: int | None = None, **size: Any) -> nn.Module:
        """Build the parser's network.

        Args:
            variant: ``plain`` or ``plain/NORM``.
            heads: not used; a network without attention has none.
            size: goes to ``Parser`` as it is; its defaults are Chen & Manning's.
        """
        symbols = self._treebank.symbols
        return Parser(variant, symbols=symbols.counts, places=PLACES, transitions=symbols.transitions, **size)

    def batch(self, index: int, *, seed: int, batch_size: int, length: int, split: Split = "train") -> Batch:
        """Return ``batch_size * length`` states and their right transitions, drawn uniformly from the split's."""
        states, transitions = self._treebank.oracle[split]
        rng = np.random.default_rng([split == "valid", seed, index])
        drawn = rng.integers(len(transitions), size=batch_size * length)
        return {
            "states": torch.from_numpy(states[drawn].astype(np.int64)),
            "transitions": torch.from_numpy(transitions[drawn]),
        }

    def loss(self, output: Any, batch: Batch) -> Tensor:
        """Return the mean cross-entropy of the right transitions, in nats.

        Args:
            output: scores [N, transitions], or an object that has them as ``.logits``.
            batch: the states and right transitions they answer.

        Raises:
            ModelError: the output is no such tensor.
        """
        assert isinstance(batch, dict)
        return F.cross_entropy(self._scores(output, len(batch["states"])), batch["transitions"])

    def evaluate(
        self, model: nn.Module, *, batches: int, batch_size: int, length: int, device: torch.device | str
    ) -> dict[str, float]:
        """Return ``valid_loss`` on the oracle's states, and ``uas`` and ``las`` of all validation sentences, parsed."""
        loss = held_out_loss(self, model, batches=batches, batch_size=batch_size, length=length, device=device)
        return {"valid_loss": loss, **self.attachment(model, device)}

    def attachment(self, model: nn.Module, device: torch.device | str = "cpu") -> dict[str, float]:
        """Parse all validation sentences greedily, non-projective ones too, and return ``uas`` and ``las``."""

        def scores(states: Ints) -> Floats:
            nothing = np.zeros(len(states), dtype=np.int64)  # a batch holds transitions; here they are what is asked
            batch = {"states": torch.from_numpy(states), "transitions": torch.from_numpy(nothing)}
            found: Floats = self._scores(run_model(model, to_device(batch, device)), len(states)).cpu().numpy()
            return found

        sentences = self._treebank.sentences["valid"]
        with evaluating(model):
            parsed = parse(sentences, self._treebank.symbols, scores)
        return attachment_scores(
            [head for sentence in sentences for head in sentence.heads],
            [relation for sentence in sentences for relation in sentence.relations],
            [head for heads, _ in parsed for head in heads],
            [relation for _, relations in parsed for relation in relations],
        )

    def _scores(self, output: Any, count: int) -> Tensor:
        scores = output if isinstance(output, Tensor) else getattr(output, "logits", None)
        expected = count, self._treebank.symbols.transitions
        if not isinstance(scores, Tensor) or scores.shape != expected:
            got = tuple(scores.shape) if isinstance(scores, Tensor) else type(output).__name__
            raise ModelError(
                f"The task 'parsing' needs scores of shape {expected}, of each state and transition; the model gave "
                f"{got}. Return the scores, or an object that has them as .logits."
            )
        return scores.float()


def _about(folder: Path, treebank: Treebank) -> dict[str, str]:
    facts = {
        "version": "as found in the folder",
        "origin": f"folder: {folder.resolve().name}",
        "licence": "that of the folder",
    }
    return facts | {"sha256": treebank.sha256}
