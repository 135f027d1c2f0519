"""Series over the steps of a run: smoothing, the numbers that a paper's runs end with, and the mean over seeds."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analyses.intervals import log_t_interval, t_interval

#: Of a paper's runs, which are compared by seed, the last tenth of the recorded steps makes the loss at the end.
_END_OF_TRAINING = 0.1
#: Recorded steps from which on a series is smoothed.
SMOOTHED_FROM = 40
#: Of a series of more than so many values ``envelope`` keeps the ends of so many stretches.
LONG, STRETCHES = 2000, 1000


def smoothed(series: pd.Series, *, geometric: bool = False) -> pd.Series:
    """Return the centered running mean over 5 % of the recorded steps, 5 at least; shorter at both ends.

    Fewer than ``SMOOTHED_FROM`` steps stay as they are: a mean over five would hide too much of them.

    Args:
        series: values by step.
        geometric: whether to take the mean of logarithms, for what is drawn on a log axis.
    """
    if geometric and (series > 0).all():
        logarithm: pd.Series[float] = np.log(series)
        return smoothed(logarithm).map(math.exp)
    if len(series) < SMOOTHED_FROM:
        return series.sort_index()
    window = max(5, len(series) // 20) | 1
    return series.sort_index().rolling(window, center=True, min_periods=1).mean()


def envelope(series: pd.Series) -> pd.Series:
    """Return what of a long series is drawn, and so kept: the lowest and the highest value of each of its stretches.

    A rare spike stays, at its step. A series of no more values than that makes stays as it is.

    Args:
        series: values by step, in order.
    """
    if len(series) <= LONG:
        return series
    values, edges = series.to_numpy(), np.linspace(0, len(series), STRETCHES + 1).astype(int)
    ends = {0, len(series) - 1}
    for begin, end in itertools.pairwise(edges):
        ends |= {begin + int(values[begin:end].argmin()), begin + int(values[begin:end].argmax())}
    return series.iloc[sorted(ends)]


def end_of_training(steps: pd.DataFrame) -> float:
    """Return the training loss at the end: the mean over the last tenth of the recorded steps.

    Args:
        steps: of a recording.
    """
    loss = steps.sort_values("step")["loss"].dropna()
    return float(loss.tail(max(1, int(np.ceil(_END_OF_TRAINING * len(loss))))).mean())


def last_value(steps: pd.DataFrame, column: str) -> float:
    """Return the last value that was recorded in a column; NaN where there is none.

    Args:
        steps: of a recording.
        column: such as ``valid_loss``.
    """
    values = steps.sort_values("step")[column].dropna() if column in steps else pd.Series(dtype="float64")
    return float(values.iloc[-1]) if len(values) else float("nan")


def over_seeds(
    series: Sequence[pd.Series], fixed: Mapping[str, Any], *, geometric: bool = False
) -> list[dict[str, Any]]:
    """Return a row an x: the mean over seeds, and from two seeds on their range in ``low`` and ``high``.

    What is drawn of three seeds is their range: a t-interval of so few would hide the curves. What is judged has one.

    Args:
        series: a seed each, by x.
        fixed: the columns that all rows share.
        geometric: whether to average logarithms, for what is drawn on a log axis.
    """
    if not series:
        return []
    wide = pd.concat(list(series), axis=1).sort_index()
    interval = log_t_interval if geometric else t_interval
    rows = []
    for x, values in zip(wide.index, wide.to_numpy(dtype="float64"), strict=True):
        known = values[np.isfinite(values)]
        if known.size:
            ends = {"low": known.min(), "high": known.max()} if known.size > 1 else {}
            rows.append({**fixed, "x": x, **interval(known).row(), **ends})
    return rows
