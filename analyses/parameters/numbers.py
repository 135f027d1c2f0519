"""What reaches the parameters: gradients by group over steps, and the numbers that the findings judge."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analyses.depth import blocks, gradient_norms
from analyses.heat import successive
from analyses.intervals import block_bootstrap_interval
from analyses.limits import limit
from analyses.parameters import gain, idle, moved, rate, still, whole
from analyses.parameters.lasting import since
from analyses.parameters.places import gradient_by_group, places
from analyses.scale_free.free import free
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
    yield from ({**who, "panel": GRADIENT, **row} for row in _picture(gradient_by_group(run)))
    steps = run.steps.set_index("step").sort_index()
    frozen = run.meta.get("frozen")
    told = frozen is not None or run.meta.get("kind") == "training"  # which froze nothing before it was said
    yield {**who, "panel": "summary", "quantity": "frozen is told", "value": float(told), "n": len(frozen or ())}
    trained = params[~params["name"].isin(frozen or ())]
    reached = [*_reached(trained)]
    rounding = {row["group"] for row in reached if row["value"] <= limit("GL401", "rounding")}
    for rows in (
        reached,
        whole.numbers(trained, run),
        _frozen_inside(params, frozen or (), run),
        _no_pass(params, run),
        _share(run),
        _clipping(steps),
        moved.numbers(params, set(free(params).query("free").index)),
        still.numbers(params[~params["name"].isin(rounding)], run),
        idle.numbers(params),
        gain.numbers(params, run),
        rate.numbers(steps),
    ):
        yield from ({**who, "panel": "summary", **row} for row in rows)


def _picture(norms: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield a cell a group and step, or a few successive steps; its value is missing where no gradient arrived."""
    for steps in successive(len(norms)):
        part = norms.iloc[steps]
        yield {"quantity": "norm", "group": norms.columns.to_numpy(dtype=object), "x": part.index[0],
               "value": part.mean().to_numpy(), "low": part.index[0], "high": part.index[-1], "unit": "loss/weight",
               "n": np.arange(norms.shape[1])}  # fmt: skip


def _reached(params: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield a row a parameter: its largest gradient over the model's usual one, by entry, in all steps but the first.

    ``high`` is the number of its entries. In the first step what stands behind a factor of 0 (ReZero, LoRA) has none.
    """
    if not (params["square"] > 0).any():
        return
    judged = params[params["step"] > params["step"].min()]
    rms = judged["grad_norm"] / np.sqrt(judged["numel"].where(judged["numel"] > 0, 1))
    usual = rms.where(rms > 0).groupby(judged["step"]).median()
    times = rms / judged["step"].map(usual)
    steps = int(judged.loc[judged["square"] > 0, "step"].nunique())
    largest = times.groupby(judged["name"], sort=False).max()
    found = params.drop_duplicates("name")[["name", "group", "block", "numel"]]
    for name, group, block, numel in found.itertuples(index=False):
        yield {"quantity": "reached", "group": name, "stack": group, "unit": "block" if block else "module",
               "value": largest.get(name, np.nan), "high": numel, "n": steps}  # fmt: skip


def _no_pass(params: pd.DataFrame, run: Recording) -> Iterator[dict[str, Any]]:
    """Yield in how many steps nothing came back to the model, where nothing ever did."""
    setting = (run.meta.get("audit") or {}).get("setting") or {}
    if list(setting.get("passes") or ()) == [0, 0] and params["square"].isna().all():
        yield {"quantity": "no pass", "value": params["name"].nunique(), "n": params["step"].nunique()}


def _frozen_inside(params: pd.DataFrame, frozen: Sequence[str], run: Recording) -> Iterator[dict[str, Any]]:
    """Yield the blocks that were frozen as a whole, between blocks of their stack of which nothing was."""
    found = places(run)
    still = found["name"].isin(frozen).groupby(found["group"], sort=False).mean()
    for _, stack in blocks(run).groupby("stack", sort=False):
        share = [float(still.get(site, np.nan)) for site in stack["site"]]
        for at, site in enumerate(stack["site"]):
            if share[at] == 1.0 and 0.0 in share[:at] and 0.0 in share[at + 1 :]:
                yield {"quantity": "frozen inside", "group": site, "stack": site, "n": params["step"].nunique()}


def _share(run: Recording) -> Iterator[dict[str, Any]]:
    """Yield the parameter whose mean share of the squared gradient at the end is the largest.

    And so of those that are a single number.
    """
    squares = gradient_norms(run).pow(2).fillna(0.0)
    whole = squares.sum(axis=1)
    shares = squares.div(whole.where(whole > 0), axis=0).dropna(how="all")
    if shares.empty:
        return
    end = shares.loc[at_the_end(shares.iloc[:, 0].fillna(0.0)).index]
    mean = end.mean()
    single = mean[mean.index.isin(run.params.loc[run.params["numel"] == 1, "name"])]
    # Single numbers that every block has are held against one another.
    kind = single.index.str.replace(r"\d+", "#", regex=True)
    usual = single.groupby(kind).transform("median").where(kind.duplicated(keep=False), 0.0)
    alone = single[single > limit("GL402", "equals") * usual].nlargest(1)
    for quantity, name in (("largest share", mean.idxmax()), *(("share of a number", name) for name in alone.index)):
        yield {"quantity": quantity, "group": name, "stack": span_of_steps(end[name]),
               **block_bootstrap_interval(end[name]).row(), "n": int((squares > 0).any().sum())}  # fmt: skip


def _clipping(steps: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield the share of steps that were clipped, and the median of the gradient after over before."""
    left = steps["clip_coef"].dropna() if "clip_coef" in steps else pd.Series(dtype=float)
    if left.empty:
        return
    clipped = left < limit("GL403", "clipped")
    yield {"quantity": "clipped", "value": clipped.mean(), "n": len(left)}
    yield {"quantity": "left by clipping", "value": left.median(), "n": len(left)}
    start = since(clipped)
    if start is not None and start > left.index.min():
        tail = left[left.index >= start]
        yield {"quantity": "left by clipping in the end", "value": tail.median(), "n": len(tail), "x": start}
