"""Series over the steps of a run: what "at the end" means, and smoothing."""

import math

import numpy as np
import pandas as pd

from analyses.limits import limit


def at_the_end(series: pd.Series) -> pd.Series:
    """Return the last recorded steps of a series: a share of them, and at least so many (``limits.toml``).

    Args:
        series: values by step, without missing ones.
    """
    least, share = int(limit("training", "window_least")), limit("training", "window_share")
    ordered = series.sort_index()
    return ordered.tail(max(least, int(np.ceil(share * len(ordered)))))


def smoothed(series: pd.Series, *, geometric: bool = False) -> pd.Series:
    """Return the centered running mean over 5 % of the steps, 5 at least; shorter at both ends.

    Args:
        series: values by step.
        geometric: whether to take the mean of logarithms, for what is drawn on a log axis.
    """
    if geometric and (series > 0).all():
        logarithm: pd.Series[float] = np.log(series)
        return smoothed(logarithm).map(math.exp)
    window = max(5, len(series) // 20) | 1
    return series.sort_index().rolling(window, center=True, min_periods=1).mean()
