"""How a paper's findings are made: what all findings of one code share is data, and stands beside its explanation."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analyses import drawing
from analyses.limits import held_against
from analyses.making import Check
from analyses.making import codes as explained
from analyses.tables import SUMMARY
from gradlens.analysis import Analysis, Finding, Status

#: How a finding begins that says what became of a claim.
BEGINS: Mapping[Status, str] = {
    "pass": "Reproduced",
    "warn": "Otherwise than expected",
    "fail": "Not reproduced",
    "inconclusive": "Undecided with the seeds at hand",
}
#: What to try where few seeds or a small study may be the reason.
MORE_SEEDS = "Train more seeds (--seeds)."
LARGER = "Train longer and larger (--budget medium or --budget paper)."


@dataclass(frozen=True, kw_only=True)
class Code(Check):
    """A code of a paper's claims, with what all its findings share."""

    def held(
        self, rows: pd.DataFrame | pd.Series, says: str, *, least: float = -inf, most: float = inf,
        outside: Status = "fail", told: pd.Series | None = None, **own: Any,
    ) -> Finding:  # fmt: skip
        """Return what became of a claim that the intervals of some rows, or of one, all lie in a range.

        Args:
            rows: with ``low`` and ``high``.
            says: the claim, behind what became of it.
            least: lower end of the range.
            most: upper end of it.
            outside: what it is to lie outside.
            told: the row whose number is the finding's; by default the first row.
            own: as of ``finding``.
        """
        status = all_held(rows, least=least, most=most, outside=outside)
        row = told if told is not None else rows if isinstance(rows, pd.Series) else rows.iloc[0]
        return self.finding(status, f"{BEGINS[status]}: {says}.", row=row, **own)


def question(
    *codes: Code, judges: Sequence[Callable[[pd.DataFrame], Iterable[Finding]]] = (), nothing: str = "", **record: Any
) -> Analysis:
    """Return the record of an analysis that bears the name and, if not told otherwise, the reference of its codes.

    Args:
        codes: that it may give.
        judges: the parts of ``judge``, where it has several: each gives findings of the table.
        nothing: is said in place of the figure where the table holds no row but the summary's.
        record: the other fields of ``Analysis``.
    """

    def judge(table: pd.DataFrame) -> list[Finding]:
        return [finding for part in judges for finding in part(table)]

    def plot(table: pd.DataFrame, figure: Figure) -> None:
        if (table["panel"] == SUMMARY).all():
            drawing.say(figure, nothing)
        else:
            record["plot"](table, figure)

    shared = {"name": codes[0].analysis, "reference": codes[0].reference, **({"judge": judge} if judges else {})}
    return Analysis(**{**shared, **record, **({"plot": plot} if nothing else {}), "codes": explained(*codes)})


def details(rows: pd.DataFrame) -> dict[str, float]:
    """Return the value of each row by its number of blocks."""
    return {f"{row['x']:.0f} blocks": float(row["value"]) for _, row in rows.iterrows()}


def farthest(rows: pd.DataFrame, off: pd.Series) -> pd.Series:
    """Return the row that is farthest off.

    Args:
        rows: at least one.
        off: how far each is.
    """
    return rows.iloc[int(off.to_numpy(dtype="float64").argmax())]


def all_held(
    rows: pd.DataFrame | pd.Series, *, least: float = -inf, most: float = inf, outside: Status = "fail"
) -> Status:
    """Hold the interval of every row against a range, as ``analyses.limits.held_against`` does; all must lie in it."""
    each = [rows] if isinstance(rows, pd.Series) else [row for _, row in rows.iterrows()]
    return together(held_against(row["low"], row["high"], least=least, most=most, outside=outside) for row in each)


def together(statuses: Iterable[Status]) -> Status:
    """Return what several checks of one claim say together: all must pass, and one that does not decides."""
    found = list(statuses)
    for status in ("fail", "warn", "inconclusive", "pass"):
        if status in found:
            return status
    return "not applicable"


def signed(value: float, digits: int = 2) -> str:
    """Write a number with a true minus sign."""
    return f"{value:.{digits}f}".replace("-", "−")


def plural(count: float) -> str:
    """Return the ending of a noun that is counted."""
    return "s" if count > 1 else ""
