"""All of a report in one folder: the PDF, the same as data, and the tables behind both; a page too, if asked for."""

from pathlib import Path

from gradlens.analysis.comparison import Comparison
from gradlens.reporting.cover import Cover
from gradlens.reporting.document import document
from gradlens.reporting.findings import to_json, write_tables
from gradlens.reporting.html import page
from gradlens.reporting.pdf import pages
from gradlens.reporting.writing import write_whole


def write_folder(
    comparison: Comparison,
    folder: str | Path,
    pdf: str,
    *,
    command: str | None = None,
    cover: Cover | None = None,
    html: Path | None = None,
) -> Path:
    """Write a report, ``findings.json`` with everything that it prints, and ``tables/`` with the numbers behind it.

    Args:
        comparison: recordings and findings.
        folder: made where it is missing; what else is in it stays.
        pdf: name of the report in it.
        command: the command line that makes this report again.
        cover: the first page, where it is not the comparison's own story.
        html: page for a browser to write as well, anywhere.

    Returns:
        The report.

    Raises:
        GradlensError: a file cannot be written.
    """
    path, content = Path(folder) / pdf, document(comparison, command, cover)
    write_tables(comparison, path.parent / "tables")
    write_whole(path.parent / "findings.json", to_json(content))
    write_whole(path, pages(comparison, content))
    if html is not None:
        write_whole(html, page(comparison, content))
    return path
