"""The gradient norm at the end of training over what one should expect: of the whole, and block by block."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analyses.depth import WHOLE, gradient_by_block
from analyses.intervals import Interval, block_bootstrap_interval, log_t_interval
from analyses.limits import limit
from analyses.others import median_of_others
from analyses.tables import identity, number, pick, tidy
from gradlens.analysis.ending import at_the_end, span_of_steps
from gradlens.recording import Recording
from gradlens.recording.alignment import aligned, parameters

#: Where an expectation comes from.
REFERENCE, SEEDS, START, OTHERS = (
    "reference run",
    "own initialization, over seeds",
    "own first step",
    "the other blocks",
)

#: Fewer steps have no interval.
FEWEST = 4


def compute(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Return measured gradient norms, what is expected of each, and their ratio.

    Args:
        recordings: of any kind; one of kind ``reference`` is what the others are held against.
    """
    reference = next((r for r in recordings if r.meta.get("kind") == "reference"), None)
    at_init = {
        str(r.meta.get("variant")): r for r in recordings if r.meta.get("kind") == "init" and r.meta.get("variant")
    }
    runs = [r for r in recordings if r.meta.get("kind") not in ("init", "reference") and len(r.steps)]
    return tidy({"panel": "summary", **identity(run), **row} for run in runs for row in _rows(run, reference, at_init))


def _rows(run: Recording, reference: Recording | None, at_init: dict[str, Recording]) -> Iterator[dict[str, Any]]:
    norms = _finite(run)
    if len(norms) < FEWEST:
        return
    end, first = _mean(at_the_end(norms)), int(norms.index[0])
    yield {"quantity": "measured", "stack": span_of_steps(at_the_end(norms)), **end.row()}
    same = 0.0 if reference is None else parameters(run, reference).share
    if reference is not None and same < limit("GL311", "common"):
        yield {"quantity": "another model", "group": reference.label, "value": same}
    elif reference is not None and len(theirs := _finite(reference)) >= FEWEST:
        yield from _held(REFERENCE, reference.label, end, _mean(at_the_end(theirs)), len(at_the_end(theirs)))
        yield from _by_block(run, reference)
    variant = str(run.meta.get("variant"))
    if variant in at_init and len(seeds := _finite(at_init[variant])):
        yield from _held(SEEDS, at_init[variant].label, end, log_t_interval(seeds.to_numpy()), len(seeds))
    elif first == 0 and len(norms) > len(at_the_end(norms)):
        alone = Interval(float(norms.iloc[0]), math.nan, math.nan, 1)
        yield from _held(START, f"step {first}", end, alone, 1)
    yield from _beside(run)


def _held(source: str, whose: str, measured: Interval, expected: Interval, n: int) -> Iterator[dict[str, Any]]:
    """Yield what is expected, and measured over expected with both intervals in it."""
    yield {"quantity": "expected", "group": source, "stack": whose, **expected.row()}
    yield {"quantity": "ratio", "group": source, "stack": whose, **_over(measured, expected).row(), "n": n}


def _over(top: Interval, bottom: Interval) -> Interval:
    """Return a ratio whose relative variances add; an end without an interval counts as exact."""
    value = top.value / bottom.value
    halves = [math.log(one.high / one.low) / 2 for one in (top, bottom) if one.low > 0]
    half = math.hypot(*halves) if halves else math.nan
    return Interval(value, value * math.exp(-half), value * math.exp(half), top.n)


def _finite(run: Recording) -> pd.Series:
    norms: pd.Series[float] = run.steps.set_index("step")["grad_norm"].sort_index()
    return norms.where(np.isfinite(norms) & (norms > 0)).dropna()


def _mean(norms: pd.Series) -> Interval:
    """Return the geometric mean of a series of steps."""
    return block_bootstrap_interval(np.log(norms)).mapped(math.exp)


def _blocks(run: Recording) -> pd.DataFrame:
    """Return the gradient norm of each block at the end of training, a column a block."""
    gradients = gradient_by_block(run)
    whole = gradients[(gradients["group"] == WHOLE) & (gradients["grad_norm"] > 0)]
    wide = whole.assign(at=whole["stack"] + "." + whole["block"].astype(str)).pivot_table(
        "grad_norm", "step", "at", "mean", sort=False
    )
    return wide.dropna() if wide.empty else wide.loc[at_the_end(wide.iloc[:, 0].fillna(0.0)).index].dropna()


def _by_block(run: Recording, reference: Recording) -> Iterator[dict[str, Any]]:
    """Yield each block's gradient norm over the same block's of the reference run, be it called otherwise there."""
    own, theirs = _blocks(run), _blocks(reference)
    same = aligned(*(dict.fromkeys(map(str, blocks)) for blocks in (own, theirs))).pairs
    for name, its in same.items() if min(len(theirs), len(own)) >= FEWEST else ():
        ratio = _over(_mean(own[name]), _mean(theirs[its]))
        yield {"quantity": "block ratio", "group": REFERENCE, "stack": name, **ratio.row()}


def _beside(run: Recording) -> Iterator[dict[str, Any]]:
    """Yield each block's gradient norm over the median of the others in the same steps."""
    own = _blocks(run)
    if len(own.columns) < 3 or len(own) < FEWEST:
        return
    logs = np.log(own.to_numpy(dtype=float))
    apart = logs - median_of_others(logs)
    for at, name in enumerate(own):
        ratio = block_bootstrap_interval(apart[:, at]).mapped(math.exp)
        yield {"quantity": "block ratio", "group": OTHERS, "stack": str(name), **ratio.row()}


def show(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return what was measured beside what is expected, a row an expectation.

    Args:
        table: of ``compute``.
    """
    rows = []
    for label, own in table.groupby("label", sort=False):
        measured = pick(own, quantity="measured").iloc[0]
        expected = pick(own, quantity="expected").set_index("group")
        for _, ratio in pick(own, quantity="ratio").iterrows():
            wanted = expected.loc[ratio["group"]]
            rows.append(
                {
                    "recording": label, "norm": number(measured["value"]), "over": measured["stack"],
                    "expected": number(wanted["value"]), "from": f"{ratio['group']} ({ratio['stack']})",
                    "ratio": f"{ratio['value']:.3g}",
                }
            )  # fmt: skip
    return {"What the gradient norm is, and what one should expect.": pd.DataFrame(rows)} if rows else {}
