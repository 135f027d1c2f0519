"""A treebank in CoNLL-U, written in milliseconds: a small grammar whose trees can be told from words and tags."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from gradlens.lab.tasks.parsing.conllu import Sentence

DETERMINERS, ADJECTIVES = ("the", "a", "this"), ("red", "old", "big")
NOUNS = ("dog", "cat", "tree", "house", "man")
ACTIVE, PASSIVE = ("sees", "finds", "likes"), ("seen", "found", "liked")


def sentence(rng: np.random.Generator) -> Sentence:
    """Subject, verb, an object in the active, and a phrase with "of" (of the noun before) or "with" (of the verb)."""
    rows: list[list[object]] = []  # form, upos, xpos, head, relation

    def phrase(head: int, relation: str, case: str | None = None) -> int:
        """Add [case] determiner [adjective] noun; return the noun's number."""
        words = [(case, "ADP", "IN", "case")] if case else []
        words.append((str(rng.choice(DETERMINERS)), "DET", "DT", "det"))
        words += [(str(rng.choice(ADJECTIVES)), "ADJ", "JJ", "amod")] * int(rng.integers(2))
        noun = len(rows) + len(words) + 1
        rows.extend([form, upos, xpos, noun, name] for form, upos, xpos, name in words)
        rows.append([str(rng.choice(NOUNS)), "NOUN", "NN", head, relation])
        return noun

    passive = bool(rng.integers(2))
    subject = phrase(0, "nsubj:pass" if passive else "nsubj")
    verb = len(rows) + 1 + passive
    rows[subject - 1][3] = verb
    if passive:
        rows.append(["is", "AUX", "VBZ", verb, "aux:pass"])
    rows.append([str(rng.choice(PASSIVE if passive else ACTIVE)), "VERB", "VBN" if passive else "VBZ", 0, "root"])
    noun = verb if passive else phrase(verb, "obj")
    if rng.integers(2):
        of = bool(rng.integers(2)) and not passive
        phrase(noun if of else verb, "nmod" if of else "obl", case="of" if of else "with")
    rows.append([".", "PUNCT", ".", verb, "punct"])
    forms, upos, xpos, heads, relations = zip(*rows, strict=True)
    return Sentence(forms, upos, xpos, heads, relations)  # type: ignore[arg-type]


#: "A hearing is scheduled on the issue", where "on the issue" belongs to the hearing: two arcs cross.
CROSSING = Sentence(
    forms=("a", "hearing", "is", "scheduled", "on", "the", "issue"),
    upos=("DET", "NOUN", "AUX", "VERB", "ADP", "DET", "NOUN"),
    xpos=("DT", "NN", "VBZ", "VBN", "IN", "DT", "NN"),
    heads=(2, 4, 4, 0, 7, 7, 2),
    relations=("det", "nsubj:pass", "aux:pass", "root", "case", "det", "nmod"),
)


def sentences(count: int, seed: int = 0) -> list[Sentence]:
    rng = np.random.default_rng(seed)
    return [sentence(rng) for _ in range(count)]


def conllu(of: list[Sentence]) -> str:
    """The sentences as a file in CoNLL-U."""
    lines = []
    for number, one in enumerate(of):
        lines.append(f"# sent_id = {number}")
        words = zip(one.forms, one.upos, one.xpos, one.heads, one.relations, strict=True)
        for i, (form, upos, xpos, head, relation) in enumerate(words, start=1):
            lines.append("\t".join(map(str, (i, form, form, upos, xpos, "_", head, relation, "_", "_"))))
        lines.append("")
    return "\n".join(lines) + "\n"


def write(folder: Path, *, train: list[Sentence] | None = None, dev: list[Sentence] | None = None) -> Path:
    """Write a treebank's folder, its development file packed."""
    folder.mkdir(parents=True, exist_ok=True)
    train = [*sentences(300, 1), CROSSING] if train is None else train
    dev = [*sentences(60, 2), CROSSING, CROSSING] if dev is None else dev
    (folder / "xx_tiny-ud-train.conllu").write_text(conllu(train), "utf-8")
    (folder / "xx_tiny-ud-dev.conllu.gz").write_bytes(gzip.compress(conllu(dev).encode()))
    return folder


def link(folder: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a folder the data set ``ud-ewt``, in a store of its own."""
    from gradlens.lab.tasks.sources import store as real

    monkeypatch.setenv("GRADLENS_DATA", str(store))
    real.link("ud-ewt", folder)
