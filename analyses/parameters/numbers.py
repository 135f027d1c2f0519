"""What reaches the parameters: gradients by group over steps, and the numbers that the findings judge."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analyses.heat import successive
from analyses.intervals import block_bootstrap_interval
from analyses.limits import limit
from analyses.parameters.places import places
from analyses.tables import identity, tidy
from gradlens.analysis.ending import at_the_end, span_of_steps
from gradlens.recording import Recording

#: The panel of the picture; a row is a cell: ``low`` and ``high`` its first and last step, ``n`` its place downwards.
GRADIENT = "gradient"


def compute(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Return the gradient norm of every group over the steps, and the numbers judged.

    Args:
        recordings: those that are not of kind ``init`` are used.
    """
    runs = [r for r in recordings if r.meta.get("kind") != "init" and len(r.params)]
    return tidy(row for run in runs for row in _rows(run))


def _rows(run: Recording) -> Iterator[dict[str, Any]]:
    who = identity(run)
    params = run.params.merge(places(run), on="name", how="left").sort_values("step", kind="stable")
    params["square"] = params["grad_norm"] ** 2
    yield from ({**who, "panel": GRADIENT, **row} for row in _picture(params))
    steps = run.steps.set_index("step").sort_index()
    frozen = run.meta.get("frozen")
    told = frozen is not None or run.meta.get("kind") == "training"  # which froze nothing before it was said
    yield {**who, "panel": "summary", "quantity": "frozen is told", "value": float(told), "n": len(frozen or ())}
    for rows in (
        _reached(params[~params["name"].isin(frozen or ())]),
        _share(params),
        _clipping(steps),
        _updates(params),
    ):
        yield from ({**who, "panel": "summary", **row} for row in rows)


def _picture(params: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield a cell a group and step, or a few successive steps; its value is missing where no gradient arrived."""
    squares = params.pivot_table("square", "step", "group", "sum", dropna=False, sort=False, observed=True)
    there = params.assign(there=params["square"].notna()).pivot_table("there", "step", "group", "any", sort=False)
    norms = squares.where(there.astype(bool)).pow(0.5)[list(dict.fromkeys(params["group"]))]
    for steps in successive(len(norms)):
        part = norms.iloc[steps]
        for place, (group, values) in enumerate(part.items()):
            mean = values.mean() if values.notna().any() else np.nan
            yield {"quantity": "norm", "group": str(group), "x": part.index[0], "value": mean, "low": part.index[0],
                   "high": part.index[-1], "unit": "loss/weight", "n": place}  # fmt: skip


def _reached(params: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield a row a parameter: its largest gradient over the model's usual one, by entry, in all steps but the first.

    In the first step what stands behind a factor of 0 (ReZero, LoRA) has none.
    """
    if not (params["square"] > 0).any():
        return
    judged = params[params["step"] > params["step"].min()]
    rms = judged["grad_norm"] / np.sqrt(judged["numel"].where(judged["numel"] > 0, 1))
    usual = rms.where(rms > 0).groupby(judged["step"]).median()
    times = rms / judged["step"].map(usual)
    steps = int(judged.loc[judged["square"] > 0, "step"].nunique())
    largest = times.groupby(judged["name"], sort=False).max()
    found = params[["name", "group", "block"]].drop_duplicates()
    for name, group, block in found.itertuples(index=False):
        yield {"quantity": "reached", "group": name, "stack": group, "unit": "block" if block else "module",
               "value": largest.get(name, np.nan), "n": steps}  # fmt: skip


def _share(params: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield the parameter whose mean share of the squared gradient at the end is the largest."""
    squares = params.pivot_table("square", "step", "name", "sum", sort=False)
    whole = squares.sum(axis=1)
    shares = squares.div(whole.where(whole > 0), axis=0).dropna(how="all")
    if shares.empty:
        return
    end = shares.loc[at_the_end(shares.iloc[:, 0].fillna(0.0)).index]
    name = end.mean().idxmax()
    yield {"quantity": "largest share", "group": name, "stack": span_of_steps(end[name]),
           **block_bootstrap_interval(end[name]).row(), "n": int((squares > 0).any().sum())}  # fmt: skip


def _clipping(steps: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield the share of steps that were clipped, and the median of the gradient after over before."""
    left = steps["clip_coef"].dropna() if "clip_coef" in steps else pd.Series(dtype=float)
    if left.empty:
        return
    clipped = left < limit("GL403", "clipped")
    yield {"quantity": "clipped", "value": clipped.mean(), "n": len(left)}
    yield {"quantity": "left by clipping", "value": left.median(), "n": len(left)}


def _updates(params: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield update over weight of the matrices: the geometric mean over steps of their median, and its largest."""
    moved = params[params["matrix"].astype(bool) & (params["weight_norm"] > 0) & np.isfinite(params["update_norm"])]
    if moved.empty:
        return
    medians = (moved["update_norm"] / moved["weight_norm"]).groupby(moved["step"]).median()
    above = medians[medians > 0]
    usual = block_bootstrap_interval(np.log(above)).mapped(math.exp).row() if len(above) else {"value": 0.0}
    fixed: Mapping[str, Any] = {"group": span_of_steps(medians)}
    yield {**fixed, "quantity": "update over weight", **usual}
    largest = {"value": medians.max(), "x": medians.idxmax(), "n": len(medians)}
    yield {**fixed, "quantity": "largest update over weight", **largest}
