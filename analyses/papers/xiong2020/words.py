"""How the study's findings are written: what became of a claim, and numbers with their intervals."""

from collections.abc import Iterable, Mapping
from math import inf
from typing import Any

import pandas as pd

from analyses.limits import held_against
from gradlens.analysis import Status

PAPER = "Xiong et al. 2020 (2002.04745)"
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


def all_held(rows: pd.DataFrame, *, least: float = -inf, most: float = inf, outside: Status) -> Status:
    """Hold the interval of every row against a range, as ``analyses.limits.held_against`` does; all must lie in it."""
    return together(
        held_against(low, high, least=least, most=most, outside=outside)
        for low, high in zip(rows["low"], rows["high"], strict=True)
    )


def together(statuses: Iterable[Status]) -> Status:
    """Return what several checks of one claim say together: all must pass, and one that does not decides."""
    found = list(statuses)
    for status in ("fail", "warn", "inconclusive", "pass"):
        if status in found:
            return status
    return "not applicable"
