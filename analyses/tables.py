"""The one shape of every analysis' table: a row is a number, with what it is, of what, and where."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from gradlens.analysis.finding import place
from gradlens.recording import Recording

#: ``panel``: the part of the figure it belongs to, or ``summary`` for a number that is only judged;
#: ``quantity``: what it is; ``label``, ``variant``, ``schedule``: of which recording; ``stack``, ``group``:
#: where in the model; ``x``: its place on the horizontal axis; ``value`` with its 95 % interval ``low``,
#: ``high``, where it has one; ``unit``; ``n``: the seeds, steps or sites behind it.
COLUMNS = (
    "panel", "quantity", "label", "variant", "schedule", "stack", "group",
    "x", "value", "low", "high", "unit", "n",
)  # fmt: skip
SUMMARY = "summary"
#: Stands in a printed table where there is no number.
ABSENT = "–"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_TEXT = ("panel", "quantity", "label", "variant", "schedule", "stack", "group", "unit")


def tidy(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the rows as a table with ``COLUMNS``, the summary first.

    Names that are absent are empty, numbers that are absent missing. Of a curve one row is given, in which cells are
    arrays, all of one length: it stands for as many rows.
    """
    given = list(rows)
    lengths = np.array(
        [next((len(c) for c in row.values() if isinstance(c, np.ndarray)), 1) for row in given], dtype=int
    )
    table = pd.DataFrame({column: _column(column, given, lengths) for column in COLUMNS})
    return table.sort_values("panel", key=lambda panel: panel != SUMMARY, kind="stable", ignore_index=True)


def _column(name: str, rows: Sequence[Mapping[str, Any]], lengths: np.ndarray) -> pd.Series:
    """Return one column of all rows, those of curves among them."""
    cells = [row.get(name) for row in rows]
    curves = [at for at, cell in enumerate(cells) if isinstance(cell, np.ndarray)]
    single = pd.Series([None if isinstance(cell, np.ndarray) else cell for cell in cells], dtype=object)
    column = single.where(single.notna(), "").astype(str) if name in _TEXT else single.astype(float)
    column = column.repeat(lengths.tolist()).reset_index(drop=True)
    if curves:
        values, begins = (
            column.to_numpy(dtype=object if name in _TEXT else float, copy=True),
            np.cumsum(lengths) - lengths,
        )
        for at in curves:
            values[begins[at] : begins[at] + lengths[at]] = cells[at]
        column = pd.Series(values).astype(column.dtype)
    return column


def identity(recording: Recording) -> dict[str, str]:
    """Return label, variant (else the label) and schedule (else "") of a recording."""
    return {
        "label": recording.label,
        "variant": str(recording.meta.get("variant") or recording.label),
        "schedule": str(recording.meta.get("schedule") or ""),
    }


def pick(table: pd.DataFrame, **equal: str) -> pd.DataFrame:
    """Return the rows whose columns equal the given texts, in their order."""
    for column, text in equal.items():
        table = table[table[column] == text]
    return table


def first(frame: pd.DataFrame) -> pd.Series | None:
    """Return the first row, or None where there is none."""
    return None if frame.empty else frame.iloc[0]


def percent(share: float, digits: int = 1) -> str:
    """Write a share for a sentence: 0.123 as ``12.3 %``."""
    return f"{100 * share:.{digits}f} %"


def number(value: float) -> str:
    """Write a ratio for a sentence: two decimals, whole where it is large, a power of ten where it is huge or tiny."""
    if not math.isfinite(value):
        return ABSENT if math.isnan(value) else "∞" if value > 0 else "−∞"
    if abs(value) >= 1e6 or 0 < abs(value) < 0.005:
        factor, _, exponent = f"{value:.1e}".partition("e")
        return f"{factor}×10{str(int(exponent)).translate(_SUPERSCRIPT)}"
    return f"{value:.2f}" if abs(value) < 100 else f"{value:,.0f}"


def span(
    row: Mapping[str, Any] | pd.Series,
    write: Callable[[float], str] = number,
    without: str = " (one seed, no interval)",
) -> str:
    """Write the 95 % interval of a row for a sentence, or what is said without one."""
    return without if pd.isna(row["low"]) else f" (95 % CI {write(row['low'])} to {write(row['high'])})"


def with_spread(row: Mapping[str, Any] | pd.Series, digits: int) -> str:
    """Write a score with half its interval or, where that would reach below 0, which no score does, with its ends."""
    value, low, high = (float(row[column]) for column in ("value", "low", "high"))
    if pd.isna(low):
        return f"{value:.{digits}f}"
    if low < 0 <= value:
        return f"{value:.{digits}f} ({0:.{digits}f} to {high:.{digits}f})"
    return f"{value:.{digits}f} ± {(high - low) / 2:.{digits}f}"


def listed(names: Iterable[str]) -> str:
    """Write names as ``a, b and c``."""
    given = list(names)
    return given[0] if len(given) == 1 else f"{', '.join(given[:-1])} and {given[-1]}"


def few(names: Iterable[str], most: int = 3) -> str:
    """Write the first names as ``listed``, and count the others where they are two or more."""
    given = list(names)
    if len(given) > most + 1:
        given[most:] = [f"{len(given) - most} others"]
    return listed(given)


def few_places(names: Iterable[str]) -> str:
    """Write a few of some paths, each once, for a sentence."""
    return few(place(str(name)) for name in dict.fromkeys(names))
