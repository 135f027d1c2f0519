"""What ``attention`` says: GL901 one key takes all, GL902 all keys are alike, GL903 the first token's gradient."""

from functools import partial
from typing import Any

import pandas as pd

from analyses.making import SYMPTOMS, Check, codes
from analyses.tables import few_places, first, number, percent, pick
from gradlens.analysis import Finding, Status
from gradlens.analysis.finding import place

_check = partial(Check, analysis="attention")
_NAMED = 3
_HOW = 'attach(..., watch=("norms", "blocks", "params", "attention")) records it'

_SATURATED = _check(
    code="GL901",
    explanation=(
        "Attention that saturates. The entropy of a query's weights over the logarithm of the keys that it sees: 1 "
        "looks at all alike, 0 at one alone, where softmax is flat and queries and keys get no gradient. Heads learn "
        "to be sharp, one by one and over many steps. Named is a site whose heads have less than {entropy:g} of that "
        "entropy on the mean from the first step on, or after a fall within {window:g} recorded steps from above "
        "{at_once:g} times that, unless the first key takes it (a sink); and a head with as little whose largest logit "
        "is above {logit:g}, however it came to that. It fails where that is half of the sites, and else warns."
    ),
    unit="of the largest entropy",
    expected="near 1 at initialization, and above {entropy:g}",
    expected_from="logits whose variance is one or less",
    threshold="at least {entropy:g} on the mean over a site's heads; at less than that, logits of at most {logit:g}",
    causes=(
        "Attention that is meant to be hard: a pointer, or a temperature that is lowered on purpose (innocent).",
        "Scores that are not divided by √d, or divided twice by less; a scale that was changed in that step.",
        "Queries and keys that grow: a learning rate too large, or no norm on what they are made of.",
        "A checkpoint, or weights, of another scale.",
    ),
    remedies=(
        "Normalize queries and keys (QK-norm), with a scale that begins near √d, or clip the logits (QK-clip).",
        "Warm up for longer, or lower the rate of the query and key matrices.",
    ),
    reference="Zhai et al. 2023 (2303.06296); QK-clip: Kimi K2 (2507.20534)",
    explains=(*SYMPTOMS, "GL309", "GL310", "GL401"),
)
_UNIFORM = _check(
    code="GL902",
    explanation=(
        "Attention that looks at nothing. A site none of whose heads differs at the end from looking at all keys "
        "alike: after {steps:g} steps their entropy is within {nothing:g} of the largest; or, after {long:g}, within "
        "{apart:g}, and has not left it by {grown:g} times more than in the first recorded steps. At initialization, "
        "and as long as little was learned, that is as it should be; later what the site computes is a mean over all "
        "tokens. A site where no query ever sees two keys, because a mask hides them, has no choice: that warns from "
        "{masked:g} recorded steps on. What lies 5,000 below the largest logit, or itself so low, is a mask's."
    ),
    unit="below the largest entropy",
    expected="above {nothing:g}, and growing",
    expected_from="attention that has begun to learn",
    threshold="at least {nothing:g} in one head; after {long:g} steps {apart:g}, or {grown:g} times what it was",
    causes=(
        "A run that has only begun, or a rate that is small by intent (innocent).",
        "A site that is meant to take means, or keys that are all alike, as of padding (innocent).",
        "Scores that are divided too often: by d in the place of √d, or by √d twice.",
        "Queries or keys that get no gradient, or were initialized at 0 together: each is the other's factor.",
    ),
    remedies=("Look at the scale of the scores.", "See whether query and key matrices get a gradient (GL401)."),
)
_SINK = _check(
    code="GL903",
    explanation=(
        "Gradient sink. Where many queries put their weight on the first key, that token collects their gradients. "
        "Told is the norm over tokens where the first token's gradient is largest beside the rest, with its 1/σ "
        "beside the rest's: a token of massive activations has a small one, which damps what the norm sends back. It "
        "warns where their product is above {most:g} and the first key takes {share:g} of the weights or more."
    ),
    unit="times the rest's",
    expected="at most {most:g} behind the norm",
    expected_from="a sink whose gradient its norm damps",
    threshold="at most {most:g}, where the first key takes {share:g} of the weights",
    causes=(
        "A first token that the loss is read from, such as a class token (innocent).",
        "A sink that is needed: heads that have nothing to read leave their weight there (innocent).",
        "A norm in front of attention that is missing, or whose eps hides the size of the first token.",
    ),
    remedies=(
        "Give attention a place to put its weight: a gate on its output, or a learned sink.",
        "Clip the gradient, of which one token has most.",
    ),
    reference="Gradient sinks (2603.17771); gated attention (2505.06708)",
)
CODES = codes(_SATURATED, _UNIFORM, _SINK)


def judge(table: pd.DataFrame) -> list[Finding]:
    """Return the findings of every run.

    Args:
        table: of ``attention.compute``.
    """
    if table.empty:
        return [_SATURATED.silent(f"No recording of training holds attention: {_HOW}.")]
    findings = []
    for label, rows in pick(table, panel="summary").groupby("label", sort=False):
        name = str(label)
        findings += [_without_a_choice(rows, name)] if len(pick(rows, quantity="no choice")) else []
        if len(pick(rows, quantity="relative entropy")):
            findings += [_saturated(rows, name), _uniform(rows, name), _sink(rows, name)]
    return findings


