"""What ``parting`` says: GL321 where two runs part, GL322 whether it matters, GL323 two implementations.

GL324, whether gradients keep their size, is in ``sizes``.
"""

from functools import partial

import pandas as pd

from analyses.limits import held_against
from analyses.making import Check, codes
from analyses.parting import sizes
from analyses.tables import first, listed, number, percent, pick, span
from gradlens.analysis import Finding, Status
from gradlens.analysis.finding import place

_check = partial(Check, analysis="parting")

_PARTS = _check(
    code="GL321",
    explanation=(
        "Where two runs part. Everything that both recorded of the same step and place is paired: weights, "
        "activations, losses, gradients, updates. Runs of the same weights and batches agree bit for bit up to the "
        "step in which something else happens, and that step, place and pass are named; where they differ from the "
        "first step on as rounding does, it is the first difference of more than {single:g} of a number (in half "
        "precision {half:g}). Names that wrappers change (torch.compile, DataParallel, FSDP, PEFT) are understood. It "
        "warns where runs that began the same part; with --margin it only tells, for they may differ. It is silent "
        "where they never were the same: other weights or other batches in the first step."
    ),
    unit="of the number",
    expected="no difference but rounding",
    expected_from="the same weights, batches and settings",
    threshold="{single:g} of a number ({half:g} in half precision); any, where they agreed bit for bit before",
    causes=(
        "A setting that was changed on purpose: see which ones differ (innocent).",
        "Kernels that do not repeat their bits, another number of threads, another device (innocent).",
        "Random numbers that are drawn in another order: dropout, augmentation, sampling.",
        "A batch that differs from that step on: another order, a worker more, a resumed loader.",
        "A checkpoint that did not restore all: the optimizer's state, the schedule, the random numbers.",
    ),
    remedies=(
        "Look at what the step and place named have in common with what was changed.",
        "Repeat one run as it is: where it parts from itself, the difference is no news.",
    ),
    explains=("GL322",),
)
_MATTERS = _check(
    code="GL322",
    explanation=(
        "Whether the difference between two runs matters. The loss of the second run less that of the first, paired by "
        "step over the end of the steps that both have, as a share of the first's, with an interval from the noise of "
        "the steps. It warns where the second is higher by more than {most:g}, the interval included; of runs that "
        "never were the same, other seeds included, by more than {seeds:g}. --margin sets the share, beyond which it "
        "fails. Runs of other arrangements or schedules are told apart, and not judged without --margin. The first "
        "named is the one before."
    ),
    unit="of the first's loss",
    expected="at most {most:g}",
    expected_from="the first run",
    causes=(
        "Another loss, batch or data: the losses are not of the same thing (innocent).",
        "Chance: other seeds end elsewhere (innocent).",
        "The change that was made is for the worse.",
    ),
    remedies=("Train both over several seeds before you decide.", "Look at where they part: GL321."),
)
_IMPLEMENTATIONS = _check(
    code="GL323",
    explanation=(
        "Two implementations of one model. Both are built with the same seed, the second takes the first's weights "
        "where names and shapes map, and both run forward and backward once on the first's batch, with the same "
        "random numbers, in float64 where both can. Every module's output and gradient, and every parameter's "
        "gradient, are held against each other where both have them. It warns where an output differs by more than "
        "{float64:g} of its norm ({own:g} where a model does not run in float64), or a gradient by {gradients:g} "
        "times that: the first is named, and what agreed just before. It is silent where fewer than half of the "
        "weights map."
    ),
    unit="of the norm",
    expected="no difference but rounding",
    expected_from="the same weights and the same batch",
    causes=(
        "Dropout that is drawn in another order: build both in evaluation mode (innocent).",
        "Weights that do not map, and so are not the same (innocent).",
        "Another eps, activation or scale at the place named, or between it and what agreed before.",
        "A mask, a position or a sum over other axes.",
        "A detach() or a custom backward, where outputs agree and gradients do not.",
    ),
    remedies=("Compare the code at the place named with the other's.", "Rename the weights that do not map."),
)
#: Of a loss; smaller shares are written as none.
_SAME = 5e-4
CODES = codes(_PARTS, _MATTERS, _IMPLEMENTATIONS, sizes.CHECK)


def judge(table: pd.DataFrame) -> list[Finding]:
    """Return the findings of two runs, or of two implementations; none where there are neither.

    Args:
        table: of ``compute``.
    """
    found = []
    for label, rows in table.groupby("label", sort=False):
        if len(pick(rows, quantity="pair")):
            found += [_parted(rows, str(label)), _mattering(rows, str(label)), *sizes.sized(rows, str(label))]
        if len(pick(rows, quantity="implementations")):
            found.append(_implementations(rows, str(label)))
    return found


