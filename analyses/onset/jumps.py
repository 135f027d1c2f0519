"""Where one series of many leaves the others: its level before and after, and how sure that is.

Only what happens beside the others counts. A schedule, a warm-up, a run that diverges as a whole move all of them.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import stdtr

from analyses.intervals import Array
from analyses.limits import limit
from analyses.others import median_of_others
from gradlens.analysis.ending import length_of_end

#: Recorded steps on each side of a jump, of which the medians are held against each other.
WINDOW = int(limit("GL309", "window"))
#: Fewer series have no others to be held against.
FEWEST = 3
#: A deviation of noise that is all but 0 would make everything a jump.
_LEAST_NOISE = 0.02
_SIGMA = 1.4826
#: Logarithms beyond this say no more than that it is far.
_FARTHEST = 230.0
#: Share of a jump, of its logarithm, that is left in the end.
_STAYS = 0.5
#: A level this many times the first one has left it.
_AWAY = 1.5


class Jump(NamedTuple):
    """The largest jump of one series beside the others.

    Attributes:
        name: of the series.
        step: the first behind it.
        factor: level behind it over that before, beside the others.
        stayed: the same, of all steps behind it.
        chance: of so large a jump in noise, over all steps, the false discoveries over all series accounted for.
    """

    name: str
    step: int
    factor: float
    stayed: float
    chance: float


def beside(series: pd.DataFrame) -> pd.DataFrame:
    """Return the logarithm of each series less the median logarithm of all others in the same step.

    Args:
        series: positive values, a column a name, a row a recorded step; others are missing.

    Returns:
        The same rows and columns; none where there are too few to hold one against the others.
    """
    if series.shape[1] < FEWEST or len(series) < 3 * WINDOW:
        return pd.DataFrame()
    logs: Array = np.log(series.where((series > 0) & (series < np.inf)).to_numpy(dtype=float))
    return pd.DataFrame(logs - median_of_others(logs), series.index, series.columns)


def jumps(levels: pd.DataFrame) -> list[Jump]:
    """Return the largest jump of each series.

    A jump is the difference of the medians over the windows before and after a step, its noise the usual difference
    (median absolute deviation) of the same series.

    Args:
        levels: of ``beside``.
    """
    found: list[dict[str, Any]] = []
    for name, own, steps in _there(levels):
        if len(own) >= 3 * WINDOW:
            found.append({"name": name, **_largest(own, steps)})
    chances = _false_discoveries(np.array([one["chance"] for one in found]))
    return [Jump(**{**one, "chance": float(chance)}) for one, chance in zip(found, chances, strict=True)]


def _there(levels: pd.DataFrame) -> Iterator[tuple[str, Array, np.ndarray]]:
    """Yield the name of each series, its values that are not missing, and their steps."""
    values, steps = levels.to_numpy(dtype=float), levels.index.to_numpy()
    known = ~np.isnan(values)
    for at, name in enumerate(levels):
        yield str(name), values[known[:, at], at], steps[known[:, at]]


def _largest(own: Array, steps: np.ndarray) -> dict[str, Any]:
    medians = np.median(np.lib.stride_tricks.sliding_window_view(own, WINDOW), axis=1)
    differences = medians[WINDOW:] - medians[:-WINDOW]
    at = int(np.abs(differences).argmax())
    size = float(differences[at])
    others = np.delete(differences, np.s_[max(0, at - WINDOW) : at + WINDOW + 1])
    noise = max(_SIGMA * float(np.median(np.abs(others))) if len(others) else 0.0, _LEAST_NOISE)
    start = _start(own, at + WINDOW, size)
    if start < WINDOW:  # the first steps of a run are no level to be held against
        return {"step": int(steps[start]), "factor": 1.0, "stayed": 1.0, "chance": 1.0}
    behind, before = own[start:], own[max(0, start - 4 * WINDOW) : start]
    at_once = float(np.median(behind[:WINDOW]) - np.median(before[-WINDOW:]))
    stayed = float(np.median(behind) - np.median(before))
    # As many windows as do not overlap are as many chances, and as many observations of the noise.
    windows = len(own) / WINDOW
    chance = min(1.0, 2 * float(stdtr(windows, -abs(size) / noise)) * windows)
    factor, stayed = _factor(at_once), _factor(stayed)
    return {"step": int(steps[start]), "factor": factor, "stayed": stayed, "chance": chance}


def settles(levels: pd.DataFrame, one: Jump, loss: pd.Series) -> bool:
    """Whether a jump is one of a run's first steps, in which gradients find their sizes, and the loss goes on falling.

    Args:
        levels: of ``beside``.
        one: the largest jump of one of them.
        loss: by step.
    """
    if (levels.index < one.step).sum() > 4 * WINDOW:
        return False
    behind, before = loss[loss.index >= one.step].head(WINDOW), loss[loss.index < one.step].tail(WINDOW)
    return bool(behind.median() < before.median())


def _factor(logarithm: float) -> float:
    """Return a factor that neither leaves the numbers there are nor comes to 0."""
    return math.exp(min(max(logarithm, -_FARTHEST), _FARTHEST))


def _start(own: Array, around: int, size: float) -> int:
    """Return the first place behind a jump: of the largest single rise in its direction within the windows."""
    low = max(1, around - WINDOW + 1)
    single = np.sign(size) * np.diff(own[low - 1 : around + WINDOW])
    return low + int(single.argmax())


def _false_discoveries(chances: Array) -> Array:
    """Return chances adjusted over all series (Benjamini and Hochberg 1995)."""
    order = np.argsort(chances)
    ranked = chances[order] * len(chances) / np.arange(1, len(chances) + 1)
    adjusted = np.empty_like(ranked)
    adjusted[order] = np.minimum(1.0, np.minimum.accumulate(ranked[::-1])[::-1])
    return adjusted


def drifts(levels: pd.DataFrame) -> list[Jump]:
    """Return how far each series has come in all, and the step from which on it stays away from its first level.

    Args:
        levels: of ``beside``.
    """
    found = []
    for name, own, steps in _there(levels):
        if len(own) < 4 * WINDOW:
            continue
        start, end = float(np.median(own[WINDOW : 3 * WINDOW])), float(np.median(own[-length_of_end(len(own)) :]))
        first = [np.median(own[:count]) for count in range(1, WINDOW)]
        smooth = np.append(first, np.median(np.lib.stride_tricks.sliding_window_view(own, WINDOW), axis=1))
        away = (smooth - start) * math.copysign(1.0, end - start) > math.log(_AWAY)
        back = np.flatnonzero(~away)
        leaves = steps[min(len(own) - 1, int(back[-1]) + 1 if len(back) else 0)]
        factor = _factor(end - start)
        found.append(Jump(name, int(leaves), factor, factor, 0.0))
    return found


def large(found: Iterable[Jump], factor: float, chance: float) -> list[Jump]:
    """Return the jumps that are so large, at once and for the most part for good, and so unlikely in noise.

    Args:
        found: of ``jumps``.
        factor: the least, up or down.
        chance: the largest.
    """
    return [
        one
        for one in found
        if one.chance <= chance
        and abs(math.log(one.factor)) >= math.log(factor)
        and math.log(one.stayed) / math.log(one.factor) >= _STAYS
    ]
