"""The report as data: ``findings.json`` and one CSV file a table."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pandas as pd

from gradlens.analysis.comparison import Comparison
from gradlens.analysis.summary import summary
from gradlens.report.cover import Cover
from gradlens.report.document import document
from gradlens.report.writing import write_whole


def to_json(content: dict[str, Any]) -> bytes:
    """Return a document as strict JSON (no NaN), indented, so that two versions of it can be compared."""
    return (json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def to_csv(table: pd.DataFrame) -> bytes:
    """Return a table as CSV in UTF-8: full precision, missing values empty, LF line ends on every system."""
    out = io.StringIO()
    table.to_csv(out, index=False, lineterminator="\n", quoting=csv.QUOTE_MINIMAL)
    return out.getvalue().encode()


def write_findings(
    comparison: Comparison, path: str | Path, *, command: str | None = None, cover: Cover | None = None
) -> None:
    """Write ``findings.json``: everything the PDF prints. The numbers behind figures are in ``write_tables``.

    Args:
        comparison: recordings and findings.
        path: file to write, whole or not at all.
        command: the command line that makes this report again.
        cover: the first page, where it is not the comparison's own story.

    Raises:
        GradlensError: the file cannot be written.
    """
    write_whole(Path(path), to_json(document(comparison, command, cover)))


def write_tables(comparison: Comparison, folder: str | Path) -> list[Path]:
    """Write the table of each analysis, and the summary, as ``<name>.csv``.

    Args:
        comparison: recordings and findings.
        folder: made where it is missing.

    Returns:
        The files; a table without rows gets none.

    Raises:
        GradlensError: a file cannot be written.
    """
    tables = {"summary": summary(comparison), **comparison.tables}
    written = []
    for name, table in tables.items():
        if not table.empty:
            path = Path(folder) / f"{name}.csv"
            write_whole(path, to_csv(table))
            written.append(path)
    return written
