"""How a run ended, as numbers: the steps that broke, what shows it, and whether the gradient had grown before."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analyses.limits import limit
from gradlens.recording import Recording

#: Where a run breaks, the gradient of so many steps before is held against the running median.
_BEFORE = 5


def broken_steps(run: Recording, steps: pd.DataFrame) -> list[int]:
    """Return the steps whose loss is infinite or NaN.

    A loss that nobody passed is missing as a NaN is, which has a column of its own: without one it counts only in a run
    that diverged, behind its last finite loss, or where the gradient has entries that are no numbers.

    Args:
        run: whose status and gradients are asked.
        steps: its table of this name, by step.
    """
    loss = steps["loss"]
    suspect = _without_finite_gradient(run)
    if run.meta.get("status") == "diverged":
        last = loss[np.isfinite(loss)].index.max()
        suspect |= {step for step in loss.index if not step <= last}
    numbers = loss.index.to_numpy()
    missing = np.isnan(loss).to_numpy() & np.isin(numbers, list(suspect))
    broken = np.isinf(loss).to_numpy() | _nan_losses(steps).to_numpy() | missing
    return [int(step) for step in numbers[broken]]


def endings(run: Recording, steps: pd.DataFrame, broken: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Yield the rows that GL301 judges.

    Args:
        run: how it ended stands in its metadata.
        steps: its table of this name, by step.
        broken: of ``broken_steps``.
    """
    at = broken[0] if broken else run.meta.get("diverged_at")
    facts = {"value": len(broken), "n": len(steps), "x": at}
    yield {"quantity": "status", "group": str(run.meta.get("status", "")), **facts}
    yield {"quantity": "steps with a finite loss", "value": np.isfinite(steps["loss"]).sum(), "n": len(steps)}
    yield {"quantity": "steps with a finite gradient", "value": _finite_gradients(run, steps), "n": len(steps)}
    if broken:
        nan = int(_nan_losses(steps).loc[list(broken)].sum())
        shown_by = "loss" if nan or _is_seen(run, steps["loss"], broken) else "gradient"
        # A run is over where it stayed broken; a loss scaler skips single steps whose gradient overflowed.
        stayed = steps.index.max() in broken
        yield {"quantity": "broken", "group": shown_by, "value": float(stayed), "n": nan}
    if at is not None:
        yield {"quantity": "gradient before the break", "value": _growth(steps["grad_norm"], int(at))}


def _nan_losses(steps: pd.DataFrame) -> pd.Series:
    """Whether the loss of a step was passed, and is NaN; recordings of an earlier gradlens do not say."""
    known = "nan_loss" in steps
    return steps["nan_loss"].eq(True) if known else pd.Series(False, steps.index)


def _is_seen(run: Recording, loss: pd.Series, broken: Sequence[int]) -> bool:
    """Whether the loss itself shows that the run broke: it was infinite, or was passed at every step before."""
    if run.meta.get("status") == "diverged" or np.isinf(loss).any():
        return True
    before = loss[loss.index < broken[0]]
    return len(before) > 0 and bool(np.isfinite(before).all())


def _without_finite_gradient(run: Recording) -> set[int]:
    entries = run.params.groupby("step")["nonfinite"].sum()
    return set(entries[entries > 0].index)


def _finite_gradients(run: Recording, steps: pd.DataFrame) -> int:
    known = steps.index[np.isfinite(steps["grad_norm"])]
    return len(set(known) - _without_finite_gradient(run))


def _growth(gradient: pd.Series, at: int) -> float:
    """Return the largest gradient norm shortly before a step over the median before; NaN where there is none."""
    before = gradient[(gradient.index < at) & (gradient > 0) & np.isfinite(gradient)]
    usual = before.tail(int(limit("GL303", "memory"))).median()
    return float(before.tail(_BEFORE).max() / usual) if len(before) else np.nan
