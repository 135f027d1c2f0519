"""What ``objective`` says: GL701 weights of rows, GL702 softmax twice, GL703 the sign; the others are in own files.

GL704 is in ``labels``, GL705 in ``inputs``, GL706 in ``zeroed``, GL707 in ``mixed``.
"""

from collections.abc import Iterator
from functools import partial

import pandas as pd

from analyses.making import OVERSHOT, SYMPTOMS, Check, codes
from analyses.objective import inputs, labels, mixed, zeroed
from analyses.objective.numbers import ALL
from analyses.tables import first, number, percent, pick
from gradlens.analysis import Finding, Status
from gradlens.analysis.finding import place

_check = partial(Check, analysis="objective", explains=(*SYMPTOMS, *OVERSHOT))

_WEIGHT = _check(
    code="GL701",
    explanation=(
        "The loss is a mean over its rows. What a row of the output (a sample, a token, a pixel) weighs in the loss, "
        "read off the gradient there: that of a cross-entropy is w (softmax(z) − e_y). Times the rows that have a "
        "gradient w is 1 where the loss is their mean. Where w itself is 1 the loss is a sum over all rows, and where "
        "it is 1 over the samples, a sum over the rows of each sample: then the gradient, the best rate and what "
        "clipping leaves all go with the size or length of a batch. So do they where each of several micro-batches is "
        "a mean, and a step takes their sum. That asks for a look from {factor:g} rows, or micro-batches, on; any "
        "other factor is told. Rows of a gradient of 0 (ignored labels, padding) do not count. Where rows differ in "
        "weight (weights of classes, smoothed labels), or no cross-entropy fits, nothing is said."
    ),
    unit="times a mean's weight",
    expected=1.0,
    expected_from="a loss that is the mean over its rows",
    threshold="a sum over less than {factor:g} rows",
    causes=(
        "A sum that is divided out later, of the gradients, or made up for by the rate (innocent).",
        "reduction='sum', or a .sum() over samples or tokens where a mean was meant.",
        "A mean over the samples of sums over their tokens (innocent where lengths are alike and the rate is made for "
        "it).",
    ),
    remedies=("Take the mean over the rows that count, or divide the rate by their number.",),
)
_TWICE = _check(
    code="GL702",
    explanation=(
        "Softmax is taken once. A cross-entropy of logits takes softmax itself. Where its rows of logits are already "
        "probabilities (none below 0, their sum 1), or the gradient at the logits is that of a cross-entropy of their "
        "softmax, it is taken twice: of C classes no probability then exceeds e / (e + C − 1), the loss cannot come "
        "near 0, and the more sure a row is the less it learns. That is a fact and fails; seen in fewer than 4 "
        "steps, or in less than nine tenths of them, it asks for a look. Log-probabilities do no harm: their softmax "
        "is what they came from."
    ),
    unit="of the steps",
    expected=0.0,
    expected_from="a cross-entropy that is given logits",
    threshold="none",
    causes=(
        "A softmax at the end of the model, or before the loss, with CrossEntropyLoss or F.cross_entropy.",
        "NLLLoss of probabilities, not of their logarithms, where many classes make the two gradients alike.",
        "Probabilities taken for logits on purpose, to keep a model unsure (innocent).",
    ),
    remedies=("Give CrossEntropyLoss the logits; take softmax only to predict.",),
)
_SIGN = _check(
    code="GL703",
    explanation=(
        "The loss is minimized. The gradient at the output names each row's label and says whether a step down makes "
        "it likelier. Where it makes every label less likely, all of one weight, the loss is climbed: in all recorded "
        "steps, with a loss that ended higher, that fails; in fewer, or with a loss that did not rise, it asks for a "
        "look."
    ),
    unit="of the steps",
    expected=0.0,
    expected_from="labels that the steps make likelier",
    threshold="none",
    causes=(
        "A model that is to unlearn, or adversarial: unlikelihood, gradient reversal, one side of a GAN (innocent).",
        "A log-likelihood with an optimizer that maximizes (innocent).",
        "A minus sign in the loss, or a log-likelihood that is minimized.",
    ),
    remedies=("Turn the sign of the loss.",),
)
CODES = codes(_WEIGHT, _TWICE, _SIGN, labels.CHECK, inputs.CHECK, zeroed.CHECK, mixed.CHECK)
_UNREAD = "it is read where the uncompiled model returns one tensor of logits, or something with .logits"
_HOW = (
    "Record with this gradlens a run of the model before torch.compile, whose forward returns one floating tensor of "
    "two dimensions or more, or something with .logits."
)


def judge(table: pd.DataFrame) -> list[Finding]:
    """Return the findings of every run.

    Args:
        table: of ``objective.compute``.
    """
    if table.empty:
        return [_WEIGHT.silent("No recording of training is there.")]
    found = []
    for label, rows in table.groupby("label", sort=False):
        name = str(label)
        recorded = pick(rows, quantity="recorded").iloc[0]
        if not recorded["value"]:
            why = "the model ran compiled" if recorded["group"] else _UNREAD
            claim = f"{name}: nothing is known of the gradient at the output: {why}."
            found.append(_WEIGHT.silent(claim, name, remedies=(_HOW,)))
        for site, own in pick(rows[rows["quantity"] != "recorded"], label=name).groupby("stack", sort=False):
            found += [finding for one in _CHECKS for finding in one(own, name, str(site))]
    return found


