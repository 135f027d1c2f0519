"""What theory says of a network that was measured, as curves over depth; or why it says nothing."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from analyses.depth_profile import whole_network
from analyses.intervals import Array
from gradlens.errors import GradlensError
from gradlens.recording import Recording


class Predicted(NamedTuple):
    """Curves over depth of one network.

    Attributes:
        streams: stack to the stream's second moment, by blocks applied.
        gradients: stack and parameter (by its name in its block) to the gradient's norm, by block from 1.
        outside: why there is none, where the network lies outside of the theory.
    """

    streams: Mapping[str, pd.Series]
    gradients: Mapping[tuple[str, str], pd.Series]
    outside: str = ""


def predicted(recording: Recording) -> Predicted:
    """Return what theory says of a recording at initialization."""
    try:
        paths = whole_network.predicted(recording)
    except GradlensError as error:
        return Predicted({}, {}, str(error))
    stacks = {path.removesuffix("blocks").rstrip("."): stack for path, stack in paths.items()}
    gradients = {
        (path, name): _curve(values, 1) for path, stack in stacks.items() for name, values in stack.gradients.items()
    }
    return Predicted({path: _curve(stack.stream, 0) for path, stack in stacks.items()}, gradients)


def _curve(values: Array, begin: int) -> pd.Series:
    return pd.Series(np.asarray(values, dtype=np.float64), index=range(begin, begin + len(values)))
