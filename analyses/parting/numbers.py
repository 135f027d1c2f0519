"""Where two runs part, how far they are apart at the end, and what differs between them."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analyses.depth import WHOLE, gradient_by_block
from analyses.intervals import Interval, block_bootstrap_interval
from analyses.limits import limit
from analyses.parting import implementations
from analyses.parting.differences import BACKWARD, FORWARD, LOSS, UPDATE, WEIGHTS, differences, in_order
from analyses.parting.settings import alignments, settings
from analyses.tables import identity, tidy
from gradlens.analysis.ending import at_the_end, span_of_steps
from gradlens.recording import Recording
from gradlens.recording.alignment import Alignment, plain

#: Fewer steps have no interval.
FEWEST = 4
#: Points of a line in the figure.
POINTS = 200
#: Part of a step to the pass that makes it.
BORN = {WEIGHTS: "update", FORWARD: "forward", LOSS: "forward", BACKWARD: "backward", UPDATE: "update"}
_HALVES = ("float16", "bfloat16")


def compute(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Return what there is to say of two runs: nothing where there are more, or fewer.

    Args:
        recordings: the first run that is not of kind ``init`` is the one before, the second the one after; with a
            margin the reference is the one before.
    """
    rows = [row for pair in _pairs(recordings) for row in _rows(*pair)]
    return tidy([*rows, *implementations.rows(recordings)])


def _pairs(recordings: Sequence[Recording]) -> list[tuple[Recording, Recording]]:
    """Return two runs as one pair; where a margin is asked for, each run with the reference if there is one."""
    trained = [r for r in recordings if r.meta.get("kind") != "init" and len(r.steps)]
    runs = [r for r in trained if r.meta.get("kind") != "reference"]
    known = [r for r in trained if r.meta.get("kind") == "reference" and "margin" in r.meta]
    if known:
        return [(known[0], run) for run in runs]
    return [(runs[0], runs[1])] if len(runs) == 2 else []


def _rows(before: Recording, after: Recording) -> Iterator[dict[str, Any]]:
    fixed = {"panel": "summary", **identity(after)}
    for row in (*_pair(before, after), *_judged(before, after)):
        yield {**fixed, **row}


def _pair(before: Recording, after: Recording) -> Iterator[dict[str, Any]]:
    """Yield whose the runs are, what differs on purpose, and the margin that was asked for."""
    yield {"quantity": "pair", "stack": before.label}
    margin = after.meta.get("margin")
    if margin is not None:
        yield {"quantity": "margin", "value": float(margin)}
    for what in ("variant", "schedule"):
        one, other = (run.meta.get(what) for run in (before, after))
        if one and other and one != other:
            yield {"quantity": "by design", "group": what, "stack": str(one), "unit": str(other)}


def _judged(before: Recording, after: Recording) -> Iterator[dict[str, Any]]:
    names, sites = alignments(before, after)
    common = names.share
    yield {"quantity": "aligned", "value": common, "n": len(names.pairs)}
    yield from _losses(before, after)
    if common < limit("GL321", "common"):
        return
    for name, one, other in settings(before, after):
        yield {"quantity": "setting", "group": name, "stack": one, "unit": other}
    for what, alignment in (("parameter", names), ("site", sites)):
        yield from _not_the_same(what, alignment)
    yield from _parted(differences(before, after, names, sites), _tolerance(before, after), after)
    yield from _rates(before, after)
    yield from _gradients(before, after)


def _not_the_same(what: str, alignment: Alignment) -> Iterator[dict[str, Any]]:
    for one, other in alignment.renamed.items():
        yield {"quantity": f"{what} renamed", "group": one, "stack": other}
    for change, changed in (("removed", alignment.removed), ("added", alignment.added)):
        for name in changed:
            yield {"quantity": f"{what} {change}", "group": name}


def _tolerance(*runs: Recording) -> float:
    """Return the relative difference that is rounding's, by the precision of the runs."""
    said = [(run.meta.get("audit") or {}).get("setting") or {} for run in runs]
    dtypes = {dtype for one in said for dtype in (one.get("autocast"), *(one.get("input_dtypes") or ()))}
    return limit("GL321", "half" if dtypes & set(_HALVES) else "single")


