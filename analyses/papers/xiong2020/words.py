"""How the study's findings are written: what became of a claim, and numbers with their intervals."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pandas as pd

from analyses.tables import number
from gradlens.analysis import Status

PAPER = "Xiong et al. 2020 (2002.04745)"
BEGINS: Mapping[Status, str] = {
    "pass": "Reproduced",
    "warn": "Otherwise than expected",
    "fail": "Not reproduced",
    "inconclusive": "Undecided with the seeds at hand",
}
MORE_SEEDS = "Measure more seeds (--seeds)."


def signed(value: float, digits: int = 2) -> str:
    """Write a number with a true minus sign."""
    return f"{value:.{digits}f}".replace("-", "−")


def span(row: Mapping[str, Any] | pd.Series, write: Callable[[float], str] = number) -> str:
    """Write the interval of a row, or that one seed gave none."""
    if pd.isna(row["low"]):
        return " (one seed, no interval)"
    return f" (95 % CI {write(row['low'])} to {write(row['high'])})"


def ends(row: Mapping[str, Any] | pd.Series) -> dict[str, Any]:
    """Return value, low and high of a row, as a finding has them."""
    return {name: float(row[name]) for name in ("value", "low", "high")}


def farthest(rows: pd.DataFrame, off: pd.Series) -> pd.Series:
    """Return the row that is farthest off.

    Args:
        rows: at least one.
        off: how far each is.
    """
    return rows.iloc[int(off.to_numpy(dtype="float64").argmax())]


def together(statuses: Iterable[Status]) -> Status:
    """Return what several checks of one claim say together: all must pass, and one that does not decides."""
    found = list(statuses)
    for status in ("fail", "warn", "inconclusive", "pass"):
        if status in found:
            return status
    return "not applicable"


def listed(names: Iterable[str]) -> str:
    """Write names as ``a, b and c``."""
    given = list(names)
    return given[0] if len(given) == 1 else f"{', '.join(given[:-1])} and {given[-1]}"
