"""CoNLL-U, the format of Universal Dependencies (universaldependencies.org/format.html), read and checked.

What is wrong is said with the file and the number of the line. Words only are kept: the range of a multiword token
(``3-4``) covers words that follow it, and an empty node (``8.1``) belongs to the enhanced graph, not to the tree.
"""

import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from gradlens.errors import GradlensError

#: The columns that are used, of the ten.
ID, FORM, UPOS, XPOS, HEAD, DEPREL = 0, 1, 3, 4, 6, 7
COLUMNS = 10
_ENDINGS = ("conllu", "conllu.gz")


@dataclass(frozen=True)
class Sentence:
    """The words of one sentence and its tree; words count from 1.

    Attributes:
        forms: as written, one a word.
        upos: universal tags.
        xpos: tags of the treebank's own tag set; ``_`` where it has none.
        heads: the head of each word; 0 for the word below the root.
        relations: of each word to its head, subtype included (``nsubj:pass``).
    """

    forms: tuple[str, ...]
    upos: tuple[str, ...]
    xpos: tuple[str, ...]
    heads: tuple[int, ...]
    relations: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.forms)


def split_file(folder: Path, split: str) -> Path:
    """Return a treebank's file of a split, ``train``, ``dev`` or ``test``, by its published name.

    Raises:
        GradlensError: there is none, or more than one.
    """
    found = [path for ending in _ENDINGS for path in sorted(folder.glob(f"*-{split}.{ending}"))]
    if len(found) == 1:
        return found[0]
    got = f"has {' and '.join(path.name for path in found)}" if found else "has none"
    do = "Keep one treebank in a folder." if found else "Put the treebank's published files there."
    raise GradlensError(
        f"A treebank's folder must have one file *-{split}.conllu (or .conllu.gz); {folder} {got}. {do}"
    )


def read_conllu(path: Path) -> list[Sentence]:
    """Read all sentences of a file, plain or gzipped.

    Raises:
        GradlensError: it cannot be read, holds no sentence, or breaks the format: a line without ten columns,
            numbers out of order, no head or one outside the sentence, no root or several, a cycle, no empty line
            at the end.
    """
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise GradlensError(
            f"{path} must be a CoNLL-U file in UTF-8, gzipped if it ends in .gz; it cannot be read: {error}. "
            f"Fetch it again, or choose another."
        ) from error
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    if text and not text.endswith(("\n\n", "\n\r\n")):
        _fail(path, len(lines), "an empty line after the last sentence", "the end of the file", "Is it cut off?")
    sentences = [_sentence(path, block) for block in _blocks(lines)]
    if not sentences:
        raise GradlensError(f"{path} must hold sentences in CoNLL-U; it holds none. Fetch it again.")
    return sentences


def _blocks(lines: list[str]) -> Iterator[list[tuple[int, str]]]:
    """Yield the numbered lines of each sentence, without its comments."""
    block: list[tuple[int, str]] = []
    for number, line in enumerate(lines, start=1):
        if line and not line.startswith("#"):
            block.append((number, line))
        elif not line and block:
            yield block
            block = []


def _sentence(path: Path, block: list[tuple[int, str]]) -> Sentence:
    words: list[list[str]] = []
    numbers: list[int] = []
    covered = 0  # the last word of the multiword token that the words now belong to
    for number, line in block:
        columns = line.split("\t")
        if len(columns) != COLUMNS:
            _fail(path, number, f"{COLUMNS} columns with tabs between", f"{len(columns)}: {line[:40]!r}")
        name, following = columns[ID], len(words) + 1
        if name == str(following):
            _check_word(path, number, columns)
            words.append(columns)
            numbers.append(number)
        elif span := re.fullmatch(r"(\d+)-(\d+)", name):
            first, last = int(span[1]), int(span[2])
            if first != following or last < first or covered >= first:
                _fail(path, number, f"a multiword token that starts at the next word, {following}", repr(name))
            covered = last
        elif not re.fullmatch(rf"{len(words)}\.[1-9]\d*", name):
            _fail(path, number, f"the number of the next word, {following}", repr(name))
    if not words:
        _fail(path, block[0][0], "a sentence with words", "none")
    if covered > len(words):
        _fail(path, block[-1][0], f"word {covered} of a multiword token", f"the sentence's end at {len(words)}")
    _check_tree(path, numbers, [int(word[HEAD]) for word in words])
    return Sentence(
        forms=tuple(word[FORM] for word in words),
        upos=tuple(word[UPOS] for word in words),
        xpos=tuple(word[XPOS] for word in words),
        heads=tuple(int(word[HEAD]) for word in words),
        relations=tuple(word[DEPREL] for word in words),
    )


def _check_word(path: Path, number: int, columns: list[str]) -> None:
    for name, column in (("FORM", FORM), ("UPOS", UPOS), ("XPOS", XPOS), ("DEPREL", DEPREL)):
        if not columns[column].strip():
            _fail(path, number, f"something in the column {name}", "nothing")
    if not re.fullmatch(r"\d+", columns[HEAD], re.ASCII):
        _fail(path, number, "a number in the column HEAD", repr(columns[HEAD]))
    if columns[DEPREL] == "_":
        _fail(path, number, "a relation in the column DEPREL", "'_'")


def _check_tree(path: Path, numbers: list[int], heads: list[int]) -> None:
    """Fail unless the heads are those of one tree; ``numbers`` are the lines of its words."""
    for number, head in zip(numbers, heads, strict=True):
        if head > len(heads):
            _fail(path, number, f"a HEAD within the sentence's {len(heads)} words", str(head))
    roots = [number for number, head in zip(numbers, heads, strict=True) if head == 0]
    if not roots:
        _fail(path, numbers[0], "a sentence with one word of HEAD 0", "none")
    if len(roots) > 1:
        _fail(path, roots[1], "one word of HEAD 0 in a sentence", f"another on line {roots[0]}")
    reaches_root = [True] + [False] * len(heads)
    for word in range(1, len(heads) + 1):
        chain: list[int] = []
        at = word
        while not reaches_root[at] and at not in chain:
            chain.append(at)
            at = heads[at - 1]
        if not reaches_root[at]:
            cycle = chain[chain.index(at) :]
            _fail(path, numbers[min(cycle) - 1], "a tree", f"a cycle of the words {', '.join(map(str, sorted(cycle)))}")
        for passed in chain:
            reaches_root[passed] = True


def _fail(path: Path, number: int, must: str, got: str, do: str = "Mend the file, or fetch it again.") -> NoReturn:
    raise GradlensError(f"{path}, line {number}: expected {must}, got {got}. {do}")
