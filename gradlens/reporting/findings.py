"""The report as data: ``findings.json`` and one CSV file a table."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pandas as pd

from gradlens.analysis.comparison import Comparison
from gradlens.reporting.writing import write_whole


def to_json(content: dict[str, Any]) -> bytes:
    """Return a document as strict JSON (no NaN), indented, so that two versions of it can be compared."""
    return (json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def to_csv(table: pd.DataFrame) -> bytes:
    """Return a table as CSV in UTF-8: full precision, missing values empty, LF line ends on every system."""
    out = io.StringIO()
    table.to_csv(out, index=False, lineterminator="\n", quoting=csv.QUOTE_MINIMAL)
    return out.getvalue().encode()


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
    tables = {"summary": comparison.summary, **comparison.tables}
    written = []
    for name, table in tables.items():
        if not table.empty:
            path = Path(folder) / f"{name}.csv"
            write_whole(path, to_csv(table))
            written.append(path)
    return written
