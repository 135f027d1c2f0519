"""What a parser's state looks like to a model: the 48 symbols of Chen & Manning 2014, as numbers.

A row holds the words and the tags at the 18 positions of `States.positions`, then the relations of the last 12 of them,
which are children. A tag is the universal and the treebank's own tag together (``VERB/VBD``), both as annotated.

Ours: words are lower-cased, and those that occur once in training are taken for unknown, so that this symbol is
trained. Relations keep their subtypes.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradlens.lab.tasks.parsing.conllu import Sentence
from gradlens.lab.tasks.parsing.transitions import CHILDREN, LEFT, NONE, POSITIONS, RIGHT, SHIFT, Bools, Ints, States

#: Symbols before those of the treebank, in words and in tags; relations have NOTHING only.
NOTHING, ROOT, UNKNOWN, RESERVED = 0, 1, 2, 3
#: How many words, tags and relations a row holds, in this order.
PLACES = (POSITIONS, POSITIONS, CHILDREN)
#: Sentences that step together: enough for numpy to be quick, few enough to be of similar length.
CHUNK = 1024

Rows = npt.NDArray[np.int32]
Floats = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Symbols:
    """The symbols of a treebank, each with its number.

    Attributes:
        words: lower-cased, from ``RESERVED`` up.
        tags: from ``RESERVED`` up.
        relations: from 0 up; a row of features holds one more, with ``NOTHING`` for no relation.
    """

    words: dict[str, int]
    tags: dict[str, int]
    relations: dict[str, int]

    @classmethod
    def of(cls, sentences: Sequence[Sentence]) -> "Symbols":
        """Return those of training sentences."""
        words = Counter(form.lower() for sentence in sentences for form in sentence.forms)
        tags = {tag for sentence in sentences for tag in _tags(sentence)}
        relations = {relation for sentence in sentences for relation in sentence.relations}
        return cls(
            words={word: i for i, word in enumerate(sorted(w for w, n in words.items() if n > 1), start=RESERVED)},
            tags={tag: i for i, tag in enumerate(sorted(tags), start=RESERVED)},
            relations={relation: i for i, relation in enumerate(sorted(relations))},
        )

    @property
    def counts(self) -> tuple[int, int, int]:
        """How many words, tags and relations occur in rows of features."""
        return len(self.words) + RESERVED, len(self.tags) + RESERVED, len(self.relations) + 1

    @property
    def transitions(self) -> int:
        """The number of transitions: SHIFT, then LEFT and then RIGHT with each relation."""
        return 1 + 2 * len(self.relations)


class Sheet:
    """Sentences as numbers, the longest first, with the states they are in.

    Args:
        sentences: in any order.
        symbols: of the training sentences.

    Attributes:
        order: place of each row's sentence in ``sentences`` [S].
        states: at the beginning.
        heads: of the treebank [S, L + 2]; ``NONE`` at the root and beyond the last word.
        relations: of the treebank [S, L + 2]; ``NONE`` there too, and where training has no such relation.
    """

    def __init__(self, sentences: Sequence[Sentence], symbols: Symbols) -> None:
        lengths = np.array([len(sentence) for sentence in sentences])
        self.order = np.argsort(-lengths, kind="stable")
        self.states = States(lengths[self.order])
        self._symbols = symbols
        shape = len(sentences), int(lengths.max()) + 2
        self.heads, self.relations = np.full(shape, NONE), np.full(shape, NONE)
        self._words, self._tags = np.full(shape, NOTHING), np.full(shape, NOTHING)
        self._words[:, 0] = self._tags[:, 0] = ROOT
        for row, place in enumerate(self.order):
            sentence = sentences[place]
            at = slice(1, len(sentence) + 1)
            self.heads[row, at] = sentence.heads
            self.relations[row, at] = [symbols.relations.get(name, NONE) for name in sentence.relations]
            self._words[row, at] = [symbols.words.get(form.lower(), UNKNOWN) for form in sentence.forms]
            self._tags[row, at] = [symbols.tags.get(tag, UNKNOWN) for tag in _tags(sentence)]

    def features(self) -> Ints:
        """Return the row [A, 48] of each unfinished state."""
        positions = self.states.positions()
        rows = np.arange(len(positions))[:, None]
        relations = self.states.relations[rows, positions[:, -CHILDREN:]] + 1
        return np.hstack([self._words[rows, positions], self._tags[rows, positions], relations])

    def advance(self, transitions: Ints) -> None:
        """Make the numbered transition [A] in each unfinished state."""
        arc, count = transitions - 1, len(self._symbols.relations)
        self.states.apply(np.where(arc < 0, SHIFT, LEFT + arc // count), arc % count)

    def legal(self) -> Bools:
        """Return which transitions each unfinished state allows, [A, transitions]."""
        shift, left, right = self.states.legal().T
        count = len(self._symbols.relations)
        return np.column_stack([shift, *[left] * count, *[right] * count])

    def right(self) -> tuple[Ints, Ints]:
        """Return the kind of the transition that each unfinished state needs, and its arc's relation, [A] each."""
        positions = self.states.positions()
        kinds = self.states.oracle(self.heads)
        child = np.where(kinds == LEFT, positions[:, 1], positions[:, 0])
        return kinds, self.relations[np.arange(len(kinds)), child]


