"""What is worked out at once of many values is what is worked out one by one."""

import numpy as np
import pandas as pd
import pytest

from analyses.depth import enclosing
from analyses.intervals import block_bootstrap_interval
from analyses.others import median_of_others
from analyses.steps import LONG, STRETCHES, envelope
from analyses.tables import tidy


def test_the_envelope_of_a_long_series_keeps_its_extremes_each_at_its_step() -> None:
    values = np.random.default_rng(0).normal(size=20_000)
    values[7_777], values[13_131] = 40.0, -60.0
    series = pd.Series(values, np.arange(0, 40_000, 2))
    drawn = envelope(series)
    assert len(drawn) <= 2 * STRETCHES + 2
    assert (drawn.idxmax(), drawn.max(), drawn.idxmin(), drawn.min()) == (15_554, 40.0, 26_262, -60.0)
    assert (series[drawn.index] == drawn).all()
    assert drawn.index.is_monotonic_increasing
    for stretch in np.array_split(np.arange(20_000), 100):
        inside = drawn.loc[series.index[stretch[0]] : series.index[stretch[-1]]]
        assert (inside.min(), inside.max()) == (values[stretch].min(), values[stretch].max())


def test_a_short_series_is_its_own_envelope() -> None:
    series = pd.Series(np.random.default_rng(0).normal(size=LONG))
    assert envelope(series) is series


def test_the_block_that_a_path_lies_in_is_the_first_of_those_it_begins_with() -> None:
    numbers = np.random.default_rng(0)
    words = ["a", "b", "ab", "0", "1", "10"]
    sites = list(dict.fromkeys(".".join(numbers.choice(words, numbers.integers(1, 4))) for _ in range(60)))
    paths = [".".join(numbers.choice(words, numbers.integers(1, 6))) for _ in range(400)]
    slow = {p: next((s for s in sites if p == s or p.startswith(f"{s}.")), None) for p in paths}
    assert enclosing(paths, sites) == {path: site for path, site in slow.items() if site is not None}
    assert 100 < sum(site is not None for site in slow.values()) < 400


@pytest.mark.parametrize("width", [1, 2, 3, 6, 7])
def test_the_median_of_the_others_leaves_one_out(width: int) -> None:
    numbers = np.random.default_rng(width)
    values = np.round(numbers.normal(size=(200, width)), 1)  # with some that are equal
    values[numbers.uniform(size=values.shape) < 0.3] = np.nan
    rest = [np.delete(values, k, axis=1) for k in range(width)]
    one_by_one = np.array(
        [[np.median(row[~np.isnan(row)]) if (~np.isnan(row)).any() else np.nan for row in r] for r in rest]
    ).T
    np.testing.assert_array_equal(median_of_others(values), one_by_one)


@pytest.mark.parametrize("n", [4, 10, 11, 57, 400])
def test_a_bootstrapped_mean_is_that_over_the_drawn_steps(n: int) -> None:
    series = np.random.default_rng(n).lognormal(size=n)
    block = int(np.ceil(np.sqrt(n)))
    starts = np.random.default_rng(0).integers(n - block + 1, size=(2000, int(np.ceil(n / block))))
    drawn = series[(starts[:, :, None] + np.arange(block)).reshape(2000, -1)[:, :n]]
    ends = np.quantile(drawn.mean(axis=1), (0.025, 0.975))
    np.testing.assert_allclose(block_bootstrap_interval(series)[1:3], ends, rtol=1e-13)


def test_a_curve_stands_for_its_rows() -> None:
    fixed = {"panel": "loss", "quantity": "raw", "label": "a"}
    summary = {"panel": "summary", "quantity": "n", "label": "a", "value": 3}
    curve = {
        **fixed,
        "x": np.array([0, 2, 5]),
        "value": np.array([1.0, np.nan, 3.0]),
        "group": np.array(["p", "q", "r"], object),
    }
    rows = [{**fixed, "x": x, "value": v, "group": g} for x, v, g in ((0, 1.0, "p"), (2, None, "q"), (5, 3.0, "r"))]
    empty = {**fixed, "x": np.array([]), "value": np.array([])}
    pd.testing.assert_frame_equal(tidy([curve, summary, empty]), tidy([*rows, summary]))
