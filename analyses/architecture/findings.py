"""The verdicts on a model's wiring, by code."""

from collections.abc import Callable, Iterator
from math import prod
from typing import Any, NamedTuple

import pandas as pd

from analyses.architecture import start
from analyses.architecture.checks import AXIS, DETACHED, EVALUATION, FINAL, SIGN, SKIP, STREAM, TWICE
from analyses.architecture.measured import EACH, LEVEL
from analyses.architecture.numbers import LOOKED_AT, TOLD
from analyses.making import Check, codes
from analyses.tables import few_places, first, listed, number, pick
from gradlens.analysis import Finding, Status
from gradlens.analysis.finding import place

CODES = codes(SKIP, SIGN, TWICE, FINAL, AXIS, EVALUATION, DETACHED, STREAM, start.CHECK)
_NO_ADVICE: dict[str, Any] = {"causes": (), "remedies": ()}


class _Words(NamedTuple):
    """What is said where there is nothing to judge, of what is sound, and of what is odd."""

    nothing: str
    sound: str
    odd: Callable[[pd.DataFrame], str]


def judge(table: pd.DataFrame) -> list[Finding]:
    """Return the findings of every recording.

    Args:
        table: of ``architecture.compute``.
    """
    if table.empty:
        return [SKIP.silent("No recording tells how a model is wired.")]
    return [
        finding
        for label, rows in table.groupby("label", sort=False)
        for judged in (_wired, _worked, _stream, start.judged)
        for finding in judged(rows, str(label))
    ]


def _wired(rows: pd.DataFrame, label: str) -> Iterator[Finding]:
    """GL801 to GL805, of what the graph has shown."""
    if pick(rows, quantity=TOLD).empty:
        claim = (
            f"{label}: how the model is wired was not recorded: that takes a pass that is not compiled, and a "
            "recording of this gradlens or a later one."
        )
        yield SKIP.silent(claim, label)
        return
    for check, status, words in _OF_THE_GRAPH:
        yield _judged(check, status, rows, label, words)


def _judged(check: Check, status: Status, rows: pd.DataFrame, label: str, words: _Words) -> Finding:
    """Return the finding of a code that names places."""
    rows = pick(rows, quantity=check.code)
    odd, looked = rows[rows["group"] != LOOKED_AT], rows[rows["group"] == LOOKED_AT]["n"].sum()
    if odd.empty and not looked:
        return check.silent(f"{label}: {words.nothing}.", label)
    if odd.empty:
        none = 0.0 if check.expected == 0 else None
        return check.finding("pass", f"{label}: {words.sound.format(n=int(looked))}.", label, value=none, **_NO_ADVICE)
    own: dict[str, Any] = {"value": float(len(odd))}
    if check is SKIP:
        own = {"value": float(odd["value"].iloc[0]), "expected": float(odd["low"].iloc[0])}
    elif check is AXIS:
        own["expected"] = float(odd["value"].iloc[0])
        own["value"] = float(prod(int(size) for size in str(odd["stack"].iloc[0]).split(" × ")))
    sites = tuple(dict.fromkeys(odd["group"]))
    return check.finding(status, f"{label}: {words.odd(odd)}.", label, sites=sites, born="forward", **own)


def _skip(odd: pd.DataFrame) -> str:
    one = odd.iloc[0]
    more = f", and so do {len(odd) - 1} others" if len(odd) > 1 else ""
    return f"{place(one['group'])} holds {_counted(one['value'])} where its equals hold {one['low']:.0f}{more}"


def _counted(value: float) -> str:
    return "no residual addition" if value == 0 else f"{value:.0f} residual addition{'s' if value > 1 else ''}"


def _sign(odd: pd.DataFrame) -> str:
    return f"the stream is taken away in {few_places(odd['group'])}, which returns {odd.iloc[0]['stack']}"


def _twice(odd: pd.DataFrame) -> str:
    itself = [
        second if first != second else f"{second} (itself)"
        for first, second in zip(odd["stack"], odd["group"], strict=True)
    ]
    before = place(odd.iloc[0]["stack"])
    return f"{few_places(itself)} normalizes what {before} has just normalized, and nothing else reads that"


def _final(odd: pd.DataFrame) -> str:
    last = few_places(odd["group"])
    return f"behind {last}, the last norm of a Pre-LN stack, the stream goes into the head unnormalized"


