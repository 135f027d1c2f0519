"""What ``depth_profile`` says.

GL101 gradients over depth, GL102 the stream, GL103 the law of both; GL104 is in ``prediction``.
"""

from collections.abc import Iterator
from functools import partial

import pandas as pd

from analyses.advice import PRE_LN, arrange_otherwise
from analyses.depth import W2, WHOLE
from analyses.depth_profile.prediction import CHECK as PREDICTION
from analyses.depth_profile.prediction import off_prediction
from analyses.limits import gradient_over_depth, held_against
from analyses.making import Check, codes
from analyses.tables import first, number, percent, pick, span
from gradlens.analysis import Finding

_check = partial(Check, analysis="depth_profile")
_XIONG = "Xiong et al. 2020 (2002.04745)"

_GRADIENT = _check(
    code="GL101",
    explanation=(
        "Gradient over depth at initialization. By what factor a block the gradient norm of the FFN's output matrix "
        "(or of the whole block) changes from the first block to the last. A power law, as Pre-LN's 1/√l, is harmless: "
        "Adam divides it out and its range is small. An exponential is not: the ends of the stack then want learning "
        "rates that differ by orders of magnitude, and a warm-up has to bridge them."
    ),
    unit="times a block",
    causes=(
        "Pre-LN: the stream grows with depth and each norm divides the gradient by it (expected, harmless).",
        "Post-LN with cross-attention: hardly any gradient flows back through the queries.",
        "Causal attention: early tokens receive more gradient than they pass on.",
        "Branches that are scaled or initialized unlike the zoo's.",
    ),
    reference=f"{_XIONG}, Theorem 1, Fig. 3; Liu et al. 2020 (2004.08249)",
)
_STREAM = _check(
    code="GL102",
    explanation=(
        "Growth of the stream at initialization. Lemma 2 of Xiong et al. says: a Post-LN stream has second moment "
        "1 + v before each block's last norm; a Pre-LN stream grows by v to 1 + v a block, where v is the FFN's gain "
        "(1/2 for an FFN as wide as the stream). A stream that grows faster drowns its later branches and, by the law "
        "of GL103, starves their gradients."
    ),
    expected_from="Lemma 2, with the FFN's gain 2r/(1 + r)² at width ratio r; Xavier, ReLU, gains 1",
    causes=(
        "Another initialization, activation or branch scale than the lemma's.",
        "Dropout, which raises second moments by 1/(1 − p).",
        "Few seeds or a narrow stream: the lemma speaks of expectations.",
    ),
    remedies=("Compare the initialization with the paper's; measure more seeds.",),
    reference=f"{_XIONG}, Lemma 2",
)
_LAW = _check(
    code="GL103",
    explanation=(
        "Gradient norm times stream rms, block by block. Whether ‖dL/dW2_l‖·√q_l is one constant (q_l: the stream's "
        "second moment after block l). It is where each branch gains as much backward as forward, so that only the "
        "stream's size decides a block's gradient: normalization divides the gradient by the size of what it "
        "normalizes. Value: coefficient of variation of the constant over blocks, corrected for the seeds' noise by "
        "the jackknife."
    ),
    unit="of the constant",
    expected=0.0,
    expected_from="equal forward and backward gain of each branch (exact for FFNs, near for attention)",
    threshold="at most {most:g}",
    causes=(
        "Causal attention passes back less than it adds: a drift of a few per cent a block in Post-LN stacks.",
        "Tokens that grow alike with depth, so that attention's gain changes.",
        "Few seeds.",
    ),
    remedies=("Measure more seeds; where it stays, the branches' backward gain differs from the forward one.",),
    reference=f"after {_XIONG}, Lemmas 2 and 3",
)
CODES = codes(_GRADIENT, _STREAM, _LAW, PREDICTION)
#: What GL101 is held against, the first that there is: the quantity's name, and where it comes from.
_FACTORS = {
    "predicted": "mean-field theory of the whole network (GL104)",
    "law": "the law ‖dL/dW2‖ = c/√q with the stream as measured",
}


def judge(table: pd.DataFrame) -> list[Finding]:
    """Return one finding of each code for every stack of every recording.

    Args:
        table: of ``depth_profile.compute``.
    """
    summary = pick(table, panel="summary")
    if summary.empty:
        return [_GRADIENT.silent("No recording at initialization has gradients or a stream over two blocks.")]
    several = summary.groupby("label")["stack"].nunique().max() > 1
    findings: list[Finding] = []
    for (label, stack), rows in summary.groupby(["label", "stack"], sort=False):
        name = f"{label} ({stack})" if several else str(label)
        for judged in (_gradient, _stream, _law, off_prediction):
            findings += judged(rows, str(label), name)
    return findings


