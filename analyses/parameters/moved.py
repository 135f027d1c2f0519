"""GL404: what a step changes of a matrix, over its size."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from analyses.intervals import block_bootstrap_interval
from analyses.limits import held_against, limit
from analyses.making import SYMPTOMS, Check
from analyses.parameters.lasting import onset, since
from analyses.tables import first, number, pick, span
from gradlens.analysis import Finding
from gradlens.analysis.ending import span_of_steps

CHECK = Check(
    analysis="parameters",
    code="GL404",
    explanation=(
        "Update over weight. The L2 norm of a step's change of a weight matrix over that of the matrix, median over "
        "matrices, geometric mean over the recorded steps. The rule of thumb is 0.001. A tenth turns over what was "
        "learned in ten steps, and one step of {burst:g} times their size wipes out what there was; where not even the "
        "largest of all steps moves {least:g}, or all together {path:g}, the run stands still. Gains and biases are "
        "left out: they often begin at 0. Without updates among what is watched it is that of at most 1,024 entries of "
        "each matrix. What is too large only from a step on, and a step as large as the weights after many small "
        "ones, is told with the step. Decay of the learning rate and convergence make late updates small, so that only "
        "the largest step is asked whether it is too small."
    ),
    unit="of the weight a step",
    expected="about 0.001",
    expected_from="the usual rule of thumb",
    threshold="at most {most:g} on the mean; from {least:g} to {burst:g} in the largest step",
    causes=(
        "Weights that are small beside what they will be, in the first steps of a short recording (innocent).",
        "A learning rate of another order than the optimizer needs: SGD's is no rate for Adam.",
        "A warm-up that has only begun (innocent).",
        "Parameters that the optimizer does not hold, or gradients that are all but 0 (GL401, GL403).",
    ),
    reference="Karpathy, CS231n, Neural networks 3: ratio of weights and updates",
)
#: What a rate that is far too large makes of a run: its loss, its gradients, and what clips them.
_FOLLOWS = (*SYMPTOMS, "GL204", "GL307", "GL308", "GL309", "GL310", "GL311", "GL406", "GL407", "GL704")
#: Steps that are smoothed before it is asked from which on they are too large; matrices that are named.
_SMOOTH, _NAMED = 5, 5


def numbers(params: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield update over weight of the matrices: the geometric mean over steps of their median, and its largest.

    Where it is too large in the end, the mean from the step on from which it is, and the matrices.

    Args:
        params: rows of a run with ``places``.
    """
    ratio = (params["update_norm"] / params["weight_norm"]).fillna(params["update_ratio"])
    error = params["update_ratio_error"].where(params["update_norm"].isna(), 0.0).fillna(0.0)
    table = params.assign(ratio=ratio, error=error)
    table = table[table["matrix"].astype(bool) & (table["weight_norm"] > 0) & np.isfinite(ratio)]
    if table.empty:
        return
    medians = table.groupby("step")["ratio"].median()
    sampling = float(table["error"].median())
    first_step = float(params["step"].min())
    fixed: Mapping[str, Any] = {"group": span_of_steps(medians)}
    yield {**fixed, "quantity": "update over weight", **_mean(medians, sampling)}
    yield {**fixed, "quantity": "largest update over weight", "value": medians.max(), "x": medians.idxmax(),
           "low": first_step, "high": params["step"].max() - first_step, "n": params["step"].nunique()}  # fmt: skip
    yield {"quantity": "matrices that move", "value": table["name"].nunique()}
    most = limit("GL404", "most")
    leap = _leap(medians, most)
    start = since(medians.rolling(_SMOOTH, center=True, min_periods=1).median() > most) if leap is None else leap
    if leap is not None:
        yield {"quantity": "leap", "value": medians[leap], "x": leap}
    if start is not None:
        tail = medians[medians.index >= start]
        mean = _mean(tail, sampling)
        recorded = params.loc[params["step"] >= start, "step"].nunique()
        yield {"group": span_of_steps(tail), "quantity": "large update over weight", **mean, "x": start, "n": recorded}
        steps = table["step"] >= start if leap is None else table["step"] == leap
        above = table[steps & (table["ratio"] > 0)]
        each = np.exp(np.log(above["ratio"]).groupby(above["name"], sort=False).mean())
        for name, value in each[each > most].nlargest(_NAMED).items():
            yield {"group": name, "quantity": "matrix that moves too far", "value": value}


