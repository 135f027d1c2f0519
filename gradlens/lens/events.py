"""What happens in a training that should be seen in full: told by what costs nothing to look at."""

from collections import deque
from math import inf, isfinite, log, nan

#: Reason to what it is called in the audit; the reasons are those of the column ``reason`` in ``steps``.
REASONS = {
    "loss": "the loss left its recent range",
    "grad_norm": "the gradient norm left its recent range",
    "nonfinite": "a value was not finite",
    "skipped": "a scaler left a step out",
    "lr": "the learning rate changed twofold",
    "trained": "other parameters were trained",
}
#: Values that a range is made of, and the fewest to judge by.
_RECENT, _FEWEST = 64, 8
#: How far above its recent values one must be, in their whole range, and in its own size: noise stays below.
_BEYOND, _LEAST = 0.5, 0.01


class Recent:
    """The recent values of a series, and whether one leaves their range upward."""

    def __init__(self) -> None:
        self._values: deque[float] = deque(maxlen=_RECENT)

    def left_by(self, value: float) -> bool:
        """Whether a value lies beyond all recent ones; it is one of them from then on."""
        if not isfinite(value):
            return False
        left = False
        if len(self._values) >= _FEWEST and value > (most := max(self._values)):
            left = value - most > max(_BEYOND * (most - min(self._values)), _LEAST * abs(most))
        self._values.append(value)
        return left


class Events:
    """Notices events. Each method is told of a step and returns the reason to record what follows; else it is empty."""

    def __init__(self) -> None:
        self._loss, self._norm = Recent(), Recent()
        self._lr, self._scale = nan, nan
        self._trained: list[bool] | None = None
        #: Whether the last loss, and the last recorded step, was finite: what goes on being broken is no news.
        self._whole = {"loss": True, "step": True}

    def loss(self, value: float) -> str:
        """Look at the loss of a step."""
        left = self._loss.left_by(value)
        return self._broke("loss", isfinite(value)) or "loss" * left

    def recorded(self, grad_norm: float, finite: bool, scale: float) -> str:
        """Look at what is known of a recorded step.

        Args:
            grad_norm: of the whole gradient; NaN where it is not known.
            finite: whether all was.
            scale: the scaler's factor, which falls after steps that are left out; NaN without a scaler.
        """
        left = grad_norm > 0 and self._norm.left_by(log(grad_norm))
        fell, self._scale = scale < self._scale, scale
        reason = self._broke("step", finite) or "grad_norm" * left
        return "skipped" if fell else reason

    def rate(self, lr: float) -> str:
        """Look at the learning rate of a step."""
        low, high = sorted((lr, self._lr))
        changed = high >= 2 * low and high > low and high < inf
        self._lr = lr
        return "lr" * changed

    def trained(self, which: list[bool]) -> str:
        """Look at which parameters are trained."""
        changed = self._trained is not None and which != self._trained
        self._trained = which
        return "trained" * changed

    def _broke(self, what: str, finite: bool) -> str:
        broke = self._whole[what] and not finite
        self._whole[what] = finite
        return "nonfinite" * broke
