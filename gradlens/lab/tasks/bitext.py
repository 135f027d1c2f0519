"""Sentence pairs of two languages, from LibreOffice's help or from aligned text, split so that nothing leaks."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gradlens.errors import GradlensError
from gradlens.lab.tasks.sources.libreoffice_help import FOLDERS, paragraphs
from gradlens.lab.tasks.task import Split

#: Share of the help's pages that is held out.
VALID_SHARE = 0.05
LEAST_WORDS, MOST_WORDS, MOST_RATIO = 3, 60, 2.0
_HELD_OUT = ("valid", "dev", "test")
#: A sentence ends at a mark that white space and a capital, digit or bracket follow.
_SENTENCE_END = re.compile(r"(?<=[.!?:])\s+(?=[\"“„(\[]?[^\W_a-zà-ỿ])")
_VIETNAMESE = re.compile("[ăâđêôơưàảãáạằẳẵắặầẩẫấậèẻẽéẹềểễếệìỉĩíịòỏõóọồổỗốộờởỡớợùủũúụừửữứựỳỷỹýỵ]", re.IGNORECASE)

Pair = tuple[str, str]


@dataclass(frozen=True)
class Bitext:
    """Pairs (source sentence, target sentence) of two splits.

    Attributes:
        splits: split to its pairs.
        pages: split to the pages its pairs are from; empty for aligned text.
        left_out: reason to the number of pairs left out for it.
    """

    splits: Mapping[Split, list[Pair]]
    pages: Mapping[Split, list[str]] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)


def read_bitext(folder: Path, source: str, target: str) -> Bitext:
    """Read a folder of the data set libreoffice-help: aligned text where it has any, else the help itself.

    Args:
        folder: with the help's tables or pages; or with train.LANGUAGE and valid.LANGUAGE (or dev, test) for both
            languages, line by line; or with train.tsv and valid.tsv, each line a source, a tab and a target.
        source: language, as ``"en"``.
        target: language.

    Raises:
        GradlensError: files are missing, their lines do not correspond, or a split is empty.
    """
    if any((folder / f"train.{ending}").is_file() for ending in (source, target, "tsv")):
        held_out = next((n for n in _HELD_OUT if (folder / f"{n}.{source}").is_file()), None) or next(
            (n for n in _HELD_OUT if (folder / f"{n}.tsv").is_file()), _HELD_OUT[0]
        )
        parts: dict[Split, list[Pair]] = {
            "train": read_aligned(folder, "train", source, target),
            "valid": read_aligned(folder, held_out, source, target),
        }
        return _without_leaks(parts, {}, {}, folder)
    return _read_help(folder, source, target)


def read_aligned(folder: Path, name: str, source: str, target: str) -> list[Pair]:
    """Read NAME.SOURCE with NAME.TARGET, or NAME.tsv; pairs with an empty side are left out.

    Raises:
        GradlensError: a file is missing, the two have different numbers of lines, or a line has no tab.
    """
    table, files = folder / f"{name}.tsv", [folder / f"{name}.{language}" for language in (source, target)]
    if not any(file.is_file() for file in files) and table.is_file():
        pairs = []
        for number, line in enumerate(_lines(table), start=1):
            fields = line.split("\t")
            if line.strip() and len(fields) != 2:
                raise GradlensError(
                    f"{table}, line {number}, must be a source, a tab and a target; it has {len(fields)} fields. "
                    "Correct it."
                )
            pairs.append((fields[0].strip(), fields[-1].strip()))
    else:
        sides = [_lines(file) for file in files]
        if len(sides[0]) != len(sides[1]):
            raise GradlensError(
                f"Aligned files must have equally many lines; {files[0]} has {len(sides[0])} and {files[1]} has "
                f"{len(sides[1])}. Align them again."
            )
        pairs = [(a.strip(), b.strip()) for a, b in zip(*sides, strict=True)]
    return [pair for pair in pairs if all(pair)]


def split_of(page: str) -> Split:
    """Return the split of a page: a hash of its path, the same for every language and version."""
    digest = hashlib.sha256(page.encode()).digest()
    return "valid" if int.from_bytes(digest[:8]) < VALID_SHARE * 2**64 else "train"


def sentences(source: str, target: str) -> list[Pair]:
    """Split a pair of paragraphs into sentences where both have equally many, else return it whole.

    >>> sentences("Open it. Save it.", "Öffnen Sie es. Speichern Sie es.")
    [('Open it.', 'Öffnen Sie es.'), ('Save it.', 'Speichern Sie es.')]
    """
    a, b = _SENTENCE_END.split(source), _SENTENCE_END.split(target)
    return list(zip(a, b, strict=True)) if len(a) == len(b) else [(source, target)]


def why_left_out(pair: Pair, languages: tuple[str, str]) -> str | None:
    """Return why a pair of the help is not used, or None: one rule a reason."""
    counts = [len(side.split()) for side in pair]
    if pair[0] == pair[1]:
        return "not translated"
    if min(counts) < LEAST_WORDS:
        return f"below {LEAST_WORDS} words"
    if max(counts) > MOST_WORDS:
        return f"above {MOST_WORDS} words"
    if max(counts) > MOST_RATIO * min(counts):
        return f"one side more than {MOST_RATIO:g} times as long"
    for side, language in zip(pair, languages, strict=True):
        if language == "vi" and not _VIETNAMESE.search(side):
            return "no Vietnamese letter"
    return None


def _read_help(folder: Path, source: str, target: str) -> Bitext:
    for language in (source, target):
        if language not in FOLDERS:
            raise GradlensError(f"LibreOffice's help is here in {', '.join(FOLDERS)}; got {language!r}. Take these.")
    other = {(path, number, text_id): text for path, number, text_id, text in _numbered(folder, target)}
    parts: dict[Split, list[Pair]] = {"train": [], "valid": []}
    pages: dict[Split, dict[str, None]] = {"train": {}, "valid": {}}
    left_out: dict[str, int] = {}
    for path, number, text_id, text in _numbered(folder, source):
        translation = other.get((path, number, text_id))
        found = [] if translation is None else sentences(text, translation)
        if translation is None:
            left_out["no such paragraph"] = left_out.get("no such paragraph", 0) + 1
        for pair in found:
            reason = why_left_out(pair, (source, target))
            if reason is None:
                parts[split_of(path)].append(pair)
                pages[split_of(path)][path] = None
            else:
                left_out[reason] = left_out.get(reason, 0) + 1
    return _without_leaks(parts, {split: sorted(names) for split, names in pages.items()}, left_out, folder)


def _numbered(folder: Path, language: str) -> Iterator[tuple[str, int, str, str]]:
    """Yield (path, how often the id occurred before in it, id, text)."""
    seen: dict[tuple[str, str], int] = {}
    for path, text_id, text in paragraphs(folder, language):
        number = seen[path, text_id] = seen.get((path, text_id), -1) + 1
        yield path, number, text_id, text


def _without_leaks(
    parts: dict[Split, list[Pair]], pages: Mapping[Split, list[str]], left_out: dict[str, int], folder: Path
) -> Bitext:
    """Leave out repeated pairs, and from training whatever shares a side with a held-out pair."""
    held_out = list(dict.fromkeys(parts["valid"]))
    taken = [{_key(pair[side]) for pair in held_out} for side in (0, 1)]
    once = list(dict.fromkeys(parts["train"]))
    train = [pair for pair in once if _key(pair[0]) not in taken[0] and _key(pair[1]) not in taken[1]]
    left_out = {
        **left_out,
        "repeated": len(parts["valid"]) - len(held_out) + len(parts["train"]) - len(once),
        "from training, for a side is held out": len(once) - len(train),
    }
    for split, pairs in (("train", train), ("valid", held_out)):
        if not pairs:
            raise GradlensError(f"Both splits must have pairs; {folder} has none for {split}. Give more of it.")
    return Bitext({"train": train, "valid": held_out}, pages, left_out)


def _key(side: str) -> str:
    return " ".join(side.lower().split())


def _lines(path: Path) -> list[str]:
    """Return the lines of a text file; characters that Unicode breaks lines at are no ends of lines here."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise GradlensError(
            f"Aligned text needs {path}, in UTF-8, which cannot be read: {error}. Put it there; both languages and "
            f"both splits are needed."
        ) from error
    return text.replace("\r\n", "\n").removesuffix("\n").split("\n")
