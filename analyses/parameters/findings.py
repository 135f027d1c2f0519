"""What ``parameters`` says: GL402 who holds the gradient, GL403 clipping; each other code has a file of its own."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pandas as pd

from analyses.limits import held_against
from analyses.making import Check, codes
from analyses.parameters import gain, idle, moved, rate, reached, still
from analyses.tables import first, number, percent, pick, span
from gradlens.analysis import Finding, Status

_check = partial(Check, analysis="parameters")

_HOLDER = _check(
    code="GL402",
    explanation=(
        "One parameter that holds the gradient. The largest share that one parameter has in the squared norm of the "
        "whole gradient, mean over the end of training. Where it is nearly all, the gradient norm, clipping by it, "
        "and with plain SGD the largest learning rate that is stable are set by this parameter alone. So does a "
        "single number, such as a learned scale, that has {number:g} of it or more, but where each block has its like."
    ),
    unit="of the squared gradient norm",
    expected="below {most:g}",
    expected_from="a gradient that is spread over the model",
    threshold="at most {most:g}; at most {number:g} of a single number",
    causes=(
        "A parameter that is alone in its kind, such as a learned temperature, with an optimizer that scales each by "
        "its own gradient, as Adam (innocent).",
        "Inputs, or a layer before it, of another scale than the rest.",
        "A learned scale that a large factor stands beside: its gradient has that factor too.",
        "A loss with a sum where a mean was meant, or a factor that is far from one.",
    ),
    remedies=("Normalize what goes into that module.", "Give it a learning rate of its own, or clip it by itself."),
    explains=("GL305",),
)
_OF_A_NUMBER = ("Take away the factor that stands beside it, or give it a learning rate of its own.",)
_CLIPPED = _check(
    code="GL403",
    explanation=(
        "Clipping. In how many steps the gradient was clipped, and the median of the gradient after over before. "
        "Clipping is for odd steps. Where the usual gradient is far above the limit, every step is of the same length: "
        "the learning rate means something else with SGD, and of the batches' gradients only the directions are left. "
        "Where always half or more is taken, it asks for a look as well."
    ),
    unit="after over before",
    expected=1.0,
    expected_from="steps that are not clipped",
    threshold="from {far:g} up; from {half:g} where {always:g} of the steps are clipped",
    causes=(
        "A limit that is meant to normalize each step, with a learning rate to match (innocent).",
        "A run's first steps, whose gradients are the largest, in a short recording (innocent).",
        "A limit from another model: the norm grows with the number of weights and the loss' scale.",
        "Gradients that were clipped before the loss scale was divided out.",
    ),
    remedies=("Set the limit at some times the usual gradient norm, which the table steps holds.",),
    reference="Pascanu et al. 2013 (1211.5063)",
    explains=("GL304", "GL306", "GL404", "GL704"),
)
CODES = codes(reached.CHECK, _HOLDER, _CLIPPED, moved.CHECK, still.CHECK, idle.CHECK, gain.CHECK, rate.CHECK)


def judge(table: pd.DataFrame) -> list[Finding]:
    """Return the findings of every run.

    Args:
        table: of ``parameters.compute``.
    """
    if table.empty:
        return [reached.CHECK.silent("No recording of training holds a parameter.")]
    findings = []
    for label, rows in pick(table, panel="summary").groupby("label", sort=False):
        name = str(label)
        told = bool(pick(rows, quantity="frozen is told")["value"].gt(0).any())
        findings.append(reached.reached(rows, name, told))
        findings += [*_held(rows, name), _clipping(rows, name)]
        findings += [check.judged(rows, name) for check in (moved, still, idle, gain, rate)]
    return findings


def _held(rows: pd.DataFrame, label: str) -> Iterator[Finding]:
    """GL402: the parameter with the largest share at the end."""
    most = first(pick(rows, quantity="largest share"))
    if most is None:
        return
    if most["n"] < _HOLDER.limit("tensors"):
        claim = f"{label}: of {most['n']:.0f} parameters with a gradient one may well hold nearly all."
        yield _HOLDER.silent(claim, label)
        return
    status = held_against(most["low"], most["high"], most=_HOLDER.limit("most"))
    single, what = first(pick(rows, quantity="share of a number")), "is largest in"
    own: dict[str, Any] = {}
    if single is not None and held_against(single["low"], single["high"], most=_HOLDER.limit("number")) == "warn":
        most, status, what = single, "warn", "has a single number that is too large a part of it:"
        own = {"remedies": _OF_A_NUMBER}
    yield _HOLDER.finding(
        status,
        f"{label}: over {most['stack']} the gradient {what} {most['group']}, with {percent(most['value'])}"
        f"{span(most, percent, '')} of its squared norm.",
        label,
        most,
        sites=(str(most["group"]),) if status != "pass" else (),
        **own,
    )


def _clipping(rows: pd.DataFrame, label: str) -> Finding:
    """GL403: a fact about the run, so there is no interval."""
    share, left = (first(pick(rows, quantity=q)) for q in ("clipped", "left by clipping"))
    if share is None or left is None:
        claim = f"{label}: whether the gradient was clipped is not known: attach(..., optimizer=optimizer) records it."
        return _CLIPPED.silent(claim, label)
    if share["value"] == 0:
        return _CLIPPED.silent(f"{label}: the gradient was clipped in none of {share['n']:.0f} steps.", label)
    half, always = _CLIPPED.limit("half"), _CLIPPED.limit("always")
    hard = left["value"] < _CLIPPED.limit("far") or (share["value"] >= always and left["value"] < half)
    status: Status = "pass" if not hard else "warn" if left["n"] >= _CLIPPED.limit("steps") else "inconclusive"
    late = first(pick(rows, quantity="left by clipping in the end"))
    since, onset = "", None
    if late is not None and late["n"] >= _CLIPPED.limit("steps") and late["value"] < _CLIPPED.limit("far"):
        status, onset = "warn", int(late["x"])
        since = f"; from step {onset} on always, to {number(late['value'])}"
    return _CLIPPED.finding(
        status,
        f"{label}: the gradient was clipped in {percent(share['value'])} of {share['n']:.0f} steps, to "
        f"{number(left['value'])} of its norm (median over all){since}.",
        label,
        left,
        onset=onset,
        details={"share of steps": float(share["value"])},
    )
