"""A treebank read for training: what is learnt from, what is held out, and how much of it the parser cannot build."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from gradlens.errors import GradlensError
from gradlens.lab.tasks.parsing.conllu import Sentence, read_conllu, split_file
from gradlens.lab.tasks.parsing.features import Rows, Symbols, oracle_states
from gradlens.lab.tasks.parsing.transitions import Ints, is_projective
from gradlens.lab.tasks.task import Split

#: The published name of each split; the published test sentences are not read at all.
PUBLISHED: dict[Split, str] = {"train": "train", "valid": "dev"}


@dataclass(frozen=True, eq=False)
class Treebank:
    """The sentences of a treebank, and the oracle's way to the projective ones among their trees.

    Attributes:
        sentences: of each split, all of them.
        projective: how many sentences of each split have a tree that the parser can build.
        symbols: of the projective training sentences.
        oracle: of each split, the states [N, 48] on the way to its projective trees, with the right transitions [N].
        unknown: validation transitions left out of the oracle's, for a relation that training lacks.
        sha256: of the files that were read.
    """

    sentences: dict[Split, list[Sentence]]
    projective: dict[Split, int]
    symbols: Symbols
    oracle: dict[Split, tuple[Rows, Ints]]
    unknown: int
    sha256: str

    @property
    def repeated(self) -> int:
        """How many validation sentences have the words of a training sentence."""
        trained_on = {sentence.forms for sentence in self.sentences["train"]}
        return sum(sentence.forms in trained_on for sentence in self.sentences["valid"])


@cache
def read_treebank(folder: Path) -> Treebank:
    """Read the training and the development file of a folder (two seconds for 12,544 sentences).

    Raises:
        GradlensError: a file is missing or broken, or no tree of a split is projective.
    """
    files = {split: split_file(folder, name) for split, name in PUBLISHED.items()}
    sentences = {split: read_conllu(file) for split, file in files.items()}
    projective = {split: _projective(files[split], found) for split, found in sentences.items()}
    symbols = Symbols.of(projective["train"])
    oracle = {split: oracle_states(found, symbols) for split, found in projective.items()}
    digest = hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files.values()))
    return Treebank(
        sentences=sentences,
        projective={split: len(found) for split, found in projective.items()},
        symbols=symbols,
        oracle=oracle,
        unknown=2 * sum(map(len, projective["valid"])) - len(oracle["valid"][1]),
        sha256=digest.hexdigest(),
    )


def _projective(file: Path, sentences: Sequence[Sentence]) -> list[Sentence]:
    found = [sentence for sentence in sentences if is_projective(sentence.heads)]
    if not found:
        raise GradlensError(
            f"{file} must hold projective trees, which are what an arc-standard parser builds; none of its "
            f"{len(sentences)} is. Choose another treebank."
        )
    return found
