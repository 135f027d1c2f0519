"""From merged sums to what a reader sees: shares, norms, means and variances. Pure functions on DataFrames."""

from collections.abc import Collection, Sequence
from functools import cache
from typing import Any, cast

import numpy as np
import pandas as pd

from gradlens.recording.column import Column
from gradlens.recording.schema import GRADIENT_SQUARES, PUBLIC, STORED

_PANDAS = {"string": "str", "int": "int64", "float": "float64", "bool": "bool"}


def empty(columns: tuple[Column, ...]) -> pd.DataFrame:
    """Return a table without rows whose columns have the right types."""
    return pd.DataFrame({c.name: pd.Series(dtype=_PANDAS[c.dtype]) for c in columns})


def merge(table: str, stored: pd.DataFrame) -> pd.DataFrame:
    """Merge stored rows that share all key columns: sums add, maxima take the larger, the rest must agree.

    Args:
        table: name of the table.
        stored: stored columns; of numbers that the user added the mean is taken.

    Returns:
        One row a key, in order of first appearance.
    """
    by = keys(table)
    if not repeated(stored, by):
        return stored
    how: dict[str, Any] = {
        "sum": lambda s: s.sum(min_count=1),
        "norm": lambda s: np.sqrt(s.pow(2).sum(min_count=1)),
        "min": "min",
        "max": "max",
        "mean": "mean",
        "told": _last_told,
        "same": "first",
    }
    rules: dict[Any, Any] = {c.name: how[c.merge] for c in STORED[table] if c.merge != "key" and c.name in stored}
    rules |= {name: "mean" for name in stored.columns if name not in rules and name not in by}
    return stored.groupby(by, sort=False, dropna=False).agg(rules).reset_index()[list(stored.columns)]


def repeated(rows: pd.DataFrame, by: Sequence[str]) -> bool:
    """Whether two rows are the same in all of some columns: texts and whole numbers."""
    code, size = np.zeros(len(rows), dtype=np.int64), 1
    for name in by if len(rows) else ():
        column = rows[name]
        numbers = column.to_numpy() if column.dtype.kind == "i" else pd.factorize(column)[0]
        low, span = int(numbers.min()), int(numbers.max()) - int(numbers.min()) + 1
        size *= span
        if size >= 1 << 62:
            return bool(rows.duplicated(list(by)).any())
        code *= span
        code += numbers
        code -= low
    code.sort()
    return bool((code[1:] == code[:-1]).any())


def _last_told(told: pd.Series) -> Any:
    """Return the last value that is known; a process that records no norm does not know where they stand."""
    known = told[told.notna() & (told != "unknown")]
    return (known if len(known) else told).iloc[-1]


def over_processes(table: str, stored: pd.DataFrame, data: int) -> pd.DataFrame:
    """Merge the rows of all processes: one row a call, as one process that got all the data would have written it.

    Args:
        table: one of which each process writes its own rows, such as ``"norms"``.
        stored: stored columns.
        data: processes that divide the data; the loss that is trained is the mean over them, so the gradient of each
            process's own is that many times as large.
    """
    merged = merge(table, stored.assign(rank=0))
    squares = [name for name in GRADIENT_SQUARES if name in merged]
    return merged.assign(**{name: merged[name] / data**2 for name in squares})


def public(table: str, stored: pd.DataFrame, only: Collection[str] | None = None) -> pd.DataFrame:
    """Merge stored rows and derive the public table; what the user added stays as it is.

    Args:
        table: its name.
        stored: stored columns, of ``sources`` at least.
        only: public columns to be derived, besides those that tell rows apart; by default all.
    """
    if stored.empty:
        return empty(_wanted(table, only))
    merged = merge(table, stored)
    columns = derived(table, merged, only)
    if PUBLIC[table] is STORED[table]:
        columns |= {str(name): column for name, column in merged.items() if name not in columns}
    return pd.DataFrame(columns, copy=False).reset_index(drop=True)


def derived(table: str, merged: pd.DataFrame, only: Collection[str] | None = None) -> dict[str, pd.Series]:
    """Derive public columns of rows that are merged, as ``public`` does."""
    return {c.name: merged[c.name] if c.formula is None else c.formula(merged) for c in _wanted(table, only)}


def _wanted(table: str, only: Collection[str] | None) -> tuple[Column, ...]:
    """Return the public columns that are asked for, and those that tell rows apart."""
    known = keys(table)
    return tuple(c for c in PUBLIC[table] if only is None or c.name in only or c.name in known)


def keys(table: str) -> list[str]:
    """Return the columns that rows are told apart by."""
    return [c.name for c in STORED[table] if c.merge == "key"]


def sources(table: str, only: Collection[str]) -> frozenset[str]:
    """Return the stored columns that public ones are made of, and those that tell rows apart."""
    return frozenset().union(*(_sources(table, c.name) for c in _wanted(table, only)))


@cache
def _sources(table: str, name: str) -> frozenset[str]:
    """Ask a column's formula which stored columns it takes."""
    formula = next((c.formula for c in PUBLIC[table] if c.name == name), None)
    if formula is None:
        return frozenset({name})
    rows = _Asked(empty(STORED[table]))
    formula(cast(pd.DataFrame, rows))
    return frozenset(rows.asked)


class _Asked:
    """Stored rows that keep account of the columns that are taken of them."""

    def __init__(self, rows: pd.DataFrame) -> None:
        self.rows, self.index = rows, rows.index
        self.asked: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self.rows

    def __getitem__(self, name: str) -> pd.Series:
        self.asked.add(name)
        return self.rows[name]