def _gradient(rows: pd.DataFrame, subject: str, name: str) -> Iterator[Finding]:
    """GL101: the factor a block decides; the ratio of last to first block is told."""
    factor = first(pick(rows, quantity="gradient factor a block"))
    if factor is None:
        yield from _no_gradient(rows, subject, name)
        return
    ratios = pick(rows, quantity="gradient ratio last/first").set_index("group")
    ratio, group = ratios.loc[factor["group"]], str(factor["group"])
    status, threshold = gradient_over_depth(factor["low"], factor["high"])
    known = ((first(pick(rows, quantity=f"{which} factor a block")), source) for which, source in _FACTORS.items())
    expected = next(((float(row["value"]), source) for row, source in known if row is not None), (None, ""))
    whole = "" if group == WHOLE else f" (whole block: {number(ratios['value'][WHOLE])} times)"
    yield _GRADIENT.finding(
        status,
        f"{name}: in the last block the gradient of {_matrix(group)} is {number(ratio['value'])} times that in the "
        f"first{span(ratio)}, a factor of {factor['value']:.2f} a block{whole}.",
        subject,
        factor,
        expected=expected[0],
        expected_from=expected[1],
        threshold=threshold,
        remedies=(
            "Warm the learning rate up.",
            *arrange_otherwise(
                rows,
                PRE_LN,
                "Scale the branches or the skip with depth (DeepNorm, Admin).",
            ),
        ),
        details={f"last/first {key}": float(value) for key, value in ratios["value"].items()},
    )


def _no_gradient(rows: pd.DataFrame, subject: str, name: str) -> Iterator[Finding]:
    """GL101 where the first or last block has no gradient at all, so that there is no ratio."""
    without = first(pick(rows, quantity="blocks without gradient"))
    if without is None:
        return
    what = _matrix(str(without["group"]))
    if without["value"] != without["n"]:
        claim = f"{name}: the gradient of {what} is 0 in {without['value']:.0f} of {without['n']:.0f} blocks."
        causes = ("Blocks that nothing flows back to: detached, dead or multiplied by 0.",)
        yield _GRADIENT.silent(claim, subject, status="warn", causes=causes)
        return
    why = "a last factor in each branch, or the head, is 0 at initialization, and learns first"
    if str(rows["variant"].iloc[0]).partition("/")[0] == "rezero":
        why = "ReZero's factor on each branch is 0 at initialization, and only these factors learn in the first step"
    claim = f"{name}: the gradient of {what} is exactly 0 in every block, and has no change over depth: {why}."
    yield _GRADIENT.silent(claim, subject, value=0.0)


def _matrix(group: str) -> str:
    return "the FFN output matrix" if group == W2 else f"the {group}"


def _stream(rows: pd.DataFrame, subject: str, name: str) -> Iterator[Finding]:
    """GL102: the measured growth (Post-LN: level) against Lemma 2's range for it."""
    level, growth = (first(pick(rows, quantity=q)) for q in ("stream second moment", "stream growth a block"))
    measured, lemma = level if growth is None else growth, first(pick(rows, quantity="lemma 2"))
    if measured is None:
        yield _STREAM.silent(f"{name}: the stream was not recorded at two depths or more.", subject)
        return
    value = f"{number(measured['value'])}{span(measured)}"
    if lemma is None:
        what = f"{value} before each block's last norm" if growth is None else f"grows by {value} a block"
        claim = f"{name}: the stream's second moment {what}; Lemma 2 does not cover this architecture."
        unit = "second moment a block"
        shared = {"expected_from": "", "causes": (), "remedies": ()}
        yield _STREAM.finding("not applicable", claim, subject, measured, unit=unit, **shared)
        return
    room = _STREAM.limit("room")
    least, most = lemma["low"] * (1 - room), lemma["high"] * (1 + room)
    if growth is None:
        bounds, unit = f"{lemma['low']:.2f}", "second moment"
        what = f"the stream has second moment {value} before each block's last norm"
    else:
        bounds, unit = f"{lemma['low']:.2f} to {lemma['high']:.2f}", "second moment a block"
        what = f"the stream's second moment grows by {value} a block"
    yield _STREAM.finding(
        held_against(measured["low"], measured["high"], least=least, most=most),
        f"{name}: {what}; Lemma 2 gives {bounds}.",
        subject,
        measured,
        unit=unit,
        expected=bounds,
        threshold=f"{least:.3g} to {most:.3g} (the lemma's range, {percent(room, 0)} wider)",
    )


def _law(rows: pd.DataFrame, subject: str, name: str) -> Iterator[Finding]:
    """GL103: how much c_l varies over the blocks."""
    flatness = first(pick(rows, quantity="variation of c"))
    if flatness is None:
        return
    status = held_against(flatness["low"], flatness["high"], most=_LAW.limit("most"))
    verb = {"pass": "is one constant over the blocks", "warn": "is no constant over the blocks"}
    yield _LAW.finding(
        status,
        f"{name}: ‖dL/dW2‖·√q {verb.get(status, 'may or may not be constant over the blocks')}: beyond the seeds' "
        f"noise it varies by {percent(flatness['value'])}{span(flatness, percent)}.",
        subject,
        flatness,
    )
