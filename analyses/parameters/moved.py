"""GL404: what a step changes of a matrix, over its size."""

import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analyses.intervals import block_bootstrap_interval
from analyses.limits import held_against, limit
from analyses.making import OVERSHOT, SYMPTOMS, Check
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
        "learned in ten steps, and one step of {burst:g} times their size wipes out what there was. So do many steps "
        "of one direction: where the median matrix comes to {grows:g} times its size within {within:g} steps, or "
        "falls to {shrinks:g} of it, little is left of what was there; but those that a norm behind them makes "
        "scale-free (Σ g·w is 0) grow by themselves, and without harm: each step is at a right angle to them. Where "
        "not even the largest of all steps moves {least:g}, or all together {path:g}, the run stands still. Gains and "
        "biases are left out: they often begin at 0. Without updates among what is watched it is that of at most 1,024 "
        "entries of each matrix. What is too "
        "large only from a step on, and a step as large as the weights after many small ones, is told with the step. "
        "Decay of the learning rate and convergence make late updates small, so that only the largest step is asked "
        "whether it is too small."
    ),
    unit="of the weight a step",
    expected="about 0.001",
    expected_from="the usual rule of thumb",
    threshold="at most {most:g} on the mean; from {least:g} to {burst:g} in the largest step; a size of {shrinks:g} to "
    "{grows:g} times that {within:g} steps before",
    causes=(
        "Weights that are small beside what they will be, in the first steps of a short recording (innocent).",
        "A learning rate of another order than the optimizer needs: SGD's is no rate for Adam.",
        "A momentum near one, which multiplies the rate by 1 / (1 − momentum).",
        "Weight decay that takes more away than the gradient puts back.",
        "A warm-up that has only begun (innocent).",
        "Parameters that the optimizer does not hold, or gradients that are all but 0 (GL401, GL403).",
    ),
    reference="Karpathy, CS231n, Neural networks 3: ratio of weights and updates",
)
#: What a rate that is far too large makes of a run: its loss, its gradients, and what clips them.
_FOLLOWS = (*SYMPTOMS, *OVERSHOT)
#: Steps that are smoothed before it is asked from which on they are too large; matrices that are named.
_SMOOTH, _NAMED = 5, 5
#: Share of the way to its largest, or smallest, size at which a matrix has left the size it had.
_DEPARTED = 0.25


def numbers(params: pd.DataFrame, free: Collection[str]) -> Iterator[dict[str, Any]]:
    """Yield update over weight of the matrices: the geometric mean over steps of their median, and its largest.

    Where it is too large in the end, the mean from the step on from which it is, and the matrices.

    Args:
        params: rows of a run with ``places``.
        free: names of those that are scale-free.
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
    yield from _sizes(table, free)
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


def _sizes(table: pd.DataFrame, free: Collection[str]) -> Iterator[dict[str, Any]]:
    """Yield by how much the median matrix grows, and shrinks, within so many steps, and from which step on.

    Matrices that begin at 0 have no size that they could leave; those that grow by themselves are not counted.
    """
    sizes, ratios = (
        table.pivot_table(index="step", columns="name", values=values, sort=False).sort_index()
        for values in ("weight_norm", "ratio")
    )
    steps = sizes.index.to_numpy()
    before = np.searchsorted(steps, steps - limit("GL404", "within"))
    begun = sizes.loc[:, sizes.iloc[0].notna()]
    logs = np.log(begun.to_numpy())
    change = logs - logs[before]
    itself = _by_themselves(begun, ratios[begun.columns], before) & begun.columns.isin(list(free))
    for quantity, sign, own in (("grows", 1, np.where(itself, np.nan, change)), ("shrinks", -1, change)):
        counted = np.isfinite(own)
        many = counted.sum(axis=1) >= (limit("GL404", "matrices") if itself.any() else 1)
        median = np.nanmedian(np.where(many[:, None], own, 0.0), axis=1)
        far = int((sign * median).argmax())
        # It begins where a quarter of the first way that is too far is gone.
        place = int((sign * median >= abs(math.log(limit("GL404", quantity)))).argmax())
        way = logs[before[place] : place + 1] - logs[before[place]]
        way = np.nanmedian(way[:, counted[place]] if counted[place].any() else way, axis=1)
        start = before[place] + int((np.abs(way) >= _DEPARTED * np.abs(way[-1])).argmax())
        yield {"quantity": quantity, "value": math.exp(median[far]), "x": steps[start],
               "low": steps[before[far]], "high": steps[far], "n": int(counted[far].sum())}  # fmt: skip


def _by_themselves(
    sizes: pd.DataFrame, ratios: pd.DataFrame, before: NDArray[np.signedinteger[Any]]
) -> NDArray[np.bool_]:
    """Return whether steps at right angles to a matrix make it as large as it has become.

    Each adds its square to that of the matrix, and with a momentum β up to (1 + β) / (1 − β) times that. What
    grows more goes in one direction.

    Args:
        sizes: norms [steps, matrices].
        ratios: of what a step changes [steps, matrices].
        before: the place of the step that each is held against.
    """
    gaps = np.diff(sizes.index.to_numpy(), append=sizes.index[-1])
    squares, taken = sizes.to_numpy() ** 2, (ratios * sizes).fillna(0.0).to_numpy() ** 2 * gaps[:, None]
    gone = np.vstack([np.zeros(taken.shape[1]), taken[:-1].cumsum(axis=0)])
    explained: NDArray[np.bool_] = squares - squares[before] <= limit("GL404", "turns") * (gone - gone[before])
    return explained


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
    size = _left(rows) if several and not still else None
    if size is not None:
        if status != "warn":
            begins = onset(size["x"], largest["low"] + CHECK.limit("memory"))
        status = "warn"
    off = "small" if still else "large"
    lead = {"warn": f"steps are too {off}: ", "inconclusive": f"steps may be too {off}: "}.get(status, "")
    if size is not None and held_against(usual["low"], usual["high"], most=CHECK.limit("most")) == "pass" and not burst:
        lead = "matrices leave the size that they had: "
    claim = (
        f"{label}: {lead}over {usual['group']} a step changes a matrix by {number(usual['value'])} of its size"
        f"{span(usual, without='')}, at most by {number(largest['value'])} (step {largest['x']:.0f})"
        f"{'' if size is None else _told(size)}."
    )
    remedy = "Raise the learning rate." if still else "Lower the learning rate."
    if size is not None and size["value"] < 1:
        remedy = "Lower the weight decay, or the learning rate that it is multiplied by."
    own: dict[str, Any] = {"remedies": (remedy,)}
    if status == "warn":
        own |= {"explains": ("GL304", "GL306", "GL704") if still else _FOLLOWS, "born": "update"}
        if not still:
            far = pick(rows, quantity="matrix that moves too far")["group"]
            own |= {"onset": begins, "sites": tuple(far)}
    return CHECK.finding(status, claim, label, usual, **own)


def _left(rows: pd.DataFrame) -> "pd.Series[Any] | None":
    """Return the row of the size that the matrices have left, if they have."""
    grows, shrinks = (first(pick(rows, quantity=q)) for q in ("grows", "shrinks"))
    if shrinks is not None and shrinks["value"] <= CHECK.limit("shrinks"):
        return shrinks
    return grows if grows is not None and grows["value"] >= CHECK.limit("grows") else None


def _told(size: "pd.Series[Any]") -> str:
    return (
        f", and the median of {size['n']:.0f} matrices {'grows' if size['value'] > 1 else 'shrinks'} to "
        f"{number(size['value'])} times its size from step {size['low']:.0f} to {size['high']:.0f}"
    )
