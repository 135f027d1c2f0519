"""Intervals against simulation: how often they cover the truth that the numbers were drawn around."""

import numpy as np
import pytest

from analyses.intervals import (
    block_bootstrap_interval,
    jackknife_interval,
    log_t_interval,
    t_interval,
)

REPEATS = 2000
#: Three standard errors of a coverage of 0.95 over REPEATS repeats.
ROOM = 3 * np.sqrt(0.95 * 0.05 / REPEATS)


@pytest.mark.parametrize("seeds", [3, 10])
def test_the_t_interval_covers_the_mean_in_95_of_100_cases(seeds: int) -> None:
    rng = np.random.default_rng(0)
    intervals = [t_interval(2.0 + rng.standard_normal(seeds)) for _ in range(REPEATS)]
    assert np.mean([i.low <= 2.0 <= i.high for i in intervals]) == pytest.approx(0.95, abs=ROOM)


def test_the_log_interval_covers_the_geometric_mean_in_95_of_100_cases() -> None:
    rng = np.random.default_rng(1)
    intervals = [log_t_interval(np.exp(1.0 + rng.standard_normal(6))) for _ in range(REPEATS)]
    assert np.mean([i.low <= np.e <= i.high for i in intervals]) == pytest.approx(0.95, abs=ROOM)
    assert all(i.low > 0 for i in intervals)


def test_values_without_a_logarithm_get_the_arithmetic_interval() -> None:
    assert log_t_interval([0.0, 1.0, 2.0]) == t_interval([0.0, 1.0, 2.0])


def test_one_seed_has_a_value_and_no_interval() -> None:
    interval = t_interval([3.0])
    assert interval.value == 3.0
    assert np.isnan(interval.low)
    assert np.isnan(interval.high)


def test_missing_and_infinite_observations_are_left_out_and_counted() -> None:
    assert t_interval([1.0, np.nan, 3.0, np.inf]) == t_interval([1.0, 3.0])
    assert t_interval([1.0, np.nan]).n == 1


def test_the_jackknife_takes_the_noise_out_of_a_spread() -> None:
    """A squared spread over blocks is biased upwards by the seeds' noise / seeds: 0.04 here, truly 0.01."""
    truth = np.array([-0.1, 0.1, -0.1, 0.1])
    squared_spread = lambda samples: float(samples.mean(axis=0).var())  # noqa: E731
    rng = np.random.default_rng(2)
    draws = [truth + 0.6 * rng.standard_normal((8, 4)) for _ in range(500)]
    plain = np.mean([squared_spread(draw) for draw in draws])
    corrected = np.mean([jackknife_interval(draw, squared_spread).value for draw in draws])
    assert plain > 0.04
    assert corrected == pytest.approx(0.01, abs=0.005)


def test_the_block_bootstrap_covers_the_mean_of_a_correlated_series() -> None:
    """An AR(1) series with coefficient 0.5; treated as independent, its interval would cover 74 of 100."""
    rng = np.random.default_rng(3)
    covered = {"blocks": 0, "independent": 0}
    for _ in range(300):
        noise, series = rng.standard_normal(150), np.zeros(150)
        for t in range(1, 150):
            series[t] = 0.5 * series[t - 1] + noise[t]
        tail = series[-100:]
        blocks, independent = block_bootstrap_interval(tail, resamples=400), t_interval(tail)
        covered["blocks"] += blocks.low <= 0 <= blocks.high
        covered["independent"] += independent.low <= 0 <= independent.high
    assert covered["blocks"] > 0.85 * 300
    assert covered["blocks"] > covered["independent"] + 20


def test_the_bootstrap_gives_the_same_interval_twice() -> None:
    series = np.random.default_rng(4).standard_normal(50)
    assert block_bootstrap_interval(series) == block_bootstrap_interval(series)
