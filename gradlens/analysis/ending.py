"""The end of training: the one definition that a report's first page and every finding go by."""

import math

import pandas as pd

#: In words, for whoever reads a number taken there.
MEANING = (
    "the last fifth of the recorded steps; ten of them where a fifth is less, but then no more than the last half, or "
    "the last four."
)
_SHARE, _LEAST, _MOST = 0.2, 10, 0.5
#: Fewer steps have no interval.
_FEWEST = 4


def at_the_end(series: pd.Series) -> pd.Series:
    """Return the values of a series at the end of training.

    The last fifth, but ten steps for an interval to rely on; of a short recording no more than the last half, for its
    beginning is not its end, or the four without which there is no interval.

    Args:
        series: values by step, without missing ones.
    """
    return series.sort_index().tail(length_of_end(len(series)))


def length_of_end(count: int) -> int:
    """Return how many of so many recorded steps are the end of training."""
    least = max(_FEWEST, min(_LEAST, math.floor(_MOST * count)))
    return max(least, math.ceil(_SHARE * count))


def span_of_steps(series: pd.Series) -> str:
    """Name the steps of a series, as ``steps 50 to 90 (5 of them recorded)``."""
    first, last = int(series.index.min()), int(series.index.max())
    if first == last:
        return f"step {first}"
    recorded = "" if len(series) == last - first + 1 else f" ({len(series)} of them recorded)"
    return f"steps {first} to {last}{recorded}"
