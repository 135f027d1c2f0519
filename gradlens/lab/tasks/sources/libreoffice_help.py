"""LibreOffice's help in English, German and Vietnamese: the same pages and paragraph ids in every language.

The paragraphs of Debian's packages are kept as one table a language, ``path<TAB>id<TAB>text``, which is a
tenth of the pages' HTML. A folder may hold the pages themselves, as a package installs them, or any two
aligned files instead. Debian's version moves with security updates: it is recorded, not pinned.
"""

import html
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from gradlens.errors import GradlensError
from gradlens.lab.tasks.sources.clients import apt_download, debian_extract, debian_version, sha256_of
from gradlens.lab.tasks.sources.source import Brought, Source

#: Language to the folder of its pages; Debian's packages are named after it in lower case.
FOLDERS = {"en": "en-US", "de": "de", "vi": "vi"}
_INSTALLED = Path("usr/share/libreoffice/help")
_PARAGRAPH = re.compile(r'<(p|h[1-6]) id="((?:par|hd)_[^"]*)"[^>]*>(.*?)</\1>', re.DOTALL)
_TAG = re.compile(r"<([^>]*)>")
#: A passage that only a reader of another system sees; what stands beside it is for everybody else.
_ELSEWHERE = re.compile(r'span\b.*\bclass="(MAC|UNIX)"')

Paragraph = tuple[str, str, str]


def paragraphs(folder: Path, language: str) -> Iterator[Paragraph]:
    """Yield (path, id, text) of each paragraph of a language, from its table or from its pages.

    Raises:
        GradlensError: the folder has neither, or a line of the table is broken.
    """
    table, pages = folder / f"{language}.tsv", folder / FOLDERS[language] / "text"
    if table.is_file():
        for number, line in enumerate(table.read_text("utf-8").rstrip("\n").split("\n"), start=1):
            fields = line.split("\t")
            if len(fields) != 3:
                raise GradlensError(
                    f"{table}, line {number}, must be path, id and text with tabs between; it has {len(fields)} "
                    "fields. Fetch the data set again."
                )
            yield fields[0], fields[1], fields[2]
    elif pages.is_dir():
        yield from _read_pages(pages)
    else:
        raise GradlensError(
            f"LibreOffice's help in {language!r} must be in {table} or below {pages}; neither is there. "
            "Give a folder that holds it, or run: gradlens data fetch libreoffice-help --again"
        )


def text_of(inner: str) -> str:
    """Return the plain text between a paragraph's tags.

    >>> text_of('Choose <span class="emph">File &ndash; New</span>.')
    'Choose File – New.'
    >>> text_of('<span class="switchinline"><span hidden="true" class="MAC">Cmd</span><span>Ctrl</span></span>+S')
    'Ctrl+S'
    """
    kept, depth, hidden_at = [], 0, None
    for i, part in enumerate(_TAG.split(inner)):
        if i % 2 == 0:
            if hidden_at is None:
                kept.append(part)
        elif part.startswith("span"):
            depth += 1
            if hidden_at is None and _ELSEWHERE.match(part):
                hidden_at = depth
        elif part.startswith("/span"):
            if hidden_at == depth:
                hidden_at = None
            depth -= 1
        elif part.startswith("br"):
            kept.append(" ")
    return " ".join(html.unescape("".join(kept)).split())


def bring(folder: Path) -> Brought:
    """Fetch the packages and keep their paragraphs."""
    packages = {language: f"libreoffice-help-{name.lower()}" for language, name in FOLDERS.items()}
    archives = apt_download(list(packages.values()), folder)
    versions = {debian_version(archive) for archive in archives}
    brought = Brought(", ".join(sorted(versions)), {archive.name: sha256_of(archive) for archive in archives})
    for language, archive in zip(packages, archives, strict=True):
        unpacked = folder / "unpacked"
        debian_extract(archive, unpacked)
        lines = ["\t".join(paragraph) + "\n" for paragraph in paragraphs(unpacked / _INSTALLED, language)]
        (folder / f"{language}.tsv").write_text("".join(lines), "utf-8")
        shutil.rmtree(unpacked)
        archive.unlink()
    return brought


def _read_pages(pages: Path) -> Iterator[Paragraph]:
    for page in sorted(pages.rglob("*.html")):
        path = page.relative_to(pages).as_posix()
        for match in _PARAGRAPH.finditer(page.read_text("utf-8")):
            text = text_of(match[3])
            if text:
                yield path, match[2], text


SOURCE = Source(
    name="libreoffice-help",
    what="LibreOffice's help in English, German and Vietnamese",
    licence="MPL-2.0",
    size="20 MB",
    channel="apt",
    package=", ".join(f"libreoffice-help-{name.lower()}" for name in FOLDERS.values()),
    patterns=(
        *(f"{language}.tsv" for language in FOLDERS),
        *(f"{name}/text/**/*.html" for name in FOLDERS.values()),
        *(f"{split}.{ending}" for split in ("train", "valid", "test") for ending in (*FOLDERS, "tsv")),
    ),
    needs="the pages as a package installs them (en-US/text, de/text, vi/text), or aligned text: train.en, "
    "train.de, valid.en, valid.de, test.en, test.de, line by line, or train.tsv, valid.tsv, test.tsv",
    bring=bring,
)
