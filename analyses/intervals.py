"""Estimates with 95 % intervals: over seeds, over the steps of one run, and of a statistic over seeds.

``scipy.special`` gives Student's quantile; ``scipy.stats`` would make reading a finished run slow.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

Array = npt.NDArray[np.float64]


class Interval(NamedTuple):
    """A value, the ends of its 95 % interval (NaN where there is none), and the observations behind it."""

    value: float
    low: float
    high: float
    n: int

    def row(self) -> dict[str, float]:
        """Return the columns of a table's row."""
        return self._asdict()

    def mapped(self, function: Callable[[float], float]) -> "Interval":
        """Return the interval of an increasing function of the value."""
        return Interval(function(self.value), function(self.low), function(self.high), self.n)


def t_interval(values: npt.ArrayLike) -> Interval:
    """Return the mean of independent observations and its t-interval.

    Args:
        values: one observation a seed [n]; non-finite ones are left out.
    """
    x = _finite(values)
    if x.size < 2:
        return Interval(float(x[0]) if x.size else np.nan, np.nan, np.nan, x.size)
    mean, half = float(x.mean()), float(stdtrit(x.size - 1, 0.975) * x.std(ddof=1) / np.sqrt(x.size))
    return Interval(mean, mean - half, mean + half, x.size)


def log_t_interval(values: npt.ArrayLike) -> Interval:
    """Return the geometric mean of positive observations and its t-interval on the log scale.

    Where an observation is not positive the logarithm does not exist, and the arithmetic interval is
    returned.
    """
    x = _finite(values)
    if not (x > 0).all():
        return t_interval(x)
    return t_interval(np.log(x)).mapped(lambda end: float(np.exp(end)))


def jackknife_interval(samples: Array, statistic: Callable[[Array], float]) -> Interval:
    """Return a bias-corrected statistic of the mean over seeds, with the jackknife's t-interval.

    Needed where the statistic is no mean: the coefficient of variation of a profile, say, is biased upwards
    by the noise of the seeds, which the jackknife takes out to first order (Efron & Tibshirani 1993, section
    11.5).

    Args:
        samples: one row a seed [n, k].
        statistic: of an array [m, k] of seeds.

    Returns:
        The mean of the pseudo-values n·θ − (n − 1)·θ₍ᵢ₎ with their t-interval; θ alone for one seed.
    """
    n = len(samples)
    theta = statistic(samples)
    if n < 2:
        return Interval(theta, np.nan, np.nan, n)
    without = np.array([statistic(np.delete(samples, i, axis=0)) for i in range(n)])
    return t_interval(n * theta - (n - 1) * without)


def block_bootstrap_interval(series: npt.ArrayLike, resamples: int = 2000) -> Interval:
    """Return the mean of successive, correlated observations and its moving-block bootstrap interval.

    Blocks of n^(1/2) neighbours are drawn with replacement (Künsch 1989), so that correlation within a block
    widens the interval. The random numbers are fixed: the same series gives the same interval.

    Args:
        series: one observation a step [n]; non-finite ones are left out.
        resamples: bootstrap samples.
    """
    x = _finite(series)
    n = x.size
    if n < 4:
        return Interval(float(x.mean()) if n else np.nan, np.nan, np.nan, n)
    block = int(np.ceil(np.sqrt(n)))
    starts = _starts(n, block, resamples)
    # A resample is whole blocks and a part of its last one: their sums say all of it.
    blocks = np.lib.stride_tricks.sliding_window_view(x, block)
    whole, part = blocks.sum(axis=1), blocks[:, : n - (starts.shape[1] - 1) * block].sum(axis=1)
    means = (whole[starts[:, :-1]].sum(axis=1) + part[starts[:, -1]]) / n
    low, high = np.quantile(means, (0.025, 0.975))
    return Interval(float(x.mean()), float(low), float(high), n)


@lru_cache(maxsize=64)
def _starts(n: int, block: int, resamples: int) -> npt.NDArray[np.int64]:
    """Draw where the blocks of each resample begin [resamples, blocks]."""
    return np.random.default_rng(0).integers(n - block + 1, size=(resamples, int(np.ceil(n / block))))


def _finite(values: npt.ArrayLike) -> Array:
    x = np.asarray(values, dtype=np.float64).ravel()
    return x[np.isfinite(x)]
