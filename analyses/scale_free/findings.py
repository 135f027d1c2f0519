"""GL410 which weights have no scale, GL411 what decay does to them, GL412 a gradient that rises as they shrink."""

import math
from functools import partial
from typing import Any

import pandas as pd

from analyses.limits import held_against
from analyses.making import Check
from analyses.tables import first, number, percent, pick, span
from gradlens.analysis import Finding, Status

_check = partial(Check, analysis="scale_free")

_FREE = _check(
    code="GL410",
    explanation=(
        "Weights without a scale. Parameters whose gradient is at right angles to them in every recorded step, so that "
        "the loss does not depend on their size: |Σ grad·w| over ‖grad‖‖w‖, root mean square over steps, at most "
        "{chance:g} of what chance would leave of so many entries (1/√n), and {cosine:g}. In front of BatchNorm, "
        "LayerNorm, RMSNorm, and of query and key norms, with no sum in between, weights are of this kind, in weight "
        "norm the direction. Where a bias takes part only both together are, and are counted apart. It says what is, "
        "and warns of nothing: no norm is meant to take the size out of every weight. gradlens inspect --probes tells "
        "in one pass in float64 also whose rows, units one by one, have no scale (BatchNorm, weight norm), and to "
        "whose rows one vector may be added (LayerNorm)."
    ),
    unit="parameters",
    expected="those with a norm right behind them",
    expected_from="Ba et al. 2016, Table 1",
    reference="Ba et al. 2016 (1607.06450), section 5.1",
)
_DECAY = _check(
    code="GL411",
    explanation=(
        "Decay of weights without a scale. It cannot make the model simpler: it sets how far a step turns the weight. "
        "Steps lengthen the weight, decay shortens it, and after 1/(2·rate·decay) steps the two balance, at a turn of "
        "√(2·rate·decay) a step with SGD, and so ‖grad‖/‖w‖ = √(2·decay/rate). Momentum β makes the turn "
        "√(2·rate·decay/(1 + β)) and the ratio √(2·decay·(1 − β)/rate); with AdamW the turn is "
        "√(2·rate·decay·(1 − β₁)/(1 + β₁)). All of that holds where gradients of different steps are not correlated. "
        "Value: the measured turn over it, median over weights, at the end of the steps whose rate is at least half of "
        "the largest. It warns where that is beyond {far:g} times, or one in {far:g}, though decay had {times:g} times "
        "as long as it needs; and, where there is no decay, where the weights come to {grows:g} times their size: the "
        "turn then shrinks by as much with AdamW, by its square with SGD, whatever the schedule says."
    ),
    unit="times the equilibrium",
    expected=1.0,
    expected_from="decay, rate and momentum",
    threshold="from 1/{far:g} to {far:g} once it had the time; without decay less than {grows:g} times the size",
    causes=(
        "A run that begins far from it, or a rate that has just changed (innocent).",
        "Gradients that agree from step to step, as on few data or with large batches: they turn the weight further "
        "than chance would (innocent).",
        "A decay that the optimizer does not apply to these weights, or applies twice, as in the loss too.",
        "Gradients that are clipped, or an optimizer inside another.",
    ),
    remedies=(
        "Choose rate · decay by the turn that a step should have, and by the steps it takes to come to it.",
        "Without decay, give these weights some, or hold their size by hand.",
    ),
    reference="Kosson et al. 2024 (2305.17212); van Laarhoven 2017 (1706.05350); Wan et al. 2020 (2006.08419)",
)
_RISE = _check(
    code="GL412",
    explanation=(
        "A gradient that rises because weights shrink. The gradient of a weight without a scale goes with one over its "
        "size. As the rate decays, decay shortens the weight and steps lengthen it less: the ratio ‖grad‖/‖w‖ goes "
        "towards √(2·decay/rate), and the gradient norm rises late in training though nothing is wrong. Value: their "
        "gradient at the end over its least behind the largest rate. It warns where that is {rise:g} or more, and the "
        "size alone makes {share:.0%} of it or more, of the logarithm."
    ),
    unit="times its least",
    expected="about 1",
    expected_from="weights that keep their size",
    threshold="below {rise:g}, or less than {share:.0%} of it by size alone",
    causes=(
        "The schedule of the rate, with decay: the loss may well go on falling (innocent).",
        "A decay that takes more away than steps put back.",
    ),
    remedies=(
        "Nothing, where the loss falls: do not clip by a limit that was chosen at the start.",
        "Let decay fall with the rate: the decay of a step times rate over largest rate (AdamC, SGDC).",
    ),
    reference="Defazio 2025 (2506.02285)",
    explains=("GL311",),
)
CHECKS = (_FREE, _DECAY, _RISE)