def _without_a_choice(rows: pd.DataFrame, label: str) -> Finding:
    """GL902 of sites whose mask leaves no query two keys."""
    found = pick(rows, quantity="no choice")
    sites, steps = found["group"].tolist(), found["n"].max()
    claim = f"{label}: no query that was looked at sees two keys at {few_places(sites)}, in {steps:.0f} steps"
    if steps < _UNIFORM.limit("masked"):
        return _UNIFORM.finding("inconclusive", f"{claim}: too few to tell.", label, remedies=("Record more steps.",))
    return _UNIFORM.finding(
        "warn",
        f"{claim}: the mask hides all keys, or all but one.",
        label,
        value=0.0,
        unit="keys to choose from",
        expected="two or more",
        expected_from="attention that has a choice",
        threshold="two",
        sites=tuple(sites),
        born="forward",
        causes=(
            "Sequences of one token (innocent).",
            "A mask the wrong way round: of bool, True hides a key in one interface and shows it in another.",
            "A mask that is made for another length, or for padding on the other side.",
        ),
        remedies=("Look at one batch's mask: how many keys does each query see?",),
        explains=("GL406",),
    )


def _saturated(rows: pd.DataFrame, label: str) -> Finding:
    """GL901: those sites are named that began first, and what came soon after."""
    entropy, found = pick(rows, quantity="relative entropy"), pick(rows, quantity="saturated")
    if found.empty:
        least = entropy.sort_values("value").iloc[0]
        logit = pick(rows, quantity="largest logit")["value"].max()
        return _SATURATED.finding(
            "pass",
            f"{label}: at the end the sharpest site, {place(least['group'])}, has "
            f"{percent(least['value'])} of the largest entropy; no logit is above {number(logit)}.",
            label,
            least,
            causes=(),
            remedies=(),
        )
    began = found["x"].min()
    from_start = bool((found.loc[found["x"] == began, "stack"] == "start").any())
    sites = found.sort_values("x", kind="stable")["group"].tolist()
    worst = found.sort_values("value").iloc[0]
    logit = pick(rows, quantity="largest logit").set_index("group")["value"][sites].max()
    single = "" if (found["stack"] != "logits").any() else f", {worst['unit']},"
    status: Status = "fail" if len(found) >= _SATURATED.limit("many") * len(entropy) else "warn"
    claim = (
        f"{label}: {'from the start' if from_start else f'from step {began:.0f} on'} attention saturates at "
        f"{few_places(sites)}{single} with {percent(worst['value'])} of the largest entropy, and logits up to "
        f"{number(logit)}."
    )
    at_first = (
        "Divide the scores by √d." if from_start else f"Look at what changed at step {began:.0f}: weights, scale."
    )
    gradual = not from_start and bool((found.loc[found["x"] == began, "stack"] == "logits").all())
    return _SATURATED.finding(
        status,
        claim,
        label,
        value=float(worst["value"]),
        sites=tuple(sites),
        steps=() if from_start else (int(began),),
        onset=None if from_start else int(began),
        born="forward",
        remedies=_SATURATED.remedies if gradual else (at_first, *_SATURATED.remedies),
    )


def _uniform(rows: pd.DataFrame, label: str) -> Finding:
    """GL902."""
    apart = pick(rows, quantity="apart")
    if apart["x"].max() < _UNIFORM.limit("steps"):
        claim = f"{label}: {apart['x'].max():.0f} steps are too few to tell attention that learns from what does not."
        return _UNIFORM.silent(claim, label)
    value, limit = apart["value"], _UNIFORM.limit
    still = (value < limit("apart")) & (value < limit("grown") * apart["low"]) & (apart["x"] >= limit("long"))
    found = apart[still | (value < limit("nothing"))]
    if found.empty:
        claim = f"{label}: every site has a head whose entropy is {number(value.min())} or more below the largest."
        return _UNIFORM.finding("pass", claim, label, value=float(value.min()), causes=(), remedies=())
    sites = found["group"].tolist()
    return _UNIFORM.finding(
        "warn",
        f"{label}: to the end attention looks at all keys alike at {few_places(sites)}: no head's entropy is more than "
        f"{number(found['value'].max())} below the largest.",
        label,
        value=float(found["value"].max()),
        sites=tuple(sites),
        born="forward",
    )


def _sink(rows: pd.DataFrame, label: str) -> Finding:
    """GL903: told, and never worse than a warning."""
    gradient, inverse = (first(pick(rows, quantity=f"{q} of the first token")) for q in ("gradient", "1/σ"))
    share = pick(rows, quantity="share of the first key")["value"].iloc[0]
    if gradient is None or inverse is None:
        claim = f"{label}: no norm over the tokens that attention reads was recorded outside of a compiled graph."
        return _SINK.silent(claim, label)
    behind = float(gradient["value"] * inverse["value"])
    sink = behind > _SINK.limit("most") and share >= _SINK.limit("share")
    asked: dict[str, Any] = {"causes": (), "remedies": ()}
    if sink:
        asked = {"sites": (str(gradient["group"]),), "born": "backward"}
    return _SINK.finding(
        "warn" if sink else "pass",
        f"{label}: the first token's gradient is largest beside the rest's at {place(gradient['group'])}, "
        f"{number(gradient['value'])} times it, and {number(behind)} times behind the norm, whose 1/σ is "
        f"{number(inverse['value'])} times the rest's; the first key has {percent(share)} of attention's weights.",
        label,
        value=behind,
        **asked,
    )