def _axis(odd: pd.DataFrame) -> str:
    one = odd.iloc[0]
    return f"{few_places(odd['group'])} normalizes {one['stack']} entries, on a stream of {one['value']:.0f} features"


_OF_THE_GRAPH: tuple[tuple[Check, Status, _Words], ...] = (
    (SKIP, "fail", _Words("no three equal modules hold residual additions",
                          "equal modules hold equally many residual additions ({n} looked at)", _skip)),
    (SIGN, "fail", _Words("there is no stream of two residual additions or more",
                          "each of {n} residual additions keeps the stream's sign", _sign)),
    (TWICE, "warn", _Words("no norm was seen", "none of {n} norms reads nothing but another one", _twice)),
    (FINAL, "warn", _Words("no Pre-LN stack goes into a head", "a norm stands behind each Pre-LN stack", _final)),
    (AXIS, "warn", _Words("no norm stands on a stream", "{n} norms on a stream normalize its features", _axis)),
)  # fmt: skip


# ------------------------------------------------------------------ measured


def _worked(rows: pd.DataFrame, label: str) -> Iterator[Finding]:
    """GL806 and GL807, of models that have such norms."""
    for check, sound, says in (
        (
            EVALUATION,
            "{n} batch and instance norms took the statistics of what they saw, or are frozen",
            _evaluated,
        ),
        (DETACHED, "the derivative of the statistics flows through each of {n} norms", _detached),
    ):
        own = pick(rows, quantity=check.code)
        odd, looked = own[own["group"] != LOOKED_AT], first(own[own["group"] == LOOKED_AT])
        if looked is None or not looked["n"]:
            continue
        if odd.empty:
            claim = f"{label}: {sound.format(n=int(looked['n']))}."
            yield check.finding("pass", claim, label, value=0.0, **_NO_ADVICE)
            continue
        begun = odd["x"].min()
        onset = None if pd.isna(begun) or begun <= looked["x"] else int(begun)
        yield check.finding(
            "warn", f"{label}: {says(odd, looked)}.", label, value=float(len(odd)), onset=onset, born="forward",
            sites=tuple(odd["group"]),
        )  # fmt: skip


def _evaluated(odd: pd.DataFrame, looked: "pd.Series[Any]") -> str:
    """Say which norms stood still, and in which steps."""
    steps, since = int(odd["value"].max()), int(odd["x"].min())
    when = "all steps" if steps == looked["value"] else f"{steps} of {looked['value']:.0f} steps, first in step {since}"
    return f"a gradient came through {few_places(odd['group'])} in evaluation mode, in {when}"


def _detached(odd: pd.DataFrame, looked: "pd.Series[Any]") -> str:
    return f"from the gradient through {few_places(odd['group'])} nothing is removed in any step"


def _stream(rows: pd.DataFrame, label: str) -> Iterator[Finding]:
    """GL808: a block each that is beyond the law, or all stacks."""
    own = pick(rows, quantity="GL808")
    odd, looked = own[own["group"] != LOOKED_AT], own[own["group"] == LOOKED_AT]
    for _, row in odd.iterrows():
        if row["unit"] == LEVEL:
            what = f"{place(row['group'])} ends with a second moment of {number(row['value'])} before its norm"
            named, unit, expected = "level", LEVEL, "about 1 to 2"
        elif row["unit"] == EACH:
            what = f"every block of {row['stack']} makes the stream's second moment {number(row['value'])} times larger"
            what += " or more"
            named, unit, expected = "each", EACH, "at most 2 from the second block on"
        else:
            what = f"{place(row['group'])} adds {number(row['value'])} times as much to the stream as the median block"
            named, unit, expected = "times", "times the median block", "about 1"
        yield STREAM.finding(
            "warn", f"{label}: {what}.", label, value=float(row["value"]), unit=unit, expected=expected, born="forward",
            threshold=f"at most {STREAM.limit(named):g}", sites=(str(row["group"]),),
        )  # fmt: skip
    if odd.empty and len(looked):
        grows = listed([number(value) for value in looked["value"]])
        claim = f"{label}: from the first block to the last the stream's second moment grows by a factor of {grows}."
        yield STREAM.finding("pass", claim, label, **_NO_ADVICE)
