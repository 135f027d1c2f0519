"""What ``training_curves`` says of runs.

GL303 spikes, GL304 whether they learned, GL305 gradients over depth; GL301 is in ``run_end``, GL302 in
``warm_up``, GL306 in ``loss``.
"""

from collections.abc import Iterator
from functools import partial

import pandas as pd

from analyses.advice import PRE_LN, arrange_otherwise, lacks_warm_up, lower_the_rate
from analyses.limits import gradient_over_depth, held_against
from analyses.making import Check, codes
from analyses.tables import first, number, percent, pick, span
from analyses.training_curves import loss, run_end, warm_up
from gradlens.analysis import Finding, Status

_check = partial(Check, analysis="training_curves")
#: What follows where Post-LN was not warmed up: the gradient of its last blocks leaves that of the others; and, where
#: next to none comes to the first ones, nothing is learned.
_LEAVES, _STUCK = ("GL309 backward",), ("GL304", "GL306", "GL406", "GL704")

_SPIKES = _check(
    code="GL303",
    explanation=(
        "Gradient spikes. Steps whose whole gradient norm is many times the running median of the steps before, and "
        "whose loss stands out of those before it in the same or the next {after:g} recorded steps: what the loss does "
        "not follow, as in a run that has converged and whose gradient is all but noise, is none. Single "
        "ones come from odd batches; many, or one that the loss does not recover from, from an unstable run."
    ),
    unit="times the median",
    expected=1.0,
    expected_from="the median of the {memory:.0f} steps before",
    causes=("An odd batch.", "A learning rate at the edge of stability.", "A norm whose σ comes near 0."),
    remedies=("Clip the gradient norm.", "Look at the steps named, and at the norms' 1/σ there."),
    reference="after Huang et al. 2025 (2501.06842)",
)
_LEARNED = _check(
    code="GL304",
    explanation=(
        "Learning from context. Whether the run learned anything beyond how often each token occurs: its loss at the "
        "end over the loss of a model that knows those frequencies alone; above one it does not even know these. "
        "Post-LN models that are started without warm-up are often stuck there: the blocks pass nothing on that "
        "depends on the context."
    ),
    unit="of the unigram loss",
    expected="below {most:g}",
    expected_from="the cross-entropy of the token frequencies (unigram model) on held-out data",
    threshold="at most {most:g}; above {stuck:g} it fails",
    causes=(
        "Post-LN without warm-up: the first updates saturate the blocks, and the gradient no longer says how to leave.",
        "Too few steps, or a learning rate too low.",
    ),
    reference="Xiong et al. 2020 (2002.04745), Fig. 2",
)
_BALANCE = _check(
    code="GL305",
    explanation=(
        "Balance of the gradient over depth in training. The last block's gradient norm over the first block's, "
        "geometric mean over the last steps, judged as the factor a block like GL101, unless both ends are within "
        "{whole:g} times of one another, as in a network of few blocks. A ratio of thousands says that the early "
        "blocks have stopped learning, whatever the loss does."
    ),
    unit="times a block",
    expected=1.0,
    expected_from="all blocks learning at one pace",
    causes=(
        "Post-LN: its norms pass less and less back to the early blocks once the branches have grown.",
        "Blocks whose branches have saturated, so that nothing flows back through them.",
    ),
    reference="Xiong et al. 2020 (2002.04745), Fig. 3",
)
CODES = codes(run_end.CHECK, warm_up.CHECK, _SPIKES, _LEARNED, _BALANCE, loss.CHECK)


def judge(table: pd.DataFrame) -> list[Finding]:
    """Return the findings of every run, and of every variant trained with and without warm-up.

    Args:
        table: of ``training_curves.compute``.
    """
    summary = pick(table, panel="summary")
    if summary.empty:
        return [run_end.CHECK.silent("No recording of training holds a step.")]
    findings = []
    gains = pick(summary, quantity="warm-up gain")
    runs = summary[summary["quantity"] != "warm-up gain"]
    for label, rows in runs.groupby("label", sort=False):
        name = str(label)
        findings += [run_end.ended(rows, name), loss.fell(rows, name), *_learned(rows, name), *_balance(rows, name)]
    findings += [warm_up.worth(row, pick(runs, variant=str(row["variant"]))) for _, row in gains.iterrows()]
    for label, rows in runs.groupby("label", sort=False):
        findings += _spiked(rows, str(label), pick(table, label=str(label), quantity="spike"))
    return findings


