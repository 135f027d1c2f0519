"""What ``training_curves`` says of runs.

GL301 how they ended, GL302 the warm-up, GL303 spikes, GL304 whether they learned, GL305 gradients over depth.
"""

from collections.abc import Iterator

import pandas as pd

from analyses.advice import arrange_otherwise
from analyses.limits import gradient_over_depth, held_against, limit
from analyses.tables import first, number, percent, pick
from analyses.warm_up_finding import CODE, gain
from gradlens.analysis import Finding, Status

_NAME = "training_curves"
_XIONG = "Xiong et al. 2020 (2002.04745), Fig. 2"
_PRE_LN = "Take the norm before the branch (Pre-LN)."

CODES = {
    "GL301": (
        "How a run ended. A loss that is NaN or infinite, or a run that the trainer stopped as diverged, "
        "fails; a run that was interrupted says nothing yet."
    ),
    **CODE,
    "GL303": (
        "Gradient spikes. Steps whose whole gradient norm is many times the running median of the steps "
        "before. Single ones come from odd batches; many, or one that the loss does not recover from, from "
        "an unstable run."
    ),
    "GL304": (
        "Learning from context. Whether the run learned anything beyond how often each token occurs: its "
        "loss at the end over the loss of a model that knows those frequencies alone. Post-LN models that "
        "are started without warm-up are often stuck there: the blocks pass nothing on that depends on the "
        "context."
    ),
    "GL305": (
        "Balance of the gradient over depth in training. The last block's gradient norm over "
        "the first block's, geometric mean over the last steps, judged as the factor a block like GL101. A "
        "ratio of thousands says that the early blocks have stopped learning, whatever the loss does."
    ),
}


def judge(table: pd.DataFrame) -> list[Finding]:
    """Return the findings of every run, and of every variant trained with and without warm-up.

    Args:
        table: of ``training_curves.compute``.
    """
    summary = pick(table, panel="summary")
    if summary.empty:
        claim = "No recording of training holds a step."
        return [Finding(code="GL301", status="not applicable", claim=claim, analysis=_NAME)]
    findings = []
    gains = pick(summary, quantity="warm-up gain")
    runs = summary[summary["quantity"] != "warm-up gain"]
    for label, rows in runs.groupby("label", sort=False):
        name = str(label)
        findings += [_ended(rows, name), *_learned(rows, name), *_balance(rows, name)]
    findings += [gain(row, _NAME) for _, row in gains.iterrows()]
    for label, rows in runs.groupby("label", sort=False):
        findings += _spiked(rows, str(label), pick(table, label=str(label), quantity="spike"))
    return findings


def _ended(rows: pd.DataFrame, label: str) -> Finding:
    """GL301: a fact about the run, so there is no interval."""
    how = pick(rows, quantity="status").iloc[0]
    steps, broken = f"{how['n']:.0f} recorded steps", how["value"] > 0
    status: Status
    if broken or how["group"] == "diverged":
        at = "" if pd.isna(how["x"]) else f" at step {how['x']:.0f}"
        where = f"its loss is not finite{at} and after" if broken else f"not finite{at}, or far above chance for long"
        status, claim = "fail", f"{label}: the run diverged: {where}."
    elif how["group"] in ("running", "interrupted"):
        status, claim = (
            "inconclusive",
            f"{label}: the run is {how['group']} after {steps}, all of finite loss.",
        )
    else:
        status, claim = "pass", f"{label}: the run came to its end with a finite loss in all {steps}."
    return Finding(
        code="GL301",
        status=status,
        claim=claim,
        analysis=_NAME,
        subject=label,
        value=float(how["value"]),
        unit="steps",
        expected=0.0,
        expected_from="a run that trains",
        threshold="no step without a finite loss",
        steps=() if pd.isna(how["x"]) else (int(how["x"]),),
        causes=(
            "A learning rate too high for the first steps.",
            "Overflow in float16.",
            "A fault in loss or data.",
        ),
        remedies=(
            "Warm up, lower the learning rate, or clip.",
            *arrange_otherwise(str(rows["variant"].iloc[0]), _PRE_LN),
        ),
        reference=_XIONG,
    )