def _parted(apart: pd.DataFrame, tolerance: float, after: Recording) -> Iterator[dict[str, Any]]:
    """Yield the first place at which the runs part.

    Where they agree bit for bit in the whole first step that both recorded, nothing rounds differently in one of them,
    and the first difference at all is the place; else the first that is beyond rounding.
    """
    if apart.empty:
        return
    first, count, unequal = apart["step"].min(), apart["step"].nunique(), apart["difference"] > 0
    # A bias in front of a norm, or of attention's keys, has a gradient that is 0 but for rounding, and Adam makes a
    # step of it.
    exact = ~apart["site"].isin([site for site in apart["site"].unique() if site.endswith("bias")])
    beyond = exact & (apart["difference"] > tolerance)
    largest = apart.loc[exact, "difference"].max()
    yield {"quantity": "apart", "x": first, "value": largest, "n": count, "low": float(not unequal.any())}
    if not beyond.any():
        return
    steps = [first, apart.loc[unequal, "step"].min(), apart.loc[beyond, "step"].min()]
    rows = in_order(apart.assign(beyond=beyond)[apart["step"].isin(steps)], after)
    bitwise = steps[1] > first
    at = rows[rows["difference"] > 0 if bitwise else rows["beyond"]].iloc[0]
    told = rows[(rows["step"] == at["step"]) & (rows["pass"] == at["pass"]) & (rows["what"] == at["what"])]
    differing = told[told["difference"] > (0 if bitwise else tolerance)]
    yield {
        "quantity": "parted", "x": at["step"], "group": at["site"], "stack": at["what"], "unit": BORN[at["pass"]],
        "value": at["difference"], "low": len(differing), "high": len(told), "n": float(bitwise),
    }  # fmt: skip
    for site in differing["site"].drop_duplicates().iloc[1:3]:
        yield {"quantity": "parted too", "group": site}
    if at["step"] == first and _never_the_same(rows[rows["step"] == first], at):
        yield {"quantity": "never the same", "group": "weights" if at["pass"] == WEIGHTS else "input", "x": first}
    yield {"quantity": "beyond rounding", "x": steps[2]}


def _never_the_same(step: pd.DataFrame, at: pd.Series) -> bool:
    """Whether they differ before the first place that is looked at: in the weights, or in what comes in."""
    if at["pass"] == WEIGHTS:
        return True
    forward = step[step["pass"].isin([FORWARD, LOSS])]
    return bool(at["pass"] in (FORWARD, LOSS) and at["at"] == forward["at"].iloc[0])


def _losses(before: Recording, after: Recording) -> Iterator[dict[str, Any]]:
    one, other = (run.steps.set_index("step")["loss"].sort_index() for run in (before, after))
    one = one[np.isfinite(one)]
    steps = one.index.intersection(other.index)
    one, other = one.loc[steps], other.loc[steps]
    if len(one) < FEWEST:
        return
    end = at_the_end(one)
    there = other.loc[end.index]
    lost = there[~np.isfinite(there)]
    if len(lost):
        yield {"quantity": "loss lost", "x": lost.index[0], "value": len(lost), "n": len(end)}
        return
    scale = max(abs(end.mean()), limit("GL322", "floor") * abs(one.iloc[0]))
    apart = block_bootstrap_interval((there - end) / scale) if scale > 0 else Interval(0.0, 0.0, 0.0, len(end))
    yield {"quantity": "loss", "stack": span_of_steps(end), "x": end.index[0], **apart.row()}
    yield {"quantity": "loss before", "value": end.mean()}
    yield {"quantity": "loss after", "value": there.mean()}
    yield from _curve("loss", "", (other - one)[np.isfinite(other)])


def _rates(before: Recording, after: Recording) -> Iterator[dict[str, Any]]:
    """Yield the first step in which the learning rates differ."""
    both = before.steps[["step", "lr"]].merge(after.steps[["step", "lr"]], on="step").dropna().sort_values("step")
    other = both[both["lr_x"] != both["lr_y"]]
    if len(other):
        yield {"quantity": "learning rate", "x": other["step"].iloc[0]}


def _gradients(before: Recording, after: Recording) -> Iterator[dict[str, Any]]:
    """Yield the ratio of gradient norms, of the whole and by block: at the end, and over the steps."""
    norms = [run.steps.set_index("step")["grad_norm"].sort_index() for run in (before, after)]
    yield from _ratio("gradient ratio", "whole model", *norms)
    removed = [run.norms.groupby("step")["rescaling"].mean() for run in (before, after)]
    yield from list(_ratio("rescaling ratio", "norms", *removed))[:1]  # without its line in the figure
    one, other = (_by_block(run) for run in (before, after))
    for name in one:
        if name in other:
            yield from _ratio("block ratio", str(name), one[name], other[name])


def _by_block(run: Recording) -> pd.DataFrame:
    """Return the gradient norm of each block by step, a column a block, named without wrappers."""
    gradients = gradient_by_block(run)
    whole = gradients[gradients["group"] == WHOLE]
    at = (whole["stack"] + "." + whole["block"].astype(str)).str.removeprefix(".")
    short = plain(dict.fromkeys(at.drop_duplicates()))
    return whole.assign(at=at.map(short)).pivot_table("grad_norm", "step", "at", "mean", sort=False)


def _ratio(quantity: str, name: str, one: pd.Series, other: pd.Series) -> Iterator[dict[str, Any]]:
    ratio = (other / one).where((one > 0) & (other > 0))
    ratio = ratio[np.isfinite(ratio)].sort_index()
    if len(ratio) >= FEWEST:
        end = block_bootstrap_interval(np.log(at_the_end(ratio))).mapped(math.exp)
        yield {"quantity": quantity, "group": name, **end.row()}
        for row in _curve("gradient", name, ratio.map(math.log)):
            yield {**row, "value": math.exp(row["value"])}


def _curve(panel: str, group: str, series: pd.Series) -> Iterator[dict[str, Any]]:
    """Yield a line of the figure, in means over successive steps."""
    for steps in np.array_split(np.arange(len(series)), min(POINTS, len(series))) if len(series) else ():
        part = series.iloc[steps]
        yield {"panel": panel, "quantity": "curve", "group": group, "x": part.index[0], "value": part.mean()}
