"""Labelled sentences, read from scored movie reviews or from TSV files, and split so that nothing leaks."""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gradlens.errors import GradlensError
from gradlens.lab.tasks.sources.movie_reviews import SCORES
from gradlens.lab.tasks.task import Split

#: Share of the sentences that is held out where the data has no splits of its own.
VALID_SHARE = 0.1
#: Scores between -this and this say neither good nor bad, and are left out.
LEAST_SCORE = 0.5
#: The held-out file of a folder: the first that is there.
_HELD_OUT = ("dev.tsv", "valid.tsv", "test.tsv")

Example = tuple[str, str]


@dataclass(frozen=True)
class LabelledText:
    """Sentences of two splits, none of which is in both.

    Attributes:
        splits: split to its (label, sentence).
        classes: the labels, sorted.
        duplicates: sentences left out because they occur before, or in the held-out split.
    """

    splits: dict[Split, list[Example]]
    classes: tuple[str, ...]
    duplicates: int


def read_labelled_text(folder: Path) -> LabelledText:
    """Read the folder of the data set movie-reviews.

    Raises:
        GradlensError: files or splits are missing or empty, or a line is broken; the message holds its number.
    """
    scores = folder / SCORES
    if scores.is_file():
        examples = list(_scored(scores))
        parts: dict[Split, list[Example]] = {"train": [], "valid": []}
        for example in examples:
            parts[split_of(example[1])].append(example)
        return _split(parts, scores)
    train = folder / "train.tsv"
    held_out = next((folder / name for name in _HELD_OUT if (folder / name).is_file()), None)
    if not train.is_file() or held_out is None:
        raise GradlensError(
            f"The task 'sentences' needs {SCORES}, or train.tsv with {', '.join(_HELD_OUT[:-1])} or {_HELD_OUT[-1]}; "
            f"{folder} holds neither. Give a folder that does: gradlens data fetch movie-reviews --from FOLDER"
        )
    return _split({"train": list(_labelled(train)), "valid": list(_labelled(held_out))}, folder)


def key(sentence: str) -> str:
    """Return what two sentences share that differ in case, spaces and punctuation only."""
    return "".join(re.findall(r"\w", sentence.lower())) or sentence


def split_of(sentence: str) -> Split:
    """Return the split of a sentence: a hash of its letters, the same wherever it is read."""
    digest = hashlib.sha256(key(sentence).encode()).digest()
    return "valid" if int.from_bytes(digest[:8]) < VALID_SHARE * 2**64 else "train"


def _split(parts: dict[Split, list[Example]], where: Path) -> LabelledText:
    """Leave out repeated sentences, those of the held-out split from training first."""
    seen: set[str] = set()
    kept: dict[Split, list[Example]] = {"train": [], "valid": []}
    for split in ("valid", "train"):
        for label, sentence in parts[split]:
            if key(sentence) not in seen:
                seen.add(key(sentence))
                kept[split].append((label, sentence))
    classes = tuple(sorted({label for label, _ in kept["train"]}))
    for split, examples in kept.items():
        if not examples:
            raise GradlensError(f"Both splits must have sentences; {where} has none for {split}. Give more of it.")
    if len(classes) < 2:
        raise GradlensError(f"Sentences must have two labels or more; {where} has {', '.join(classes)} alone.")
    unknown = {label for label, _ in kept["valid"]} - set(classes)
    if unknown:
        raise GradlensError(
            f"Every held-out label must occur in training; {', '.join(sorted(unknown))} does not in {where} "
            f"(known: {', '.join(classes)}). Correct the files."
        )
    everything = sum(map(len, parts.values()))
    return LabelledText(kept, classes, everything - sum(map(len, kept.values())))


def _scored(path: Path) -> Iterator[Example]:
    for number, (_, score, sentence) in _rows(path, ("id", "score", "sentence")):
        try:
            value = float(score)
        except ValueError as error:
            raise GradlensError(
                f"{path}, line {number}: the score must be a number; it is {score!r}. Correct it, or fetch it again."
            ) from error
        if abs(value) >= LEAST_SCORE:
            yield ("positive" if value > 0 else "negative"), sentence


def _labelled(path: Path) -> Iterator[Example]:
    for _, (label, sentence) in _rows(path, ("label", "sentence")):
        yield label, sentence


def _rows(path: Path, columns: tuple[str, ...]) -> Iterable[tuple[int, list[str]]]:
    """Yield (line number, fields) of a TSV file without a head, whose lines may end in CR LF."""
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise GradlensError(f"{path} must be UTF-8; it is not: {error}. Convert it.") from error
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        fields = [field.strip() for field in line.split("\t", len(columns) - 1)]
        if not line.strip():
            continue
        if len(fields) != len(columns) or not all(fields):
            raise GradlensError(
                f"{path}, line {number}, must be {', '.join(columns)} with tabs between; it is {line[:60]!r}. "
                "Correct it."
            )
        yield number, fields
