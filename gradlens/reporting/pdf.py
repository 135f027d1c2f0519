"""The report as a file; typeset: figures and the document, put on pages by typst."""

import tempfile
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal
from unicodedata import category

import matplotlib
import typst
from matplotlib.font_manager import FontProperties, findfont
from matplotlib.ft2font import FT2Font

from gradlens.analysis.comparison import Comparison, compare
from gradlens.errors import GradlensError
from gradlens.recording import Recording
from gradlens.reporting.cover import Cover
from gradlens.reporting.document import document
from gradlens.reporting.figures import to_svg
from gradlens.reporting.findings import to_csv, to_json
from gradlens.reporting.html import page
from gradlens.reporting.writing import write_whole

#: Tagged and checked by typst: PDF/UA-1, the standard of accessible documents.
STANDARD: Literal["ua-1"] = "ua-1"


def report(
    recordings: Recording | Sequence[Recording] | Comparison,
    path: str | Path,
    *,
    command: str | None = None,
    cover: Cover | None = None,
) -> None:
    """Write a report: typeset, or as one page for a browser.

    ``findings.json`` is in either file; attached to the typeset one are also the tables behind its figures.

    Args:
        recordings: one or several, or what ``compare`` made of them.
        path: PDF to write, whole or not at all; a page where it ends in ``.html``.
        command: the command line that makes this report again, to be printed on its last page.
        cover: the first page, where it is not the comparison's own story.

    Raises:
        NothingFoundError: there is no recording.
        GradlensError: the file cannot be written, or a package's analyses cannot be loaded.
    """
    if isinstance(recordings, Recording):
        recordings = [recordings]
    comparison = recordings if isinstance(recordings, Comparison) else compare(list(recordings))
    make = page if Path(path).suffix.lower() == ".html" else pages
    write_whole(Path(path), make(comparison, document(comparison, command, cover)))


def typeset(comparison: Comparison, command: str | None = None, cover: Cover | None = None) -> bytes:
    """Return the report's PDF: the same bytes for the same comparison, command and versions.

    Args:
        comparison: recordings and findings.
        command: as in ``report``.
        cover: as in ``report``.

    Returns:
        The file.

    Raises:
        GradlensError: the folder for temporary files is full or cannot be written.
    """
    return pages(comparison, document(comparison, command, cover))


def pages(comparison: Comparison, content: dict[str, Any]) -> bytes:
    """Return the PDF of a document that is there already.

    Args:
        comparison: its figures and tables.
        content: the ``document`` of it.

    Returns:
        The file.

    Raises:
        GradlensError: the folder for temporary files is full or cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="gradlens-report-") as name:
            folder = Path(name)
            _lay_out(comparison, content, folder)
            try:
                return _compile(folder, ignore_system_fonts=_is_covered(str(content)))
            except typst.TypstError as error:
                if "missing codepoints" not in str(error):
                    raise
            # No font here has some character, joined emoji say; an accessible PDF must not leave a gap for it.
            _replace_uncovered(folder)
            return _compile(folder, ignore_system_fonts=True)
    except OSError as error:
        raise GradlensError(
            f"A report is put together in a temporary folder; that cannot be written: {error}. "
            "Free some space, or name another folder in the environment variable TMPDIR."
        ) from error


def _lay_out(comparison: Comparison, content: dict[str, Any], folder: Path) -> None:
    """Put what the template reads into a folder."""
    template = files("gradlens.reporting").joinpath("template.typ").read_bytes()
    (folder / "report.typ").write_bytes(template)
    (folder / "findings.json").write_bytes(to_json(content))
    for name, figure in comparison.figures.items():
        (folder / f"{name}.svg").write_bytes(to_svg(figure))
    if content["strip"] and comparison.strip is not None:
        (folder / "strip.svg").write_bytes(to_svg(comparison.strip))
    for name, table in comparison.tables.items():
        (folder / f"{name}.csv").write_bytes(to_csv(table))


def _compile(folder: Path, *, ignore_system_fonts: bool) -> bytes:
    """Run typst. The fonts are those in its wheel and in matplotlib's, so that pages look alike everywhere.

    Only where a label has a character that they lack (Chinese, for one) are the machine's own asked too.
    """
    pdf: bytes = typst.compile(
        str(folder / "report.typ"),
        root=str(folder),
        font_paths=[str(Path(matplotlib.get_data_path(), "fonts", "ttf"))],
        ignore_system_fonts=ignore_system_fonts,
        pdf_standards=STANDARD,
    )
    return pdf


def _is_covered(text: str) -> bool:
    """Whether matplotlib's own font, which stands in for all others, has every character."""
    return all(ord(character) in _known() for character in set(text) if character.isprintable())


def _known() -> Mapping[int, int]:
    """Return the characters of matplotlib's own font."""
    return FT2Font(findfont(FontProperties(family="DejaVu Sans"))).get_charmap()


def _replace_uncovered(folder: Path) -> None:
    """Put a replacement character for each that the font lacks; what only joins or alters others goes."""
    for path in (folder / "findings.json", *folder.glob("*.svg")):
        text = path.read_text("utf-8")
        lacking = {sign for sign in set(text) if ord(sign) not in _known() and not sign.isspace()}
        joins = {sign: None for sign in lacking if category(sign) in ("Cf", "Mn")}
        signs = str.maketrans(dict.fromkeys(lacking, "\N{REPLACEMENT CHARACTER}") | joins)
        path.write_text(text.translate(signs), "utf-8")