def _learned(rows: pd.DataFrame, label: str) -> Iterator[Finding]:
    """GL304: the loss at the end against that of the frequencies alone."""
    end, alone = (first(pick(rows, quantity=q)) for q in ("loss at the end", "frequencies alone"))
    if end is None or alone is None:
        return
    if run_end.has_diverged(rows):
        claim = f"{label}: the run diverged (GL301): its last loss says nothing of what it had learned."
        yield _LEARNED.silent(claim, label)
        return
    share, stuck = end[["value", "low", "high"]].astype(float) / alone["value"], _LEARNED.limit("stuck")
    status: Status = held_against(share["low"], share["high"], most=_LEARNED.limit("most"))
    if status == "warn" and share["low"] > stuck:
        status = "fail"
    words = {
        "pass": "has learned from its context",
        "warn": "has hardly begun to learn from its context",
        "fail": f"has {'learned nothing but' if share['low'] <= 1 / stuck else 'not even learned'} how often each "
        "token occurs",
    }
    yield _LEARNED.finding(
        status,
        f"{label}: the run {words.get(status, 'may or may not have learned from its context')}: over {end['group']} "
        f"the loss is {number(end['value'])} {end['unit']}, {_times(share['value'])} what the frequencies alone give "
        f"({number(alone['value'])}).",
        label,
        share,
        remedies=("Train longer.", lower_the_rate(rows), *arrange_otherwise(rows, PRE_LN)),
    )


def _times(ratio: float) -> str:
    """Write a ratio as a share, or as a multiple where it is a large one."""
    return f"{percent(ratio)} of" if ratio < 2 else f"{number(ratio)} times"


def _balance(rows: pd.DataFrame, label: str) -> Iterator[Finding]:
    """GL305: the factor a block decides; the ratio of last to first block is told."""
    ratio, factor = (first(pick(rows, quantity=f"gradient {q} at the end")) for q in ("ratio", "factor a block"))
    if ratio is None or factor is None:
        return
    status, threshold = gradient_over_depth(factor["low"], factor["high"])
    most = _BALANCE.limit("whole")
    if status != "pass" and held_against(ratio["low"], ratio["high"], least=1 / most, most=most) == "pass":
        status = "pass"
    threshold += f"; within {most:g} times from the first to the last block it passes"
    words = {
        "pass": "is balanced over depth",
        "warn": "is out of balance over depth",
        "fail": f"all but leaves the {'first' if ratio['value'] > 1 else 'last'} blocks",
    }
    unwarmed = ratio["value"] > 1 and lacks_warm_up(rows)
    yield _BALANCE.finding(
        status,
        f"{label}: the gradient {words.get(status, 'may be out of balance over depth')}: over {ratio['group']} the "
        f"last block's gradient norm is {number(ratio['value'])} times the first block's{span(ratio, without='')}, a "
        f"factor of {factor['value']:.2f} a block.",
        label,
        factor,
        threshold=threshold,
        remedies=(lower_the_rate(rows), *arrange_otherwise(rows, PRE_LN)),
        details={"last/first": float(ratio["value"])},
        explains=(*_LEAVES, *_STUCK * (status == "fail")) if unwarmed else (),
    )


def _spiked(rows: pd.DataFrame, label: str, spikes: pd.DataFrame) -> Iterator[Finding]:
    """GL303: a fact about the run, so there is no interval."""
    worst = first(pick(rows, quantity="largest gradient over its median"))
    if worst is None:
        return
    times, many = _SPIKES.limit("spike"), _SPIKES.limit("many")
    claim = f"{label}: the gradient norm is at most {worst['value']:.1f} times its running median"
    if len(spikes):
        are = "step is a gradient spike" if len(spikes) == 1 else "steps are gradient spikes"
        claim = (
            f"{label}: {len(spikes)} {are} of {worst['n']:.0f} judged, the largest {worst['value']:.1f} times the "
            "running median"
        )
    elif worst["high"] > 0:
        claim += f", in {worst['high']:.0f} steps over {times:g} times, which the loss does not follow"
    status: Status = "warn" if len(spikes) / worst["n"] > many else "pass"
    yield _SPIKES.finding(
        status,
        f"{claim} (step {worst['x']:.0f}).",
        label,
        worst,
        low=None,
        high=None,
        threshold=f"at most {percent(many)} of the steps over {times:g} times, with a loss that follows",
        steps=tuple(int(step) for step in spikes["x"]),
        onset=int(spikes["x"].min()) if status == "warn" else None,
    )