def judge(table: pd.DataFrame) -> list[Finding]:
    """Return the findings of every recording.

    Args:
        table: of ``scale_free.compute``.
    """
    if table.empty:
        return [_FREE.silent("No recording holds a gradient beside the size of its parameter.")]
    findings = []
    for label, rows in pick(table, panel="summary").groupby("label", sort=False):
        name = str(label)
        findings.append(_inventory(rows, name))
        if (rows["quantity"] == "optimizer").any():
            findings += [_decay(rows, name), _rise(rows, name)]
    return findings


def _inventory(rows: pd.DataFrame, label: str) -> Finding:
    """GL410: a fact."""
    of, joint = first(pick(rows, quantity="free")), first(pick(rows, quantity="free together"))
    assert of is not None
    assert joint is not None
    with_bias = (
        f", and {joint['value']:.0f} only together with what stands beside them in their module"
        if joint["value"]
        else ""
    )
    claim = (
        f"{label}: the loss does not feel the size of {of['value']:.0f} of {of['high']:.0f} parameters{with_bias} "
        f"({of['n']:.0f} recorded steps)."
    )
    return _FREE.finding("pass", claim, label, value=float(of["value"]))


def _decay(rows: pd.DataFrame, label: str) -> Finding:
    optimizer, grew = first(pick(rows, quantity="optimizer")), first(pick(rows, quantity="grew"))
    assert optimizer is not None
    assert grew is not None
    if not optimizer["group"]:
        claim = (
            f"{label}: what decays its weights is not known: attach(..., optimizer=optimizer) records how that is set."
        )
        return _DECAY.silent(claim, label)
    if not optimizer["value"]:
        status: Status = "warn" if grew["value"] >= _DECAY.limit("grows") else "pass"
        claim = (
            f"{label}: weights without a scale have no decay, and came to {number(grew['value'])} times their size in "
            f"{grew['n']:.0f} recorded steps."
        )
        own: dict[str, Any] = {"value": float(grew["value"]), "unit": "times their first size", "born": "update"}
        own |= {} if status == "warn" else {"causes": (), "remedies": ()}
        return _DECAY.finding(status, claim, label, **own)
    times, time = (first(pick(rows, quantity=q)) for q in ("turn over equilibrium", "times to equilibrium"))
    if not optimizer["high"]:
        claim = (
            f"{label}: no equilibrium is known of {optimizer['group']} with a decay of {number(optimizer['value'])}."
        )
        return _DECAY.silent(claim, label)
    if times is None or time is None:
        claim = (
            f"{label}: what a step changes of weights without a scale was not recorded: attach(..., "
            "optimizer=optimizer) does, or lens.step(lr=...) behind the optimizer's step."
        )
        return _DECAY.silent(claim, label)
    equilibrium = pick(rows, quantity="equilibrium")["value"].iloc[0]
    turn = (
        f"a step turns weights without a scale by {number(equilibrium * times['value'])}, {number(times['value'])}"
        f"{span(times, without='')} times their equilibrium under decay"
    )
    if time["value"] < _DECAY.limit("times"):
        claim = (
            f"{label}: {turn}; decay takes {time['x']:,.0f} steps to bring them there, and had {number(time['value'])} "
            "times as many."
        )
        return _DECAY.finding("inconclusive", claim, label, times, remedies=("Record more steps.",), causes=())
    far = _DECAY.limit("far")
    status = held_against(times["low"], times["high"], least=1 / far, most=far)
    if status == "inconclusive" and math.isnan(times["low"]) and 1 / far <= times["value"] <= far:
        status = "pass"
    own = {"born": "update"} if status == "warn" else {"causes": (), "remedies": ()}
    return _DECAY.finding(status, f"{label}: {turn}.", label, times, **own)


def _rise(rows: pd.DataFrame, label: str) -> Finding:
    rise, alone = (first(pick(rows, quantity=q)) for q in ("rise", "rise by size"))
    if rise is None or alone is None:
        return _RISE.silent(f"{label}: too few steps to see whether the gradient of such weights rises late.", label)
    risen, by_size = rise["value"], alone["value"]
    share = math.log(by_size) / math.log(risen) if risen > 1 and by_size > 0 else 0.0
    status = held_against(rise["low"], rise["high"], most=_RISE.limit("rise"))
    claim = (
        f"{label}: the gradient of weights without a scale ends at {number(risen)}{span(rise, without='')} times its "
        f"least (step {rise['x']:.0f}); their size alone makes {number(by_size)}"
    )
    if status == "pass" or share < _RISE.limit("share"):
        return _RISE.finding("pass", f"{claim}.", label, rise, causes=(), remedies=())
    told = "" if status == "inconclusive" else f", {percent(min(share, 1.0), 0)} of the rise"
    begin = pick(rows, quantity="begin")["x"].iloc[0]
    onset = int(rise["x"]) if rise["x"] > begin else None
    return _RISE.finding(status, f"{claim}{told}.", label, rise, onset=onset, born="update")
