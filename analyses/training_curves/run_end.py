"""How a run ended: the steps that broke, what shows it, whether the gradient had grown before, and GL301."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analyses.advice import PRE_LN, arrange_otherwise, lower_the_rate
from analyses.limits import limit
from analyses.making import Check
from analyses.tables import first, pick
from gradlens.analysis import Finding, Status
from gradlens.recording import Recording

CHECK = Check(
    code="GL301",
    analysis="training_curves",
    explanation=(
        "Finite to the end. A loss that is NaN or infinite, or a run that the trainer stopped as diverged, fails; one "
        "that was interrupted says nothing yet. Where no loss was recorded, the gradient tells: a loss that is no "
        "number has a gradient that is none. A run that passes need not have learned: whether its loss fell is GL306."
    ),
    unit="broken steps",
    expected=0.0,
    expected_from="a run that trains",
    threshold="no step without a finite loss or, where none was recorded, a finite gradient",
    reference="Xiong et al. 2020 (2002.04745), Fig. 2",
)
_STOPPED = {
    "interrupted": (("An exception in the training loop, or a stop by hand.",), ("Resume the run.",)),
    "running": (("The run goes on, or its process was killed.",), ("Report again when it has ended.",)),
}
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
    loss, suspect = steps["loss"], _without_finite_gradient(run)
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
    finite = set(steps.index[np.isfinite(steps["grad_norm"])]) - _without_finite_gradient(run)
    yield {"quantity": "steps with a finite gradient", "value": len(finite), "n": len(steps)}
    if broken:
        nan = int(_nan_losses(steps).loc[list(broken)].sum())
        shown_by = "loss" if nan or _is_seen(run, steps["loss"], broken) else "gradient"
        stayed = float(steps.index.max() in broken)  # a loss scaler skips single steps whose gradient overflowed
        yield {"quantity": "broken", "group": shown_by, "value": stayed, "n": nan}
    if at is not None:
        yield {"quantity": "gradient before the break", "value": _growth(steps["grad_norm"], int(at))}


def _nan_losses(steps: pd.DataFrame) -> pd.Series:
    """Whether the loss of a step was passed, and is NaN; recordings of an earlier gradlens do not say."""
    return steps["nan_loss"].eq(True) if "nan_loss" in steps else pd.Series(False, steps.index)


def _is_seen(run: Recording, loss: pd.Series, broken: Sequence[int]) -> bool:
    """Whether the loss itself shows that the run broke: it was infinite, or was passed at every step before."""
    if run.meta.get("status") == "diverged" or np.isinf(loss).any():
        return True
    before = loss[loss.index < broken[0]]
    return len(before) > 0 and bool(np.isfinite(before).all())


def _without_finite_gradient(run: Recording) -> set[int]:
    entries = run.params.groupby("step")["nonfinite"].sum()
    return set(entries[entries > 0].index)


def _growth(gradient: pd.Series, at: int) -> float:
    """Return the largest gradient norm shortly before a step over the median before; NaN where there is none."""
    before = gradient[(gradient.index < at) & (gradient > 0) & np.isfinite(gradient)]
    usual = before.tail(int(limit("GL303", "memory"))).median()
    return float(before.tail(_BEFORE).max() / usual) if len(before) else np.nan


def ended(rows: pd.DataFrame, label: str) -> Finding:
    """Return GL301: a fact about the run, so there is no interval.

    Args:
        rows: of the run's summary.
        label: the recording's.
    """
    how, broke = pick(rows, quantity="status").iloc[0], first(pick(rows, quantity="broken"))
    causes: tuple[str, ...] = ()
    remedies: tuple[str, ...] = ()
    status: Status
    if broke is not None and broke["group"] == "gradient" and not broke["value"]:
        status, claim = "warn", f"its gradient is not finite in {_of(how)}, the first of them step {how['x']:.0f}"
        causes = ("A loss scaler that looks for its factor: it skips such steps (innocent).", "An odd batch.")
        remedies = ("Pass the loss to lens.step(), and the scaler to attach: both then tell.",)
    elif broke is not None or has_diverged(rows):
        status, claim = "fail", f"the run diverged: {_where(how, broke)}"
        causes, remedies = _advice(rows)
    elif how["group"] in _STOPPED:
        status, claim = "inconclusive", f"the run is {how['group']}, with {_known(rows)}"
        causes, remedies = _STOPPED[str(how["group"])]
    else:
        status, claim = "pass", f"the run came to its end with {_known(rows)}"
        if not _count(rows, "loss") and not _count(rows, "gradient"):
            status, claim = "inconclusive", "the run came to its end; neither its loss nor its gradient was recorded"
            remedies = ("Pass the loss to lens.step(loss=...).",)
    unseen = "" if _count(rows, "loss") else "; no finite loss was recorded"
    return CHECK.finding(
        status,
        f"{label}: {claim}{unseen}.",
        label,
        value=None if status == "fail" and not how["value"] else float(how["value"]),
        steps=() if pd.isna(how["x"]) else (int(how["x"]),),
        causes=causes,
        remedies=remedies,
    )


def has_diverged(rows: pd.DataFrame) -> bool:
    """Whether a run broke and did not come back, or was stopped as diverged."""
    return for_good(rows) or bool((pick(rows, quantity="status")["group"] == "diverged").any())


def for_good(rows: pd.DataFrame) -> bool:
    """Whether a run broke and did not come back."""
    broke = first(pick(rows, quantity="broken"))
    return bool(broke is not None and broke["value"] > 0)


def _where(how: pd.Series, broke: pd.Series | None) -> str:
    at = "" if pd.isna(how["x"]) else f" at step {how['x']:.0f}"
    if broke is None:
        return f"it was stopped{at}, its loss not finite or far above chance for long"
    after = " and after" if broke["value"] else f", and in {_of(how)}"
    no_number = "NaN" if broke["n"] == how["value"] else "not finite"
    return f"its {broke['group']} is {no_number}{at}{after}"


def _of(how: pd.Series) -> str:
    return f"{how['value']:.0f} of {how['n']:.0f} recorded steps"


def _known(rows: pd.DataFrame) -> str:
    """Say in how many steps the loss was seen to be finite, else the gradient."""
    steps = pick(rows, quantity="status").iloc[0]["n"]
    seen = _count(rows, "loss")
    if seen == steps:
        return f"a finite loss in all {steps:.0f} recorded steps"
    if seen:
        return f"a finite loss in the {seen:.0f} of {steps:.0f} recorded steps that have one"
    gradients = _count(rows, "gradient")
    which = f"all {steps:.0f}" if gradients == steps else f"{gradients:.0f} of {steps:.0f}"
    return f"a finite gradient in {which} recorded steps"


def _count(rows: pd.DataFrame, what: str) -> float:
    return float(pick(rows, quantity=f"steps with a finite {what}")["value"].iloc[0])


def _advice(rows: pd.DataFrame) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return causes and remedies: of an unstable run where the gradient had grown, else of a fault at one step."""
    growth, rate = first(pick(rows, quantity="gradient before the break")), lower_the_rate(rows)
    if growth is None or growth["value"] > limit("GL303", "spike"):
        causes = ("A learning rate too high for the first steps.", "Overflow in float16.", "A fault in loss or data.")
        otherwise = arrange_otherwise(rows, PRE_LN)
        return causes, (rate, "Clip the gradient norm.", *otherwise)
    before = "" if pd.isna(growth["value"]) else ": the gradient had not grown before it"
    causes = (
        "A batch with NaN or infinite inputs, or a loss that is none for it (log or division of 0).",
        "Overflow in float16.",
        "A learning rate far too high: one step was enough.",
    )
    sound = f"If both are sound: {rate[0].lower()}{rate[1:]}"
    return causes, (f"Look at batch and loss of that step{before}.", sound)
