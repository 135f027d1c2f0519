"""The verdicts on a model's wiring, by code."""

from collections.abc import Callable, Iterator, Mapping

import pandas as pd

from analyses.architecture.checks import AXIS, DETACHED, EVALUATION, FINAL, SIGN, SKIP, STREAM, TWICE
from analyses.architecture.numbers import LOOKED_AT
from analyses.making import Check, codes
from analyses.tables import first, listed, number, pick
from gradlens.analysis import Finding, Status

CODES = codes(SKIP, SIGN, TWICE, FINAL, AXIS, EVALUATION, DETACHED, STREAM)
_NAMED = 3


def judge(table: pd.DataFrame) -> list[Finding]:
    """Return the findings of every recording.

    Args:
        table: of ``architecture.compute``.
    """
    return [
        finding
        for label, rows in table.groupby("label", sort=False)
        for finding in (*_wired(rows, str(label)), *_worked(rows, str(label)), *_stream(rows, str(label)))
    ]


def _wired(rows: pd.DataFrame, label: str) -> Iterator[Finding]:
    """GL801 to GL805, of what the graph has shown."""
    told = first(pick(rows, quantity="told"))
    if told is None or not told["value"]:
        claim = (
            f"{label}: how the model is wired was not recorded: that takes a pass that is not compiled, and a recording "
            "of this gradlens or a later one."
        )
        yield SKIP.silent(claim, label)
        return
    for check, status, nothing, passes, says in _OF_THE_GRAPH:
        yield _judged(check, status, rows, label, nothing, passes, says)


def _judged(
    check: Check,
    status: Status,
    rows: pd.DataFrame,
    label: str,
    nothing: str,
    passes: str,
    says: Callable[[pd.DataFrame], str],
) -> Finding:
    """Return the finding of a code that names places."""
    rows = pick(rows, quantity=check.code)
    odd, looked = rows[rows["group"] != LOOKED_AT], rows[rows["group"] == LOOKED_AT]
    if odd.empty and not looked["n"].sum():
        return check.silent(f"{label}: {nothing}.", label)
    if odd.empty:
        claim = f"{label}: {passes.format(n=int(looked['n'].sum()))}."
        return check.finding("pass", claim, label, value=0.0 if check.expected == 0 else None, causes=(), remedies=())
    value = float(len(odd)) if check.expected == 0 else float(odd["value"].iloc[0])
    own = {"expected": float(odd["low"].iloc[0])} if check is SKIP else {"expected": value} if check is AXIS else {}
    if check is AXIS:
        value = float(str(odd["stack"].iloc[0]).split(" × ")[0])
    sites = tuple(dict.fromkeys(odd["group"]))
    return check.finding(status, f"{label}: {says(odd)}.", label, value=value, sites=sites, born="forward", **own)


def _skip(odd: pd.DataFrame) -> str:
    one = odd.iloc[0]
    more = f", and so do {len(odd) - 1} others" if len(odd) > 1 else ""
    return f"{one['group']} holds {_counted(one['value'])} where its equals hold {one['low']:.0f}{more}"


def _counted(value: float) -> str:
    return "no residual addition" if value == 0 else f"{value:.0f} residual addition{'s' if value > 1 else ''}"


def _sign(odd: pd.DataFrame) -> str:
    return f"the stream is taken away in {_some(odd['group'])}, which returns {odd.iloc[0]['stack']}"


def _twice(odd: pd.DataFrame) -> str:
    itself = [
        second if first != second else f"{second} (itself)"
        for first, second in zip(odd["stack"], odd["group"], strict=True)
    ]
    return f"{_some(itself)} normalizes what {odd.iloc[0]['stack']} has just normalized, and nothing else reads that"


def _final(odd: pd.DataFrame) -> str:
    return f"behind {_some(odd['group'])}, the last norm of a Pre-LN stack, the stream goes into the head unnormalized"


def _axis(odd: pd.DataFrame) -> str:
    one = odd.iloc[0]
    return f"{_some(odd['group'])} normalizes {one['stack']} entries, on a stream of {one['value']:.0f} features"


