"""What ``parameters`` says: GL402 who holds the gradient, GL403 clipping, GL404 updates; GL401 is in ``reached``."""

from collections.abc import Iterator
from functools import partial

import pandas as pd

from analyses.limits import held_against
from analyses.making import Check, codes
from analyses.parameters import reached
from analyses.tables import first, number, percent, pick, span
from gradlens.analysis import Finding, Status

_check = partial(Check, analysis="parameters")

_HOLDER = _check(
    code="GL402",
    explanation=(
        "One parameter that holds the gradient. The largest share that one parameter has in the squared norm of the "
        "whole gradient, mean over the end of training. Where it is nearly all, the gradient norm, clipping by it, "
        "and with plain SGD the largest learning rate that is stable are set by this parameter alone."
    ),
    unit="of the squared gradient norm",
    expected="below {most:g}",
    expected_from="a gradient that is spread over the model",
    threshold="at most {most:g}",
    causes=(
        "A parameter that is alone in its kind, such as a learned temperature, with an optimizer that scales each by "
        "its own gradient, as Adam (innocent).",
        "Inputs, or a layer before it, of another scale than the rest.",
        "A loss with a sum where a mean was meant, or a factor that is far from one.",
    ),
    remedies=("Normalize what goes into that module.", "Give it a learning rate of its own, or clip it by itself."),
)
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
)
_MOVED = _check(
    code="GL404",
    explanation=(
        "Update over weight. The L2 norm of a step's change of a weight matrix over that of the matrix, median over "
        "matrices, geometric mean over the recorded steps. The rule of thumb is 0.001. A tenth turns over what was "
        "learned in ten steps, and one step of ten times their size wipes out what there was; where not even the "
        "largest of all steps moves a millionth, the run stands still. Gains and biases are left out: they often begin "
        "at 0. Decay of the learning rate and convergence make late updates small, so that only the largest step is "
        "asked whether it is too small."
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
CODES = codes(reached.CHECK, _HOLDER, _CLIPPED, _MOVED)


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
        findings.append(reached.reached(pick(rows, quantity="reached"), name, told))
        findings += [*_held(rows, name), _clipping(rows, name), _moved(rows, name)]
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
    yield _HOLDER.finding(
        status,
        f"{label}: over {most['stack']} the gradient is largest in {most['group']}, with {percent(most['value'])}"
        f"{span(most, percent, '')} of its squared norm.",
        label,
        most,
        sites=(str(most["group"]),) if status != "pass" else (),
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
    return _CLIPPED.finding(
        status,
        f"{label}: the gradient was clipped in {percent(share['value'])} of {share['n']:.0f} steps, to "
        f"{number(left['value'])} of its norm (median over all).",
        label,
        left,
        details={"share of steps": float(share["value"])},
    )


def _moved(rows: pd.DataFrame, label: str) -> Finding:
    """GL404: the mean of all steps is too large, or the largest step too small."""
    usual, largest = (first(pick(rows, quantity=f"{q}update over weight")) for q in ("", "largest "))
    if usual is None or largest is None:
        claim = f'{label}: no update was recorded: attach(..., watch=("norms", "blocks", "params", "updates")) does.'
        return _MOVED.silent(claim, label)
    still, burst = largest["value"] < _MOVED.limit("least"), largest["value"] > _MOVED.limit("burst")
    status = "warn" if still else held_against(usual["low"], usual["high"], most=_MOVED.limit("most"))
    if status == "warn" and largest["n"] < _MOVED.limit("steps"):
        status = "inconclusive"
    claim = (
        f"{label}: over {usual['group']} a step changes a matrix by {number(usual['value'])} of its size"
        f"{span(usual, without='')}, at most by {number(largest['value'])} (step {largest['x']:.0f})."
    )
    remedies = ("Raise the learning rate.",) if still else ("Lower the learning rate.",)
    return _MOVED.finding("warn" if burst else status, claim, label, usual, remedies=remedies)