def _of(site: str) -> str:
    return f" of {place(site)}" if site else ""


def _weighed(rows: pd.DataFrame, label: str, site: str) -> Iterator[Finding]:
    """GL701: a sum is a weight of 1, whatever the number of rows."""
    if rows["quantity"].str.contains("zeroed").all():
        return  # of the run, no module's
    weight, one, in_sample, of_sample = (
        first(pick(rows, quantity=q))
        for q in ("row weight", "weight of one row", "weight in a sample", "rows in a sample")
    )
    if weight is None or one is None or in_sample is None or of_sample is None:
        read = bool(pick(rows, quantity="passes")["value"].sum())
        why = "no cross-entropy of rows that weigh the same has the gradient at the output{}"
        why = (why if read else f"nothing is known of the gradient at the output{{}}: {_UNREAD}").format(_of(site))
        yield _WEIGHT.silent(f"{label}: {why}.", label, remedies=() if read else (_HOW,))
        return
    value, factor = float(weight["value"]), _WEIGHT.limit("factor")
    status: Status = "pass"
    passes = float(pick(rows, quantity="passes a step")["value"].iloc[0])
    if ALL <= value <= 1 / ALL or _near_one(weight):
        said = "is the mean over its rows"
        if passes > 1:
            said += f" in each of {passes:.0f} micro-batches, and a step takes their sum"
            value, status = passes, "warn"
    elif ALL <= one["value"] <= 1 / ALL and value > 1:
        said, status = f"is a sum over its rows, {number(value)} times their mean", "warn"
    elif ALL <= in_sample["value"] <= 1 / ALL and of_sample["value"] > 1 and value > 1:
        said, status = f"is a sum over the rows of each sample, {number(value)} times the mean over all", "warn"
    else:
        said = f"is {number(value)} times the mean over its rows{_guess(value)}"
    if value < factor:
        status = "pass"
    asked = {} if status == "warn" else {"causes": (), "remedies": ()}
    yield _WEIGHT.finding(
        status, f"{label}: the loss at the output{_of(site)} {said}.", label, weight, value=value, **asked
    )


def _near_one(weight: pd.Series) -> bool:
    """Whether steps scatter around 1: where rows are ignored their number is an estimate."""
    return bool(weight["low"] <= 1 <= weight["high"] and 0.5 < weight["value"] < 2)


def _guess(value: float) -> str:
    if value < 1 and abs(1 / value - round(1 / value)) < 0.02 / value:
        return f", as where {round(1 / value)} micro-batches make up a step, or losses are weighted"
    return ", as where a loss is scaled by hand" if value > 1 else ", as where losses are weighted"


def _softmax(rows: pd.DataFrame, label: str, site: str) -> Iterator[Finding]:
    """GL702."""
    twice = first(pick(rows, quantity="softmax twice"))
    if twice is None:
        return
    if not twice["value"]:
        claim = f"{label}: softmax is taken once of the output{_of(site)}."
        yield _TWICE.finding("pass", claim, label, twice, causes=(), remedies=())
        return
    said = {
        "output": "the rows of the output{} are probabilities already, and cross-entropy takes their softmax once more",
        "loss": "the gradient at the output{} is that of a cross-entropy of its softmax",
    }[str(twice["group"])].format(_of(site))
    sure = twice["value"] >= 0.9 and twice["n"] >= _TWICE.limit("steps")
    onset = None if twice["value"] >= 0.9 else int(twice["x"])
    claim = f"{label}: softmax is taken twice: {said}, in {percent(twice['value'], 0)} of {twice['n']:.0f} steps."
    yield _TWICE.finding("fail" if sure else "warn", claim, label, twice, born="forward", onset=onset)


def _climbed(rows: pd.DataFrame, label: str, site: str) -> Iterator[Finding]:
    """GL703."""
    up, change = (first(pick(rows, quantity=q)) for q in ("maximized", "change of the loss"))
    if up is None:
        return
    if not up["value"]:
        claim = f"{label}: each step makes the labels of the output{_of(site)} likelier."
        yield _SIGN.finding("pass", claim, label, up, causes=(), remedies=())
        return
    rose = change is not None and change["value"] > 0
    status: Status = "fail" if up["value"] == 1 and rose else "warn"
    moved = "" if change is None else f"; their loss {'rose' if rose else 'fell'} by {number(abs(change['value']))}"
    claim = (
        f"{label}: the gradient makes the very labels of the output{_of(site)} less likely in "
        f"{percent(up['value'], 0)} of {up['n']:.0f} steps{moved}."
    )
    onset = None if up["value"] == 1 else int(up["x"])
    yield _SIGN.finding(status, claim, label, up, onset=onset, born="backward")


_CHECKS = (_weighed, _softmax, _climbed, labels.carry, inputs.scaled, zeroed.zeroed, mixed.mixed)