def oracle_states(sentences: Sequence[Sentence], symbols: Symbols) -> tuple[Rows, Ints]:
    """Return every state on the way to the trees of projective sentences, [N, 48], and its right transition [N].

    Left out are those whose right transition has a relation that training lacks.
    """
    found_states: list[Rows] = []
    found_transitions: list[Ints] = []
    for sheet in _sheets(sentences, symbols):
        while sheet.states.active:
            rows = sheet.features().astype(np.int32)
            kinds, relations = sheet.right()
            known = (kinds == SHIFT) | (relations != NONE)
            numbers = np.where(kinds == SHIFT, 0, 1 + relations + (kinds == RIGHT) * len(symbols.relations))
            found_states.append(rows[known])
            found_transitions.append(numbers[known])
            sheet.states.apply(kinds, relations)
    return np.concatenate(found_states), np.concatenate(found_transitions)


def parse(
    sentences: Sequence[Sentence], symbols: Symbols, scores: Callable[[Ints], Floats]
) -> list[tuple[list[int], list[str]]]:
    """Parse greedily, all sentences a step at a time.

    Args:
        sentences: their trees are not looked at.
        symbols: of the training sentences.
        scores: states [A, 48] to a score of each transition [A, transitions]; the highest that is legal is made.

    Returns:
        Heads and relations of each sentence's words, in the order of the sentences.
    """
    sheet = Sheet(sentences, symbols)
    while sheet.states.active:
        finite = np.nan_to_num(scores(sheet.features()))  # a model that diverged makes trees too, bad ones
        sheet.advance(np.where(sheet.legal(), finite, -np.inf).argmax(axis=1))
    names = list(symbols.relations)
    parsed: list[tuple[list[int], list[str]]] = [([], [])] * len(sentences)
    for row, place in enumerate(sheet.order):
        at = slice(1, len(sentences[place]) + 1)
        heads, relations = sheet.states.heads[row, at], sheet.states.relations[row, at]
        parsed[place] = (heads.tolist(), [names[relation] for relation in relations])
    return parsed


def _sheets(sentences: Sequence[Sentence], symbols: Symbols) -> Iterator[Sheet]:
    """Yield sheets of sentences of similar length, so that few rows wait for the longest."""
    by_length = sorted(sentences, key=len, reverse=True)
    for start in range(0, len(by_length), CHUNK):
        yield Sheet(by_length[start : start + CHUNK], symbols)


def _tags(sentence: Sentence) -> list[str]:
    return [f"{upos}/{xpos}" for upos, xpos in zip(sentence.upos, sentence.xpos, strict=True)]
