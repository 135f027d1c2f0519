"""What a gradient scaler tells without a look at its numbers: its factor, and whether it left a step out."""

from typing import Any

import torch
from torch import Tensor


class LossScale:
    """Watches a ``GradScaler``.

    Args:
        scaler: it, or None.
        optimizer: the one that closes steps; None where steps are closed by hand.
    """

    def __init__(self, scaler: Any, optimizer: torch.optim.Optimizer | None) -> None:
        self.scaler, self._optimizer = scaler, optimizer
        self._scale: Tensor | None = None
        #: The scaler's record of its optimizers when the step began, and when the optimizer stepped last.
        self._states: Any = None
        self._stepped_in: Any = None
        self._unscales_itself = False

    def _record(self) -> Any:
        return getattr(self.scaler, "_per_optimizer_states", None)

    def begin(self) -> None:
        """Begin a step."""
        self._states = self._record()

    def backward_ended(self) -> None:
        """Note the factor that the gradients have."""
        scale = getattr(self.scaler, "_scale", None)
        self._scale = scale.detach().clone() if isinstance(scale, Tensor) else None

    def steps(self, optimizer: torch.optim.Optimizer) -> None:
        """Note that the optimizer is about to step."""
        # GradScaler sets this for the time of the call, on fused optimizers.
        self._unscales_itself = getattr(optimizer, "grad_scale", None) is not None

    def stepped(self) -> None:
        """Note that the optimizer has stepped."""
        self._stepped_in = self._record()

    def skipped(self) -> bool:
        """Whether the scaler found an overflow and left the optimizer's step out: then this was a step all the same.

        ``update()`` gives the scaler a new record of its optimizers; to compare its factors would wait for the device.
        """
        now, then = self._record(), self._states
        if self._optimizer is None or now is then or then is self._stepped_in:
            return False
        return id(self._optimizer) in (then or ())

    def factor(self) -> float:
        """Return the factor that is to be divided out; waits for the device."""
        return float(self._scale) if self._scale is not None else 1.0

    def while_clipping(self, factor: float) -> float:
        """Return by how much the gradient after clipping is too small: an optimizer that unscales itself has it scaled.

        Args:
            factor: of the step.
        """
        return 1.0 if self._unscales_itself else factor

    def forget(self) -> None:
        """Forget the factor of the step that is over."""
        self._scale = None
