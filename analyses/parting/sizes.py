"""GL324: gradient norm and re-scaling of the second run beside the first's, held against a margin."""

import pandas as pd

from analyses.limits import held_against
from analyses.making import Check
from analyses.tables import first, listed, number, percent, pick, span
from gradlens.analysis import SEVERITY, Finding

CHECK = Check(
    code="GL324",
    analysis="parting",
    explanation=(
        "Gradient norm and re-scaling of two runs. The norm of the second run's whole gradient over that of the "
        "first, and the same of the share of the gradient that the derivative of σ removes, mean over norms; geometric "
        "mean over the end of the steps that both have, paired by step, with an interval from the noise of the steps. "
        "It is judged with --margin alone, and warns where either ratio leaves 1 by more than that, up or down, the "
        "interval included: with --fail-on warn it ends a check, with --fail-on fail the loss alone does (GL322)."
    ),
    unit="times the first's",
    expected=1.0,
    expected_from="the first run",
    causes=(
        "Another seed, batch size or loss: gradients are of another size (innocent).",
        "An initialization, a norm or a scale that the change touched.",
    ),
    remedies=("Look at where they part (GL321), and at the ratios of single blocks in GL322.",),
)
#: Quantity to what it is called.
_NAMES = {"gradient ratio": "the gradient norm", "rescaling ratio": "the share that norms re-scale away"}


def sized(rows: pd.DataFrame, label: str) -> list[Finding]:
    """Return GL324 where a margin was asked for, else nothing.

    Args:
        rows: of the two runs.
        label: the second's.
    """
    margin, before = first(pick(rows, quantity="margin")), pick(rows, quantity="pair").iloc[0]["stack"]
    if margin is None:
        return []
    ratios = {quantity: row for quantity in _NAMES if (row := first(pick(rows, quantity=quantity))) is not None}
    if not ratios:
        claim = f"{label} and {before} have no gradient norm of four steps in common, or are of other models."
        return [CHECK.silent(claim, label)]
    most = 1 + margin["value"]
    statuses = {
        quantity: held_against(row["low"], row["high"], least=1 / most, most=most) for quantity, row in ratios.items()
    }
    worst = max(statuses, key=lambda quantity: SEVERITY.index(statuses[quantity]))
    told = listed([f"{_NAMES[q]} is {number(row['value'])}{span(row, without='')}" for q, row in ratios.items()])
    word = {"pass": "within", "warn": "not within"}.get(statuses[worst], "perhaps not within")
    claim = f"{label}: times that of {before}, {told}: {word} {percent(margin['value'])}."
    threshold = f"{number(1 / most)} to {number(most)} times"
    return [CHECK.finding(statuses[worst], claim, label, ratios[worst], threshold=threshold)]