def _parted(rows: pd.DataFrame, label: str) -> Finding:
    before, common = (pick(rows, quantity=what).iloc[0] for what in ("pair", "aligned"))
    whose = f"{label} and {before['stack']}"
    apart, at = (first(pick(rows, quantity=what)) for what in ("apart", "parted"))
    if common["value"] < _PARTS.limit("common"):
        claim = f"{whose} are of other models: {percent(common['value'])} of the parameters are the same."
        return _PARTS.silent(claim, label)
    if apart is None:
        claim = f"{whose} have no recorded step in common: record both with the same every=."
        return _PARTS.silent(claim, label)
    if at is None:
        how = "bit for bit" if apart["low"] else f"but for rounding (at most {number(apart['value'])} of a number)"
        return _PARTS.finding("pass", f"{whose} are the same {how} in {_steps(apart['n'])}.", label, apart,
                              low=None, high=None)  # fmt: skip
    never = first(pick(rows, quantity="never the same"))
    if never is not None:
        return _PARTS.silent(f"{whose} {_never(never, at)}; only their ends can be compared.", label)
    onset = int(at["x"])
    purpose = [str(row["group"]) for _, row in pick(rows, quantity="by design").iterrows()]
    status: Status = "pass" if purpose or len(pick(rows, quantity="margin")) else "warn"
    claim = f"{whose} part {_when(at, apart)}, {_where(at)}{_among(at)}"
    beyond = first(pick(rows, quantity="beyond rounding"))
    rate = first(pick(rows, quantity="learning rate"))
    if rate is not None and rate["x"] <= onset:
        claim += f"; the learning rate is another from step {rate['x']:.0f} on"
    if at["n"] and beyond is not None and beyond["x"] > onset:
        claim += f"; from step {beyond['x']:.0f} on they differ by more than rounding would make"
    if purpose:
        claim += f"; they are of another {listed(purpose)} on purpose"
    sites = tuple(dict.fromkeys(map(str, [at["group"], *pick(rows, quantity="parted too")["group"]])))
    return _PARTS.finding(
        status, f"{claim}.", label, at, low=None, high=None, onset=onset, born=str(at["unit"]), steps=(onset,),
        sites=tuple(filter(None, sites)),
    )  # fmt: skip


def _never(never: pd.Series, at: pd.Series) -> str:
    """Tell that they are not the same in the first step that both recorded, and in what."""
    step, what = int(never["x"]), "input: other batches, or something else before the first place that is recorded"
    if never["group"] == "weights":
        what = f"weights, first {at['group']}{_among(at)}: other seeds, or another checkpoint"
    since = "never were the same: in step 0" if step == 0 else f"had parted before: in step {step}"
    return f"{since}, the first that both recorded, they differ in their {what}"


def _steps(count: float) -> str:
    return "the one step that both recorded" if count == 1 else f"all {count:.0f} steps that both recorded"


def _when(at: pd.Series, apart: pd.Series) -> str:
    if at["x"] == apart["x"]:
        return f"in the first step that both recorded ({at['x']:.0f})"
    return f"in step {at['x']:.0f}{', having agreed bit for bit before' if at['n'] else ''}"


def _where(at: pd.Series) -> str:
    """Tell the place and the pass."""
    what, site = str(at["stack"]), place(str(at["group"]))
    if what == "weights":
        return f"in the weights that it began with, first {site}: what changed them before was not the same"
    if what == "update":
        return f"in the optimizer's update, first of {site}"
    if what == "loss":
        return "in the loss, all activations that are recorded being the same"
    born = "backward pass, all of the forward pass being the same" if at["unit"] == "backward" else "forward pass"
    return f"in the {born}, first in the {what} of {site}"


def _among(at: pd.Series) -> str:
    """Tell by how much they differ there, and how many of the same kind do, where there are several."""
    others = "" if at["high"] <= 1 else f"; {at['low']:.0f} of {at['high']:.0f} such places differ in that step"
    return f" (by {number(at['value'])} of its size{others})"


