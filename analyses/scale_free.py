"""Which parameters are scale-free: those whose size the loss does not see, as that of a matrix in front of a norm."""

import numpy as np

from analyses.limits import limit
from analyses.once import once
from gradlens.recording import Recording


@once
def scale_free(recording: Recording) -> frozenset[str]:
    """Return the names of the parameters of which the loss sees the direction alone.

    The derivative of the loss by the logarithm of a parameter's size is Σ g·w. Where the output is normalized it is 0
    in every step; where eps is a part of the norm's variance, or a bias stands beside the matrix, it is not. It is held
    against what a gradient of random direction makes of it, ‖g‖ ‖w‖ / √n with n entries. The size of such a parameter
    says nothing, and grows by itself: each step of gradient descent is at a right angle to it.

    Args:
        recording: of training; of recordings that do not hold Σ g·w nothing is known.

    References:
        van Laarhoven 2017 (1706.05350); Arora, Li and Lyu 2018 (1812.03981).
    """
    params = recording.params
    if "grad_weight" not in params:
        return frozenset()
    random = params["grad_norm"] * params["weight_norm"] / np.sqrt(params["numel"])
    squares = (params["grad_weight"] / random.where(random > 0)) ** 2
    of = squares.groupby(params["name"], sort=False).agg(["count", "mean"])
    free = (of["count"] >= limit("GL404", "enough")) & (of["mean"] <= limit("GL404", "free") ** 2)
    return frozenset(str(name) for name in of.index[free])
