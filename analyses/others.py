"""One series of many held against the rest."""

import numpy as np

from analyses.intervals import Array


def median_of_others(values: Array) -> Array:
    """Return for each value the median of the others in its row.

    Args:
        values: [steps, series]; what is NaN is left out.

    Returns:
        The same shape; NaN where there is no other.
    """
    order = np.argsort(values, axis=1)  # NaN last
    ranked = np.take_along_axis(values, order, axis=1)
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(values.shape[1])[None, :], axis=1)
    known = ~np.isnan(values)
    count = known.sum(axis=1, keepdims=True)
    rank = np.where(known, rank, values.shape[1])  # what is NaN takes nobody's place
    rest = count - known
    middle = [np.maximum(rest - 1, 0) // 2, rest // 2]
    # In the row without its own value each place behind it is one further.
    ends = [at + (at >= rank) for at in middle]
    low, high = (np.take_along_axis(ranked, np.minimum(at, values.shape[1] - 1), axis=1) for at in ends)
    return np.where(rest > 0, (low + high) / 2, np.nan)
