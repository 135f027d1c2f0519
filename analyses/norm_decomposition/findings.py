"""What ``norm_decomposition`` says: GL200 the shares add up, GL201, GL202 at init, GL203 in training, GL204 eps."""

from collections.abc import Iterator
from functools import partial

import pandas as pd

from analyses.limits import held_against
from analyses.making import Check, codes
from analyses.tables import first, number, percent, pick, span
from gradlens.analysis import Finding
from gradlens.analysis.finding import place

_check = partial(Check, analysis="norm_decomposition", reference="Xu et al. 2019 (1911.07013), Theorem 1")
_against_random = partial(
    _check,
    unit="times random",
    expected=1.0,
    threshold="at most {most:g} times; less is no fault",
    remedies=("Look at the norms that show most of it in the figure's upper row.",),
)
_RANDOM = "a share of 1/H for g without preferred direction"

_ADDS_UP = _check(
    code="GL200",
    explanation=(
        "Shares that add up. The shares of re-centering, re-scaling and kept are parts of one energy, Σ‖g‖²: they must "
        "sum to one and lie between 0 and 1. Where they do not, the measurement is wrong, or a sum over- or "
        "underflowed, and no other finding about the norms is to be believed."
    ),
    expected=0.0,
    expected_from="the orthogonal decomposition of g (exact)",
    threshold="sum within {sum:g} of one; shares within {range:g} of 0 to 1",
    causes=("A float16 sum that over- or underflowed.", "A norm that normalizes otherwise than it was taken for."),
    remedies=("Register the norm with gradlens.register_norm; measure in float32.",),
)
_RECENTERING = _against_random(
    code="GL201",
    explanation=(
        "Re-centering at initialization. The share of the gradient that the derivative of the mean removes, over the "
        "1/H that a gradient without preferred direction loses along any one of its H directions. Far above one, the "
        "gradient has a common offset over features; below one is usual behind another norm, which has already removed "
        "the mean."
    ),
    expected_from=_RANDOM,
    causes=(
        "Post-LN: the gradient comes through the next norm, which has already taken its mean out (expected).",
        "Above one: features with a common offset, as behind a ReLU or a bias shared by all features.",
    ),
)
_RESCALING = _against_random(
    code="GL202",
    explanation=(
        "Re-scaling at initialization. The share of the gradient that the derivative of σ removes, over 1/H. With ρ "
        "the correlation of g with the normalized value, var(dL/dx) = (1 − ρ²)·var(g)/σ² holds exactly, and E[ρ²] = "
        "1/(H − 1) of the centered energy where the two are independent. Re-scaling is therefore invisible in a fresh "
        "network and matters once training aligns g with the normalized value."
    ),
    expected_from=f"{_RANDOM}; E[ρ²] = 1/(H − 1) of what is left after re-centering",
    causes=(
        "Post-LN: a norm followed by a ReLU FFN without biases and another norm re-scales nothing at all, since the "
        "sub-layer is homogeneous (Euler's theorem; expected).",
        "Above one: the loss depends on the scale of the normalized value, as with tied output embeddings.",
    ),
)
_KEPT = _check(
    code="GL203",
    explanation=(
        "What the norms let through at the end of training. The share of the gradient's energy that is left after "
        "re-centering and re-scaling, mean over norms. A share that falls while re-scaling grows says that gradients "
        "align with the normalized values: that part would only change their scale, which the norm divides out."
    ),
    unit="of ‖g‖²",
    expected="from {least:g} up",
    expected_from="a norm that removes less than it lets through",
    threshold="at least {least:g}",
    causes=(
        "Training aligns gradients with the normalized values: their scale is what the loss would change.",
        "A network that has not begun to learn keeps its random shares.",
    ),
    remedies=("Compare with DetachNorm, which keeps everything, to see what the removed part was worth.",),
)
_EPS = _check(
    code="GL204",
    explanation=(
        "The share of eps in σ². eps · (mean 1/σ)², σ² with eps in it, of the norm where it is largest. Above one half "
        "eps decides how the norm scales its output: inputs half as large leave it half as large, so that it no longer "
        "normalizes, and passes a gradient back that says nothing of σ."
    ),
    unit="of σ²",
    expected="near 0",
    expected_from="an eps that only keeps from dividing by 0",
    threshold="at most {most:g}",
    causes=(
        "Inputs that are 0 by design: a branch that begins at 0, or padding (innocent).",
        "Inputs that are small: an embedding or a branch with small initial weights.",
        "An eps of another library or another precision.",
    ),
    remedies=("Choose a smaller eps.", "Scale up what goes into the norms named."),
    reference="",
)
CODES = codes(_ADDS_UP, _RECENTERING, _RESCALING, _KEPT, _EPS)
#: Quantity to its word and its check.
_REMOVED = {"recentering": ("re-centering", _RECENTERING), "rescaling": ("re-scaling", _RESCALING)}