def _learned(rows: pd.DataFrame, label: str) -> Iterator[Finding]:
    """GL304: the loss at the end against that of the frequencies alone."""
    end, alone = (first(pick(rows, quantity=q)) for q in ("loss at the end", "frequencies alone"))
    if end is None or alone is None:
        return
    value, low, high = (float(end[column]) / float(alone["value"]) for column in ("value", "low", "high"))
    most = limit("GL304", "most")
    status = held_against(low, high, most=most)
    if status == "warn" and low > limit("GL304", "stuck"):
        status = "fail"
    words = {
        "pass": "has learned from its context",
        "warn": "has hardly begun to learn from its context",
        "fail": "has learned nothing but how often each token occurs",
    }
    yield Finding(
        code="GL304",
        status=status,
        analysis=_NAME,
        subject=label,
        claim=(
            f"{label}: the run {words.get(status, 'may or may not have learned from its context')}: over "
            f"its last {end['n']:.0f} steps the loss is {end['value']:.2f} {end['unit']}, {percent(value)} "
            f"of what the frequencies alone give ({alone['value']:.2f})."
        ),
        value=value,
        low=low,
        high=high,
        expected=f"below {most:g}",
        expected_from="the cross-entropy of the token frequencies (unigram model) on held-out data",
        threshold=f"at most {most:g}; above {limit('GL304', 'stuck'):g} it fails",
        causes=(
            "Post-LN without warm-up: the first updates saturate the blocks, and the gradient no longer "
            "says how to leave.",
            "Too few steps, or a learning rate too low.",
        ),
        remedies=(
            "Warm up, or lower the learning rate.",
            *arrange_otherwise(str(rows["variant"].iloc[0]), _PRE_LN),
            "Train longer.",
        ),
        reference=_XIONG,
    )


def _balance(rows: pd.DataFrame, label: str) -> Iterator[Finding]:
    """GL305: the factor a block decides; the ratio of last to first block is told."""
    ratio, factor = (first(pick(rows, quantity=f"gradient {q} at the end")) for q in ("ratio", "factor a block"))
    if ratio is None or factor is None:
        return
    status, threshold = gradient_over_depth(factor["low"], factor["high"])
    words = {
        "pass": "is balanced over depth",
        "warn": "is out of balance over depth",
        "fail": f"has all but left the {'first' if ratio['value'] > 1 else 'last'} block",
    }
    span = "" if pd.isna(ratio["low"]) else f" (95 % CI {number(ratio['low'])} to {number(ratio['high'])})"
    yield Finding(
        code="GL305",
        status=status,
        analysis=_NAME,
        subject=label,
        claim=(
            f"{label}: the gradient {words.get(status, 'may be out of balance over depth')}: over the last "
            f"{ratio['n']:.0f} steps the last block's gradient norm is {number(ratio['value'])} times the "
            f"first block's{span}, a factor of {factor['value']:.2f} a block."
        ),
        value=float(ratio["value"]),
        low=float(ratio["low"]),
        high=float(ratio["high"]),
        expected=1.0,
        expected_from="all blocks learning at one pace",
        threshold=threshold,
        causes=(
            "Post-LN: its norms pass less and less back to the early blocks once the branches have grown.",
            "Blocks whose branches have saturated, so that nothing flows back through them.",
        ),
        remedies=("Warm up, or lower the learning rate.", *arrange_otherwise(str(rows["variant"].iloc[0]), _PRE_LN)),
        reference=_XIONG.replace("Fig. 2", "Fig. 3"),
    )


def _spiked(rows: pd.DataFrame, label: str, spikes: pd.DataFrame) -> Iterator[Finding]:
    """GL303: a fact about the run, so there is no interval."""
    worst = first(pick(rows, quantity="largest gradient over its median"))
    if worst is None:
        return
    times, memory, many = (limit("GL303", key) for key in ("spike", "memory", "many"))
    claim = f"{label}: the gradient norm is at most {worst['value']:.1f} times its running median"
    share = len(spikes) / worst["n"]
    if len(spikes):
        are = "step is a gradient spike" if len(spikes) == 1 else "steps are gradient spikes"
        claim = (
            f"{label}: {len(spikes)} {are} of {worst['n']:.0f} judged, the largest {worst['value']:.1f} "
            f"times the running median"
        )
    yield Finding(
        code="GL303",
        status="warn" if share > many else "pass",
        analysis=_NAME,
        subject=label,
        claim=f"{claim} (step {worst['x']:.0f}).",
        value=float(worst["value"]),
        expected=1.0,
        expected_from=f"the median of the {memory:.0f} steps before",
        threshold=f"at most {percent(many)} of the steps over {times:g} times",
        steps=tuple(int(step) for step in spikes["x"]),
        causes=("An odd batch.", "A learning rate at the edge of stability.", "A norm whose σ comes near 0."),
        remedies=("Clip the gradient norm.", "Look at the steps named, and at the norms' 1/σ there."),
        reference="after Huang et al. 2025 (2501.06842)",
    )
