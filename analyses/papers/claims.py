"""A paper's claims held against pairs of runs that differ in one thing: differences, and verdicts in words."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from analyses.intervals import Array, t_interval
from analyses.tables import listed
from gradlens.analysis import Status

Verdict = Literal["supports", "contradicts", "undecided"]
PARTICIPLE: Mapping[str, str] = {"supports": "supported", "contradicts": "contradicted", "undecided": "undecided"}
#: How a finding begins that says what became of a claim.
BEGINS: Mapping[Status, str] = {
    "pass": "Reproduced",
    "warn": "Otherwise than expected",
    "fail": "Not reproduced",
    "inconclusive": "Undecided with the seeds at hand",
}


class Pairs(NamedTuple):
    """The pairs of runs of one seed, of which neither number is missing.

    Attributes:
        differences: in per cent, positive for the favoured run; infinite where one of a pair diverged, for such a run
            is worse than any that did not, and 0 where both did.
        favoured_diverged: whether the favoured run did.
        against_diverged: whether the other did.
    """

    differences: Array
    favoured_diverged: npt.NDArray[np.bool_]
    against_diverged: npt.NDArray[np.bool_]

    @property
    def diverged(self) -> npt.NDArray[np.bool_]:
        """Whether either did."""
        return self.favoured_diverged | self.against_diverged

    def row(self) -> dict[str, Any]:
        """Return the mean difference with its interval, which do not exist where a run diverged, and the counts."""
        interval = {} if self.diverged.any() else t_interval(self.differences).row()
        return {
            **interval,
            "n": len(self.differences),
            "diverged": self.diverged.sum(),
            "favoured_diverged": self.favoured_diverged.sum(),
            "against_diverged": self.against_diverged.sum(),
        }


def paired(favoured: pd.DataFrame, against: pd.DataFrame, column: str, *, sign: int, scale: float) -> Pairs:
    """Return the differences of runs of the same seed.

    Args:
        favoured: a run a row, its seed as index, with the column and ``diverged``.
        against: the same of the other ones.
        column: what is compared.
        sign: 1 where higher is better, else -1.
        scale: what differences are a share of.
    """
    read = [column, "diverged"]
    pairs = favoured[read].merge(against[read], left_index=True, right_index=True, suffixes=("_f", "_a"))
    broke_f, broke_a = (pairs[f"diverged_{side}"].to_numpy(dtype=bool) for side in "fa")
    differences = sign * (pairs[f"{column}_f"] - pairs[f"{column}_a"]).to_numpy(dtype=np.float64)
    infinite = np.where(broke_f & broke_a, 0.0, np.where(broke_f, -np.inf, np.inf))
    shares = np.where(broke_f | broke_a, infinite, 100.0 * differences / scale)
    known = ~np.isnan(shares)
    return Pairs(shares[known], broke_f[known], broke_a[known])


def ends(differences: Array, *, broke: bool) -> tuple[float, float]:
    """Return the ends that decide on a claim: of the 95 % t-interval over seeds.

    Where a run diverged there is none, and all seeds must agree: then the least and the greatest difference.

    Args:
        differences: as in ``Pairs``.
        broke: whether any run diverged.
    """
    if broke:
        return float(differences.min()), float(differences.max())
    interval = t_interval(differences)
    return interval.low, interval.high


def tally(by_verdict: Mapping[str, Sequence[str]], total: int, where: str) -> Iterator[str]:
    """Yield such as ``supported on 3 of 5 tasks (lm, images and parsing)``; the total is said once.

    Args:
        by_verdict: verdict to the names of what it holds for.
        total: of them.
        where: preposition and noun, such as ``on task``.
    """
    at, _, noun = where.partition(" ")
    of = f" of {total} {noun}s" if total > 1 else f" {noun}"
    for verdict, names in by_verdict.items():
        if names:
            yield f"{PARTICIPLE[verdict]} {at} {len(names)}{of} ({listed(names)})"
            of = ""