def judge(table: pd.DataFrame) -> list[Finding]:
    """Return the findings of every recording that holds norms.

    Args:
        table: of ``norm_decomposition.compute``.
    """
    summary = pick(table, panel="summary")
    if summary.empty:
        return [_ADDS_UP.silent("No recording holds a norm with a finite gradient.")]
    findings = [*_adds_up(summary)]
    for label, rows in summary.groupby("label", sort=False):
        findings += [*_at_init(rows, str(label)), *_in_training(rows, str(label)), *_dampened(rows, str(label))]
    return findings


def _adds_up(summary: pd.DataFrame) -> Iterator[Finding]:
    """GL200: a fact about every row of every recording, so there is no interval."""
    off, out = pick(summary, quantity="shares: off one"), pick(summary, quantity="shares: out of range")
    if off.empty:
        return
    most, room = _ADDS_UP.limit("sum"), _ADDS_UP.limit("range")
    wrong = pd.concat([off[off["value"] > most], out[out["value"] > room]])
    labels = wrong["label"].unique()
    verdict = f"do not add up in {', '.join(labels)}" if len(wrong) else "sum to one and lie between 0 and 1"
    rows = f"all {off['n'].sum():.0f} rows of {len(off)} recording{'s' if len(off) > 1 else ''}"
    worst = f"at worst off one by {off['value'].max():.1g}, out of range by {out['value'].max():.1g}"
    yield _ADDS_UP.finding(
        "fail" if len(wrong) else "pass",
        f"Re-centering, re-scaling and kept {verdict} (checked in {rows}; {worst}).",
        str(labels[0]) if len(labels) == 1 else "",
        value=float(off["value"].max()),
        sites=tuple(wrong["group"].unique()),
        steps=tuple(int(step) for step in wrong["x"].unique()),
    )


def _at_init(rows: pd.DataFrame, label: str) -> Iterator[Finding]:
    """GL201, GL202: the removed shares against those of a random gradient."""
    for quantity, (word, check) in _REMOVED.items():
        times = first(pick(rows, quantity=f"{quantity} over random"))
        if times is None:
            continue
        if times["value"] <= 0:
            claim = f"{label}: {word} removes nothing: that derivative does not flow in these norms."
            yield check.silent(claim, label, value=0.0)
            continue
        yield check.finding(
            held_against(times["low"], times["high"], most=check.limit("most")),
            f"{label}: at initialization {word} removes {number(times['value'])} times{span(times, without='')} what a "
            "random gradient would lose.",
            label,
            times,
        )


def _in_training(rows: pd.DataFrame, label: str) -> Iterator[Finding]:
    """GL203: what is kept at the end of training."""
    kept = first(pick(rows, quantity="kept at the end"))
    if kept is None:
        return
    removed = {word: first(pick(rows, quantity=f"{name} at the end")) for name, (word, _) in _REMOVED.items()}
    random = first(pick(rows, quantity="random g"))
    parts = [
        f"{word} removes {percent(row['value'], 2)}, {row['value'] / random['value']:.1f} times a random "
        "gradient's share"
        for word, row in removed.items()
        if row is not None and random is not None
    ]
    yield _KEPT.finding(
        held_against(kept["low"], kept["high"], least=_KEPT.limit("least")),
        f"{label}: over {kept['group']} the norms keep {percent(kept['value'])}{span(kept, percent, '')} of the "
        f"gradient's energy; {' and '.join(parts)}.",
        label,
        kept,
    )


def _dampened(rows: pd.DataFrame, label: str) -> Iterator[Finding]:
    """GL204: the norm that eps takes the most of; several are named where they lie above the limit."""
    shares = pick(rows, quantity="eps in σ²").sort_values("value", ascending=False, kind="stable")
    worst = first(shares)
    if worst is None:
        return
    most = _EPS.limit("most")
    status = held_against(worst["low"], worst["high"], most=most)
    above = shares.loc[shares["low"] > most, "group"].tolist()
    others = f", and is above {most:g} in {len(above)} of {len(shares)} norms" if len(above) > 1 else ""
    of = "is at most {} of a norm's σ²" if status == "pass" else "makes up to {} of a norm's σ² + eps"
    yield _EPS.finding(
        status,
        f"{label}: {worst['stack']} eps {of.format(percent(worst['value']))}{span(worst, percent, '')}, "
        f"in {place(worst['group'])}{others}.",
        label,
        worst,
        sites=tuple(above),
    )
