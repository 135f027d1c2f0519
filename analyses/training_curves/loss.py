"""Whether the loss fell and stayed down: its level at the start, at its best and at the end, and GL306.

Nothing here divides one loss by another: a loss may be negative, 0 or near it. Levels are held against each other, and
what a run gave back is a share of what it had gained.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from analyses.advice import lower_the_rate
from analyses.intervals import Array, Interval, block_bootstrap_interval
from analyses.limits import held_against
from analyses.making import Check
from analyses.tables import first, number, percent, pick, span
from analyses.training_curves.run_end import for_good
from gradlens.analysis import Finding, Status
from gradlens.analysis.ending import at_the_end, span_of_steps

CHECK = Check(
    code="GL306",
    analysis="training_curves",
    explanation=(
        "The loss fell. The loss at the end of training less that at the start of the same recording: the mean over "
        "the first five recorded steps, or the first quarter of a shorter run. To be below it, the end must be so by "
        "more than the noise of single steps explains, or below the mean over as many steps at the start as there are "
        "at the end. To be above it, which fails, finite as all losses may be, it must be above the highest of the "
        "first ten losses, or above the very first where that was the lowest of all, which then is the start. The best "
        "steps are those of the lowest running mean over a twentieth of the steps, ten at least; where the loss rose, "
        "the last step that was as good is named. A loss that never fell asks for a look, and so does a run that gave "
        "back more than half of what it had gained. Only differences are compared: unit, sign and zero play no part."
    ),
    expected="below 0",
    expected_from="the run's own start",
    threshold="below 0, with at most {given_back:g} of the best fall given back; above 0 it fails",
)
_FIRST, _HIGHEST, _BEST, _FEW = 5, 10, 10, 20
#: Relative; means of equal numbers differ by less.
_ROUNDING = 1e-14
_START, _EARLY, _LEAST, _END = "loss at the start", "loss of the first steps", "best loss", "loss at the end"
_CADENCE = "steps between losses"
_OTHER = "A loss that is not meant to fall: of a GAN, a policy, a curriculum, with a term that grows (innocent)."
_NOT_LOST = "Go back to the weights of the best steps; record more often around the step named."


def levels(loss: pd.Series) -> Iterator[dict[str, Any]]:
    """Yield the rows that GL306 judges, but for the loss at the end; none where start and end would share steps.

    Args:
        loss: finite ones, by step.
    """
    loss = loss.sort_index()
    end = at_the_end(loss)
    if len(loss) < 2 * len(end):
        return
    early, at_once = loss.head(len(end)), len(loss) >= _FEW and loss.iloc[0] == loss.min()
    start = loss.head(1 if at_once else min(_FIRST, len(loss) // 4))
    # If nothing changed, both ends are equally noisy; what learned fast, or exploded, spreads more at one of them.
    spread = min(float(early.std()), float(end.std()))
    half = float(stdtrit(len(end) - 1, 0.975)) * spread / math.sqrt(len(start))
    mean, rounding = float(start.mean()), _ROUNDING * float(start.abs().max())
    high = mean if at_once else float(early.head(_HIGHEST).max())
    if len(loss) < _FEW:  # the bootstrap knows too little of so few: each loss at the end must be higher
        high += max(0.0, block_bootstrap_interval(end).low - float(end.min()))
    interval = Interval(mean, mean - half - rounding, high + rounding, len(start))
    yield {"quantity": _START, "group": span_of_steps(start), "x": start.index[0], **interval.row()}
    yield {"quantity": _EARLY, **block_bootstrap_interval(early).row()}
    length = min(len(end), max(_BEST, len(loss) // 20))
    # No running sum: one huge loss would stay in its rounding.
    means: Array = np.lib.stride_tricks.sliding_window_view(loss.to_numpy(), length).mean(axis=1)
    at = int(means.argmin())
    best = block_bootstrap_interval(loss.iloc[at : at + length])
    last = int(np.flatnonzero(means <= max(best.high, best.value))[-1]) + length - 1
    steps = span_of_steps(loss.iloc[at : at + length])
    yield {"quantity": _LEAST, "group": steps, "x": loss.index[last], **best.row()}
    between = float(np.median(np.diff(loss.index)))
    yield {"quantity": _CADENCE, "x": loss.index[-1], "value": between, "n": len(loss)}


def fell(rows: pd.DataFrame, label: str) -> Finding:
    """Return GL306: where the loss ended, held against where it began and its best.

    Args:
        rows: of the run's summary.
        label: the recording's.
    """
    start, early, best, end = (first(pick(rows, quantity=q)) for q in (_START, _EARLY, _LEAST, _END))
    if for_good(rows):
        at = pick(rows, quantity="status").iloc[0]["x"]
        claim = f"{label}: the loss is no number from step {at:.0f} on (GL301): where it ended is not asked."
        return CHECK.silent(claim, label)
    if end is None:
        return CHECK.silent(f"{label}: no finite loss was recorded, so nothing is known of how it moved.", label)
    if start is None or best is None or early is None:
        steps = float(pick(rows, quantity="steps with a finite loss")["value"].iloc[0])
        if steps == 1:
            return CHECK.silent(f"{label}: one step with a loss says nothing of how it moved.", label)
        claim = f"{label}: {steps:.0f} steps with a loss are too few to tell its start from its end."
        return CHECK.finding("inconclusive", claim, label, remedies=("Record more steps.",))
    cadence = pick(rows, quantity=_CADENCE).iloc[0]
    return _judged(rows, label, {"start": start, "early": early, "best": best, "end": end, "cadence": cadence})


def _judged(rows: pd.DataFrame, label: str, at: dict[str, pd.Series]) -> Finding:
    start, best, end = at["start"], at["best"], at["end"]
    change = {"value": end["value"] - start["value"], "low": end["low"] - start["high"]}
    change["high"] = end["high"] - start["low"]
    gained = bool(best["high"] < start["low"])
    back = {c: (end[c] - best["value"]) / (start["value"] - best["value"]) if gained else 0.0 for c in change}
    rose = int(best["x"])
    levels = (
        f"over {end['group']} it is {number(end['value'])}{span(end, without='')}, against {number(start['value'])} "
        f"{'at' if start['n'] == 1 else 'over'} {start['group']}"
    )
    lowest = f"{number(best['value'])} over {best['group']}"
    facts: dict[str, Any] = {
        "unit": str(end["unit"]) or "loss",
        "details": {"given back": float(back["value"]) if gained else None, "best": float(best["value"])},
    }
    if change["low"] > 0:
        facts["steps"] = (rose,) if gained else (int(start["x"]),)
        before = (
            f"it was lowest, {lowest}, and has risen since step {rose}" if gained else "it was never below its start"
        )
        return CHECK.finding(
            "fail",
            f"{label}: the loss ended {number(change['value'])} above its start: {levels}; {before}.",
            label,
            change,
            causes=(_OTHER, "A learning rate too high: the run diverged slowly.", "A loss of the wrong sign."),
            remedies=(lower_the_rate(rows), "Check the sign of the loss and of the update.", *[_NOT_LOST] * gained),
            **facts,
        )
    share = held_against(back["low"], back["high"], most=CHECK.limit("given_back"))
    if share == "inconclusive" and rose == at["cadence"]["x"]:
        share = "pass"  # still falling, or in the noise of its best
    if gained and share == "warn":
        return CHECK.finding(
            "warn",
            f"{label}: the loss gave back {percent(back['value'], 0)} of what it had gained: {levels}; it was lowest, "
            f"{lowest}, and has risen since step {rose}.",
            label,
            change,
            steps=(rose,),
            causes=(_OTHER, "Harder data since then (innocent).", "A learning rate that became too high."),
            remedies=(lower_the_rate(rows), _NOT_LOST),
            **facts,
        )
    if change["high"] < 0 or at["early"]["low"] > end["high"]:
        status: Status = "inconclusive" if gained and share == "inconclusive" else "pass"
        stayed = "fell and stayed down" if status == "pass" else "fell, and may have risen again by half of it"
        return CHECK.finding(status, f"{label}: the loss {stayed}: {levels}.", label, change, **facts)
    return _flat(rows, label, at, change, levels, facts)


def _flat(
    rows: pd.DataFrame,
    label: str,
    at: dict[str, pd.Series],
    change: dict[str, float],
    levels: str,
    facts: dict[str, Any],
) -> Finding:
    """Return GL306 of a run whose end cannot be told from its start."""
    between = at["cadence"]
    enough = between["n"] >= CHECK.limit("steps")
    # A recording that begins late may show a run that had learned before.
    late = at["start"]["x"] > between["value"]
    why = (
        "; the recording begins late"
        if late
        else ""
        if enough
        else f"; {between['n']:.0f} steps may be too few to tell"
    )
    return CHECK.finding(
        "warn" if enough and not late else "inconclusive",
        f"{label}: the loss did not fall: {levels}{why}.",
        label,
        change,
        causes=(
            "The weights had converged before the first step (innocent).",
            "Noise of single batches that hides a small fall (innocent).",
            "A learning rate far too low (GL404), or clipping that leaves nothing of the gradient (GL403).",
            "A loss that does not reach the parameters (GL401).",
        ),
        remedies=(
            "See that one small batch can be learned by heart.",
            "Record more steps.",
            "Raise the learning rate.",
        ),
        **facts,
    )