def _mattering(rows: pd.DataFrame, label: str) -> Finding:
    before, common = (pick(rows, quantity=what).iloc[0] for what in ("pair", "aligned"))
    margin, lost, loss = (first(pick(rows, quantity=what)) for what in ("margin", "loss lost", "loss"))
    if margin is None and common["value"] < _PARTS.limit("common"):
        return _MATTERS.silent(f"{label} and {before['stack']} are of other models: set --margin to judge.", label)
    outside: Status = "warn" if margin is None else "fail"  # of a limit that somebody set
    if lost is not None:
        claim = (
            f"{label} is worse than {before['stack']}: in {lost['value']:.0f} of the last {lost['n']:.0f} steps that "
            f"both have, from step {lost['x']:.0f} on, its loss is no number."
        )
        return _MATTERS.finding(outside, claim, label, steps=(int(lost["x"]),), threshold="a loss that is a number")
    if loss is None:
        claim = f"{label} and {before['stack']} have too few steps with a loss in common: pass it to step(loss=...)."
        return _MATTERS.silent(claim, label)
    never = len(pick(rows, quantity="never the same")) > 0
    most = _MATTERS.limit("seeds" if never else "most") if margin is None else margin["value"]
    status = held_against(loss["low"], loss["high"], most=most, outside=outside)
    one, other = (pick(rows, quantity=f"loss {what}").iloc[0]["value"] for what in ("before", "after"))
    word = {"pass": "does not matter", "warn": "is for the worse", "fail": "is for the worse"}.get(
        status, "may be for the worse"
    )
    word = "is for the better" if loss["high"] < 0 else word
    share = f"{percent(abs(loss['value']))} {'higher' if loss['value'] > 0 else 'lower'}"
    share = "the same" if abs(loss["value"]) < _SAME else f"{share}{span(loss, percent, without='')}"
    claim = (
        f"The difference {word}: over {loss['stack']} the loss of {label} is {number(other)}, that of "
        f"{before['stack']} {number(one)}, {share}{_of_gradients(rows)}."
    )
    if margin is None and len(pick(rows, quantity="by design")):
        kinds = listed(pick(rows, quantity="by design")["group"])
        return _MATTERS.silent(f"{claim[:-1]}; they are of another {kinds} on purpose: set --margin to judge.", label)
    threshold = f"at most {percent(most)} above the first{', of runs that never were the same' * never}"
    return _MATTERS.finding(status, claim, label, loss, threshold=threshold, expected=f"at most {most:g}")


def _of_gradients(rows: pd.DataFrame) -> str:
    whole, blocks = first(pick(rows, quantity="gradient ratio")), pick(rows, quantity="block ratio")
    if whole is None:
        return ""
    told = f"; its gradient norm is {number(whole['value'])} times the other's"
    if len(blocks) > 1:
        blocks = blocks.sort_values("value", kind="stable")
        least, most = blocks.iloc[0], blocks.iloc[-1]
        told += f", of single blocks {number(least['value'])} ({place(least['group'])}) to {number(most['value'])} "
        told += f"({place(most['group'])}) times"
    return told


def _held(count: float, largest: float) -> str:
    return f"{count:.0f} places are the same " + ("bit for bit" if not largest else f"within {number(largest)}")


def _implementations(rows: pd.DataFrame, label: str) -> Finding:
    pair = pick(rows, quantity="implementations").iloc[0]
    whose, tolerance = f"{label} and {pair['stack']}", pair["low"]
    if pair["value"] < _IMPLEMENTATIONS.limit("common") or not pair["n"]:
        claim = f"{whose} cannot be held against each other: {percent(pair['value'])} of the weights map."
        return _IMPLEMENTATIONS.silent(claim, label, remedies=("Name modules and weights alike in both.",))
    precision = "float64" if pair["unit"] == "float64" else "their own precision"
    how = f"on the same weights and batch, in {precision}"
    most = number(tolerance * _IMPLEMENTATIONS.limit("gradients"))
    threshold = f"at most {number(tolerance)} of the norm, of gradients {most}"
    at, same = first(pick(rows, quantity="differs")), first(pick(rows, quantity="agreed before"))
    unmapped = len(rows[rows["quantity"].isin(["weights removed", "weights added"])])
    beside = f"; {unmapped} weights do not map, and are each model's own" if unmapped else ""
    if at is None:
        largest = pick(rows, quantity="largest difference").iloc[0]["value"]
        claim = f"{whose} do the same {how}: {_held(pair['n'], float(largest))}{beside}."
        return _IMPLEMENTATIONS.finding("pass", claim, label, value=float(largest), threshold=threshold)
    born = "forward" if str(at["stack"]).startswith("output") else "backward"
    site = place(str(at["group"]))
    before = "" if same is None else f"; the same before it is the {same['stack']} of {place(same['group'])}"
    claim = (
        f"{whose} do not do the same {how}: first in the {born} pass, the {at['stack']} of {site}, by "
        f"{number(at['value'])} of its norm{before}{beside}."
    )
    sites = tuple(dict.fromkeys(str(name) for name in pick(rows, quantity="differs")["group"] if name))
    return _IMPLEMENTATIONS.finding("warn", claim, label, value=float(at["value"]), threshold=threshold, born=born,
                                    sites=sites[:3])  # fmt: skip
