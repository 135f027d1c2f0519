"""A paper's claims, which are data, held against pairs of runs that differ in one thing: differences and verdicts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from analyses.intervals import Array, t_interval
from analyses.papers.findings import BEGINS, Code, farthest, plural, signed
from analyses.tables import listed, pick
from gradlens.analysis import Finding, Status

#: Where fewer than this share of the seeds learned the task in either arm, a setting decides nothing.
HALF = 0.5
Verdict = Literal["supports", "contradicts", "undecided"]
PARTICIPLE: Mapping[str, str] = {"supports": "supported", "contradicts": "contradicted", "undecided": "undecided"}
#: Columns of a comparison's row that ``compare`` gives. ``value``, ``low``, ``high``: the mean difference in per cent,
#: positive for the claim; ``n``: pairs of seeds; ``diverged``, ``favoured_diverged``, ``against_diverged``: pairs of
#: which either, the one, the other diverged.
COMPARED = ("value", "low", "high", "n", "diverged", "favoured_diverged", "against_diverged")


class Compared(NamedTuple):
    """What a claim compares.

    Attributes:
        favoured: the setting that the claim takes for better, or for no worse.
        against: the other.
        better: whether it is to be better, not only no worse.
        measure: of what, where it is not the score.
        optimizers: with which it is tested; all where empty.
    """

    favoured: str
    against: str
    better: bool
    measure: str = "score"
    optimizers: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Claim(Code):
    """A claim, and what all findings on it share.

    Attributes:
        title: heading of its panel.
        says: what it says, in a sentence's words.
        compared: its comparisons.
    """

    title: str
    says: str
    compared: tuple[Compared, ...]


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


def compare(
    compared: Compared, runs: pd.DataFrame, column: str, *, sign: int, scale: float, bar: float, both: bool = True
) -> dict[str, Any]:
    """Return the row of a comparison, empty where no seed has both settings.

    Args:
        compared: the settings.
        runs: a run a row, with the columns ``setting``, ``seed`` and ``diverged``; of two the later counts.
        column: what is compared.
        sign: 1 where higher is better, else -1.
        scale: what differences are a share of.
        bar: what differences must exceed, in per cent.
        both: as of ``verdict``.
    """
    distinct = runs.drop_duplicates(["setting", "seed"], keep="last").set_index("seed")
    favoured, against = (distinct[distinct["setting"] == name] for name in (compared.favoured, compared.against))
    pairs = paired(favoured, against, column, sign=sign, scale=scale)
    if not len(pairs.differences):
        return {}
    decided = verdict(pairs.differences, bar, broke=bool(pairs.diverged.any()), both=both)
    return {"favoured": compared.favoured, "against": compared.against, "verdict": decided, **pairs.row()}


def verdict(differences: Array, bar: float, *, broke: bool = False, both: bool = True) -> Verdict:
    """Say what paired differences say of a claim.

    The ends of their 95 % t-interval over seeds decide: above the bar it is supported, at or below it contradicted.
    Where a run diverged there is no interval, and all seeds must agree.

    Args:
        differences: as in ``Pairs``.
        bar: what they must exceed.
        broke: whether any run diverged.
        both: whether pairs of which both diverged are equal ones; else nothing but such pairs decides nothing.

    Returns:
        The verdict; always ``undecided`` for one seed.
    """
    if len(differences) < 2 or (broke and not both and not differences.any()):
        return "undecided"
    interval = t_interval(differences)
    low, high = (differences.min(), differences.max()) if broke else (interval.low, interval.high)
    if low > bar:
        return "supports"
    return "contradicts" if high <= bar and (low < bar or not broke) else "undecided"


def table(rows: Sequence[Mapping[str, Any]], text: Sequence[str], columns: Sequence[str]) -> pd.DataFrame:
    """Return comparisons as a table: columns of numbers, but for those of text."""
    found = pd.DataFrame(rows, columns=list(columns))
    return found.astype({column: object if column in text else float for column in columns})


def decided(by_verdict: Mapping[str, Sequence[Any]], *, half_refutes: bool) -> Status:
    """Return the status of a claim: more than half must support it for it to pass.

    Args:
        by_verdict: verdict to what it holds for.
        half_refutes: whether it fails where just half contradicts it, not only where more than half does.
    """
    half = sum(map(len, by_verdict.values())) / 2
    if len(by_verdict["supports"]) > half:
        return "pass"
    against = len(by_verdict["contradicts"])
    return "fail" if against > half or (half_refutes and against == half) else "inconclusive"


def begins(status: Status, by_verdict: Mapping[str, Sequence[Any]]) -> str:
    """Return how a claim's finding begins: where most support it and some contradict it, it is reproduced in part.

    Args:
        status: of ``decided``.
        by_verdict: verdict to what it holds for.
    """
    return f"{BEGINS[status]} in part" if status == "pass" and by_verdict["contradicts"] else BEGINS[status]


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


def judged(
    table: pd.DataFrame, claims: Sequence[Claim], named: Callable[[pd.Series], str], asks: str, of: str
) -> list[Finding]:
    """Return a finding a claim: more than half of the settings it is tested in must support it, or contradict it.

    Args:
        table: a row a claim and setting, with what ``compare`` gives and the ``bar``.
        claims: in order.
        named: names the setting of a row.
        asks: what two runs must share for a claim to be tested.
        of: what differences are a share of.

    Returns:
        The findings; none where no run was made for any.
    """
    if table.empty:
        return []
    parts = [(claim, pick(table, code=claim.code)) for claim in claims]
    return [
        _judged(claim, rows, named, of)
        if len(rows)
        else claim.silent(f"{claim.title}: not tested, no two runs share {asks} as it asks.")
        for claim, rows in parts
    ]


def _judged(claim: Claim, rows: pd.DataFrame, named: Callable[[pd.Series], str], of: str) -> Finding:
    each = [(str(row["verdict"]), _told(row, named(row))) for _, row in rows.iterrows()]
    told = {verdict: [words for own, words in each if own == verdict] for verdict in PARTICIPLE}
    status = decided(told, half_refutes=False)
    mixed = status == "inconclusive" and told["supports"] and told["contradicts"] and not told["undecided"]
    undecided = rows[rows["verdict"] == "undecided"]
    unlearned = len(undecided) > 0 and undecided.get("learned", pd.Series()).lt(HALF).all()
    start = "Undecided, for no run learned the task" if status == "inconclusive" and unlearned else begins(status, told)
    seeds, bar = rows["n"].max(), float(rows["bar"].iloc[0])
    return claim.finding(
        status,
        f"{'Mixed' if mixed else start}: {claim.says}: {'; '.join(tally(told, len(rows), 'in setting'))}; "
        f"{seeds:.0f} seed{plural(seeds)} a setting.",
        row=farthest(rows, -rows["value"]) if rows["value"].notna().all() else None,
        threshold=(
            f"a setting supports where the 95 % interval of the paired difference lies above {signed(bar, 0)} % of "
            f"{of}, contradicts where it lies below; with a divergence, where all seeds agree; more than half of the "
            "settings must agree"
        ),
        details={named(row): plain(row, "code", "bar") for _, row in rows.iterrows()},
    )


def _told(row: pd.Series, name: str) -> str:
    """Name a setting, with how much better its favoured run is, which runs diverged, or that none learned the task."""
    if row.get("learned", 1.0) < HALF:
        return f"{name}: no run learned the task"
    if row["diverged"] > 0:
        return f"{name}: runs diverged in {row['diverged']:.0f} of {row['n']:.0f} pairs"
    return f"{name}: {'+' if row['value'] > 0 else ''}{signed(row['value'], 1)} %"


def plain(row: pd.Series | Mapping[Any, Any], *without: str) -> dict[str, Any]:
    """Return the cells of a row but for some columns, with None for what does not exist."""
    return {str(key): None if pd.isna(cell) else cell for key, cell in row.items() if key not in without}
