"""How the study's findings are written: what became of a claim, and numbers with their intervals."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from gradlens.analysis import Status

PAPER = "Xiong et al. 2020 (2002.04745)"
BEGINS: Mapping[Status, str] = {
    "pass": "Reproduced",
    "warn": "Otherwise than expected",
    "fail": "Not reproduced",
    "inconclusive": "Undecided with the seeds at hand",
}
#: Remedies. ``--seeds`` of ``gradlens reproduce`` is for training runs; how many networks are measured at
#: initialization is part of what the measurement is.
MORE_SEEDS = "Train more seeds (--seeds)."
MORE_PROBED = "Probe more networks: raise the seeds of the study's measurements (--seeds is for its training runs)."
MORE_NETWORKS = (
    "Measure more networks: `gradlens compare post-ln pre-ln --init-only --seeds 30`, or raise the seeds of the "
    "study's measurements (--seeds of reproduce is for its training runs)."
)


def signed(value: float, digits: int = 2) -> str:
    """Write a number with a true minus sign."""
    return f"{value:.{digits}f}".replace("-", "−")


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