def _some(names: "pd.Series[str] | list[str]") -> str:
    """List a few places, and count the others."""
    unique = list(dict.fromkeys(names))
    if len(unique) <= _NAMED + 1:
        return listed(unique)
    return f"{', '.join(unique[:_NAMED])} and {len(unique) - _NAMED} others"


_OF_THE_GRAPH: tuple[tuple[Check, Status, str, str, Callable[[pd.DataFrame], str]], ...] = (
    (
        SKIP,
        "fail",
        "no three equal modules hold residual additions",
        "equal blocks hold equally many additions ({n} looked at)",
        _skip,
    ),
    (
        SIGN,
        "fail",
        "there is no stream of two residual additions or more",
        "each of {n} additions keeps the stream's sign",
        _sign,
    ),
    (TWICE, "warn", "no norm was seen in the graph", "none of {n} norms reads another one alone", _twice),
    (FINAL, "warn", "no Pre-LN stack goes into a head", "a norm stands behind each Pre-LN stack", _final),
    (AXIS, "warn", "no norm stands on a stream", "{n} norms on a stream normalize its features", _axis),
)


# ------------------------------------------------------------------ measured


def _worked(rows: pd.DataFrame, label: str) -> Iterator[Finding]:
    """GL806 and GL807, of models that have such norms."""
    for check, says in (
        (EVALUATION, _evaluated),
        (
            DETACHED,
            lambda odd, looked: f"from the gradient through {_some(odd['group'])} nothing is removed in any step",
        ),
    ):
        own = pick(rows, quantity=check.code)
        odd, looked = own[own["group"] != LOOKED_AT], first(own[own["group"] == LOOKED_AT])
        if looked is None or not looked["n"]:
            continue
        if odd.empty:
            claim = f"{label}: {_PASSES[check.code].format(n=int(looked['n']))}."
            yield check.finding("pass", claim, label, value=0.0, causes=(), remedies=())
            continue
        begun = odd["x"].min()
        onset = None if pd.isna(begun) or begun <= looked["x"] else int(begun)
        own_words = {"onset": onset, "born": "forward", "sites": tuple(odd["group"])}
        yield check.finding("warn", f"{label}: {says(odd, looked)}.", label, value=float(len(odd)), **own_words)


_PASSES = {
    "GL806": "all {n} norms of batch or instance normalized with the statistics of what they saw, or are frozen",
    "GL807": "the derivative of the statistics flows through each of {n} norms",
}


def _evaluated(odd: pd.DataFrame, looked: Mapping[str, float]) -> str:
    """Say which norms stood still, and in which steps."""
    steps, since = int(odd["value"].max()), int(odd["x"].min())
    when = "all steps" if steps == looked["value"] else f"{steps} of {looked['value']:.0f} steps, first in step {since}"
    return f"a gradient came through {_some(odd['group'])} in evaluation mode, in {when}"


def _stream(rows: pd.DataFrame, label: str) -> Iterator[Finding]:
    """GL808: a stack each."""
    own = pick(rows, quantity="GL808")
    odd = own[own["group"] != LOOKED_AT]
    for _, row in odd.iterrows():
        block, stack = f"block {row['x'] - 1:.0f} of {row['group']}", str(row["group"])
        if row["unit"] == "level":
            what = f"before its norm {block} has a second moment of {number(row['value'])}, having begun with 1"
            limits, unit, expected = f"at most {STREAM.limit('level'):g}", "second moment", "about 1 to 2"
        else:
            what = (
                f"{block} adds {number(row['value'])} times as much to the stream's second moment as the median block"
            )
            limits, unit, expected = f"at most {STREAM.limit('times'):g}", "times the median block", "about 1"
        shared = {"threshold": limits, "unit": unit, "expected": expected, "value": float(row["value"])}
        sites = (f"{stack}.{row['x'] - 1:.0f}".lstrip("."),)
        yield STREAM.finding("warn", f"{label}: {what}.", label, sites=sites, born="forward", **shared)
    looked = own[own["group"] == LOOKED_AT]
    if odd.empty and len(looked):
        grows = ", ".join(number(value) for value in looked["value"])
        claim = f"{label}: the stream's second moment grows as it may, by a factor of {grows} over the stack."
        yield STREAM.finding("pass", claim, label, causes=(), remedies=())
