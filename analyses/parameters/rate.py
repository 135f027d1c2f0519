"""GL408: a learning rate that jumps above all rates before, or is all but 0 long before the end."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from analyses.limits import limit
from analyses.making import OVERSHOT, SYMPTOMS, Check
from analyses.parameters.lasting import since
from analyses.tables import first, number, percent, pick
from gradlens.analysis import Finding

CHECK = Check(
    code="GL408",
    analysis="parameters",
    explanation=(
        "Course of the learning rate. A rate that comes to {jump:g} times the largest of all recorded steps before, "
        "from one recorded step to the next and behind the first {memory:g}, is none that a warm-up has: it jumps. One "
        "that is below {rest:g} of its largest from a step on, for the last {share:g} of the recorded steps or more, "
        "ends the training there, whatever runs on."
    ),
    unit="times the largest before",
    expected="at most a little above 1",
    expected_from="schedules that warm up, decay, and restart where they were",
    threshold="below {jump:g}; and not below {rest:g} of the largest for the last {share:g} of the steps",
    causes=(
        "A search for the best rate, which raises it on purpose (innocent).",
        "A schedule that counts epochs where it is told steps, or the other way, or that was given too few.",
        "A resumed run whose optimizer or schedule was made anew.",
    ),
    remedies=("Print the rate beside the step, and hold it against the schedule that was meant.",),
    explains=(*SYMPTOMS, *OVERSHOT, "GL405"),
)


def numbers(steps: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield the largest jump of the rate, and since when it is all but 0.

    Args:
        steps: of a run, by step.
    """
    rate = steps["lr"].dropna() if "lr" in steps else pd.Series(dtype=float)
    memory = int(limit("GL408", "memory"))
    if len(rate) <= memory:
        return
    before = rate.cummax().shift()
    times = (rate / before.where(before > 0)).iloc[memory:].dropna()
    if len(times):
        yield {"quantity": "jump of the rate", "value": times.max(), "x": times.idxmax(), "n": len(rate)}
    start = since(rate <= limit("GL408", "rest") * rate.max())
    if start is not None:
        yield {"quantity": "rate at rest", "value": (rate.index >= start).mean(), "x": start, "n": len(rate)}


def judged(rows: pd.DataFrame, label: str) -> Finding:
    """Return GL408: a fact about the run, so there is no interval.

    Args:
        rows: of the run's summary.
        label: the recording's.
    """
    jump, rest = (first(pick(rows, quantity=q)) for q in ("jump of the rate", "rate at rest"))
    if jump is None:
        return CHECK.silent(
            f"{label}: the learning rate is not known of more than {CHECK.limit('memory'):.0f} steps: "
            "attach(..., optimizer=optimizer) records it.",
            label,
        )
    at: dict[str, Any] = {"born": "update"}
    if jump["value"] >= CHECK.limit("jump"):
        step = int(jump["x"])
        claim = f"{label}: the learning rate jumps at step {step}, to {number(jump['value'])} times the largest before."
        return CHECK.finding("warn", claim, label, jump, onset=step, steps=(step,), **at)
    if rest is not None and rest["value"] >= CHECK.limit("share"):
        step = int(rest["x"])
        claim = (
            f"{label}: the learning rate is all but 0 from step {step} on, for the last {percent(rest['value'], 0)} of "
            "the recorded steps."
        )
        return CHECK.finding("warn", claim, label, value=None, onset=step, steps=(step,), **at)
    claim = f"{label}: the learning rate neither jumps nor ends early."
    return CHECK.finding("pass", claim, label, jump, causes=(), remedies=())
