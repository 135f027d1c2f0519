"""The theory of whole Transformers beside the measurement: curves over depth, and how far the measurement is off them.

The prediction has no fitted constant. What is measured is compared with it as a root mean square over seeds, which is
what is predicted.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from analyses.intervals import Array, Interval
from analyses.whole_network import predicted
from gradlens.recording import Recording
from gradlens.theory.network import OutsideTheoryError
from gradlens.theory.stack import Predicted

PREDICTED = "predicted"
STREAM = "stream"
_RESAMPLES = 1000
Row = dict[str, Any]


class Prediction:
    """What the theory of whole Transformers says of a recording.

    Args:
        recording: at initialization.

    Attributes:
        outside: why it says nothing; empty where it does.
    """

    def __init__(self, recording: Recording) -> None:
        self.outside = ""
        self._stacks: Mapping[str, Predicted] = {}
        self._model = recording.meta.get("model") or {}
        try:
            self._stacks = predicted(recording)
        except OutsideTheoryError as error:
            self.outside = str(error)

    def gradient(self, stack: str, group: str) -> dict[int, float]:
        """Return block, from 1, to the norm of a group's gradient; empty where none is predicted."""
        values = self._stacks[stack].gradients.get(f"{group}.weight", ()) if stack in self._stacks else ()
        return dict(enumerate(map(float, values), start=1))

    def stream(self, stack: str) -> dict[int, float]:
        """Return blocks applied to the stream's rms; empty where it is not predicted."""
        return dict(enumerate(np.sqrt(self._stacks[stack].stream).tolist())) if stack in self._stacks else {}

    def summary(self, stack: str, profiles: Mapping[str, pd.DataFrame], rms: pd.DataFrame) -> Iterator[Row]:
        """Yield how far the measurement is off the prediction, over all and group by group, or why nothing is known.

        Args:
            stack: its path.
            profiles: group to its gradient norms [seeds, blocks]; the columns are block numbers from 1.
            rms: of the stream [seeds, depths]; the columns are the blocks applied.
        """
        if self.outside:
            yield {"quantity": "outside the theory", "group": self.outside}
            return
        curves = {group: self.gradient(stack, group) for group in profiles} | {STREAM: self.stream(stack)}
        measured = {**profiles, STREAM: rms}
        shared = {group: [x for x in curves[group] if x in own.columns] for group, own in measured.items()}
        parts = {group: own[shared[group]] for group, own in measured.items() if len(own) and shared[group]}
        samples = pd.concat(parts, axis=1).dropna().to_numpy() if parts else np.zeros((0, 0))
        if not len(samples):
            return
        expected = np.array([curves[group][x] for group in parts for x in shared[group]])
        yield {"quantity": "width", "value": self._model["width"]}
        yield {"quantity": "off the prediction", **_off(samples, expected).row()}
        end = 0
        for group, part in parts.items():
            start, end = end, end + part.shape[1]
            own, theory = samples[:, start:end], expected[start:end]
            yield {"quantity": "off the prediction in a group", "group": group, **_off(own, theory).row()}
            if theory.all():
                ratio = float(np.median(_rms(own) / theory))
                yield {"quantity": "measured over predicted", "group": group, "value": ratio}


def _rms(samples: Array) -> Array:
    """Return the root mean square over seeds, [..., seeds, numbers] to [..., numbers]."""
    rms: Array = np.sqrt((samples**2).mean(axis=-2))
    return rms


def _off(samples: Array, expected: Array) -> Interval:
    """Return the median over numbers of the difference as a share of the larger one, which is 0 where both are 0.

    Args:
        samples: what was measured [seeds, numbers].
        expected: what is predicted [numbers].
    """

    def off(some: Array) -> Array:
        measured = _rms(some)
        larger, smaller = np.maximum(measured, expected), np.minimum(measured, expected)
        shares = np.divide(smaller, larger, out=np.ones_like(larger), where=larger > 0)
        median: Array = np.median(1 - shares, axis=-1)
        return median

    return _bootstrap_interval(samples, off)


def _bootstrap_interval(samples: Array, statistic: Callable[[Array], Array]) -> Interval:
    """Return a statistic over seeds with a bias-corrected interval from the bootstrap's standard error.

    A median of absolute errors has a bias from the seeds' noise, and is too rough for the jackknife. The standard error
    is that of resampled seeds times √(n/(n − 1)), its quantile Student's: for 5 and 10 seeds, true errors of 3 to 20 %
    and a noise of 12 % a number the interval then covers the true one in 87 to 98 % of simulations.

    Args:
        samples: one row a seed [n, k].
        statistic: of arrays [..., m, k] of seeds.
    """
    n, value = len(samples), float(statistic(samples))
    if n < 2:
        return Interval(value, np.nan, np.nan, n)
    drawn = np.random.default_rng(0).integers(n, size=(_RESAMPLES, n))
    resampled = statistic(samples[drawn])
    half = float(stdtrit(n - 1, 0.975) * resampled.std(ddof=1) * np.sqrt(n / (n - 1)))
    centre = max(0.0, 2 * value - float(resampled.mean()))
    return Interval(value, max(0.0, centre - half), centre + half, n)