def _leap(medians: pd.Series, most: float) -> int | None:
    """Return the first step that is as large as the weights, after many that were small; None where there is none."""
    large = medians.index[medians >= limit("GL404", "leap")]
    before = medians[medians.index < large[0]] if len(large) else medians[:0]
    memory = int(limit("GL404", "memory"))
    return int(large[0]) if len(before) >= memory and (before.tail(memory) <= most).all() else None


def _mean(medians: pd.Series, sampling: float) -> dict[str, float]:
    """Return the geometric mean with its interval, which holds what sampling entries adds to it."""
    above = medians[medians > 0]
    if above.empty:
        return {"value": 0.0}
    mean = block_bootstrap_interval(np.log(above))
    down, up = (math.hypot(mean.value - end, 1.96 * sampling) for end in (mean.low, mean.high))
    return {"value": math.exp(mean.value), "low": math.exp(mean.value - down), "high": math.exp(mean.value + up)}


def judged(rows: pd.DataFrame, label: str) -> Finding:
    """Return GL404: the mean of all steps is too large, or of all from one on, or the largest step is too small.

    Args:
        rows: of the run's summary.
        label: the recording's.
    """
    usual, largest, late = (
        first(pick(rows, quantity=f"{which}update over weight")) for which in ("", "largest ", "large ")
    )
    if usual is None or largest is None:
        claim = (
            f"{label}: no update was recorded: attach(..., optimizer=optimizer) does, or lens.step() behind the "
            "optimizer's step."
        )
        return CHECK.silent(claim, label)
    leap = first(pick(rows, quantity="leap"))
    path = largest["value"] * largest["high"]
    still = largest["value"] < CHECK.limit("least")
    still |= largest["n"] >= CHECK.limit("steps") and path < CHECK.limit("path")
    several = pick(rows, quantity="matrices that move")["value"].iloc[0] >= CHECK.limit("matrices")
    burst = (largest["value"] > CHECK.limit("burst") and several) or leap is not None
    status = "warn" if still else held_against(usual["low"], usual["high"], most=CHECK.limit("most"))
    if status == "warn" and largest["n"] < CHECK.limit("steps"):
        status = "inconclusive"
    begins = None
    if late is not None and not still:
        begins = onset(late["x"], largest["low"] + (_SMOOTH - 1 if leap is None else 0))
        lasts = late["n"] >= CHECK.limit("lasting") and largest["n"] >= CHECK.limit("steps")
        if status == "pass" and begins is not None and lasts:
            status = held_against(late["low"], late["high"], most=CHECK.limit("most"))
            usual = late if status == "warn" else usual
    if burst:
        status, begins = "warn", begins if late is not None else onset(largest["x"], largest["low"])
    claim = (
        f"{label}: over {usual['group']} a step changes a matrix by {number(usual['value'])} of its size"
        f"{span(usual, without='')}, at most by {number(largest['value'])} (step {largest['x']:.0f})."
    )
    own: dict[str, Any] = {"remedies": ("Raise the learning rate.",) if still else ("Lower the learning rate.",)}
    if status == "warn":
        own |= {"explains": ("GL304", "GL306", "GL704") if still else _FOLLOWS, "born": "update"}
        if not still:
            far = pick(rows, quantity="matrix that moves too far")["group"]
            own |= {"onset": begins, "sites": tuple(far)}
    return CHECK.finding(status, claim, label, usual, **own)
