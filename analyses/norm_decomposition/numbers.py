"""What each norm does to the gradient: the shares it re-centers away, re-scales away, and lets through."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analyses.intervals import block_bootstrap_interval, log_t_interval, t_interval
from analyses.steps import LONG, envelope, smoothed
from analyses.tables import identity, tidy
from gradlens.analysis.ending import at_the_end, length_of_end, span_of_steps
from gradlens.recording import Recording
from gradlens.recording.derive import repeated

#: Column of the ``norms`` table to the title of its panel and the unit of its axis, in the figure's order.
QUANTITIES = {
    "recentering": ("Re-centering", "share of ‖g‖²"),
    "rescaling": ("Re-scaling", "share of ‖g‖²"),
    "kept": ("Kept", "share of ‖g‖²"),
    "inv_sigma": ("1/σ", "1/input"),
}
_SHARES = ("recentering", "rescaling", "kept")
_NORMS = ("grad_output_norm", "grad_input_norm")
#: Shares that a gradient without preferred direction loses: 1/H along any one direction.
REMOVED = ("recentering", "rescaling")
#: Norms over space, whose gradients have a direction of their own (constant behind a mean over space).
_OVER_SPACE = ("batchnorm", "groupnorm", "instancenorm")
#: Squares of float32 end at 1e-38: a mean square so far above them is of numbers whose squares are exact.
_SQUARES = 1e-32
#: Panels: over the norms at initialization, over the steps of training.
DEPTH, TIME = "init", "training"


def compute(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Return shares and 1/σ of every norm at initialization, their means in training, and their checks.

    Args:
        recordings: of any kind; those of kind ``init`` are averaged over seeds, others followed over steps.
    """
    return tidy(row for recording in recordings if len(recording.norms) for row in _rows(recording))


def _rows(recording: Recording) -> Iterator[dict[str, Any]]:
    who, norms = identity(recording), recording.norms
    order = recording.sites.set_index("site")["order"].sort_values()
    place = {site: k + 1 for k, site in enumerate(order[order.index.isin(norms["site"].unique())].index)}
    sites = _by_site(norms)
    yield from _checks(norms, who)
    yield from _eps(recording, who)
    if recording.meta.get("kind") == "init":
        yield from _over_depth(sites, place, who)
        over_space = recording.sites.loc[recording.sites["norm"].isin(_OVER_SPACE), "site"]
        yield from _against_random(sites[~sites["site"].isin(over_space)], who)
    else:
        yield from _over_time(sites, who)


def _by_site(norms: pd.DataFrame) -> pd.DataFrame:
    """Return one row a norm and step: several calls of a shared norm count alike."""
    sites = norms[["step", "site", *QUANTITIES, "width"]].astype({"width": float})
    if repeated(norms, ["step", "site"]):
        sites = sites.groupby(["step", "site"], sort=False).mean().reset_index()
    return sites.assign(reference=1.0 / sites["width"])


def _checks(norms: pd.DataFrame, who: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Yield how far the shares are, at worst, from a sum of one and from 0 to 1, and where."""
    shares = norms[["step", "site", "vectors", "width", *_NORMS, *_SHARES]].dropna(subset=list(_SHARES))
    entries = shares[list(_NORMS)].pow(2).div(shares["vectors"] * shares["width"], axis=0)
    shares = shares[~((entries > 0) & (entries < _SQUARES)).any(axis=1)]
    if shares.empty:
        return
    values = [shares[name].to_numpy() for name in _SHARES]
    least, most = (functools.reduce(end, values) for end in (np.minimum, np.maximum))
    off = {
        "shares: off one": np.abs(functools.reduce(np.add, values) - 1.0),
        "shares: out of range": np.maximum(np.maximum(-least, most - 1.0), 0.0),
    }
    for quantity, error in off.items():
        worst = int(error.argmax())
        yield {
            **who, "panel": "summary", "quantity": quantity, "value": error[worst], "n": len(shares),
            "group": shares["site"].iloc[worst], "x": shares["step"].iloc[worst],
        }  # fmt: skip


def _eps(recording: Recording, who: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Yield a row a norm: the share of eps in its σ², at initialization or at the end of training."""
    norms, at_init = recording.norms, recording.meta.get("kind") == "init"
    known = recording.sites.set_index("site")["eps"].astype(float).to_dict()
    inverse, steps = norms["inv_sigma"].to_numpy(), norms["step"].to_numpy()
    for site, rows in norms.groupby("site", sort=False).indices.items():
        shares = inverse[rows] ** 2 * known.get(site, np.nan)
        there = ~np.isnan(shares)
        if not there.any():
            continue
        series = pd.Series(shares[there], steps[rows][there])
        if not (np.diff(series.index) > 0).all():  # a norm that is called more than once
            series = series.groupby(level=0).mean()
        end = series if at_init else series.iloc[-length_of_end(len(series)) :]
        interval = (t_interval if at_init else block_bootstrap_interval)(end)
        when = "at initialization" if at_init else f"over {span_of_steps(end)}"
        yield {**who, "panel": "summary", "quantity": "eps in σ²", "group": site, "stack": when, **interval.row()}


def _over_depth(sites: pd.DataFrame, place: Mapping[str, int], who: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    for site, rows in sites.groupby("site", sort=False):
        for quantity, (_, unit) in QUANTITIES.items():
            interval = (t_interval if quantity == "kept" else log_t_interval)(rows[quantity])
            if not interval.n:
                continue
            fixed = {**who, "panel": DEPTH, "group": site, "x": place.get(str(site), 0), "unit": unit}
            if quantity in _SHARES:  # no share is more than all, whatever the interval of a few seeds says
                interval = interval._replace(low=np.clip(interval.low, 0, 1), high=np.clip(interval.high, 0, 1))
            yield {**fixed, "quantity": quantity, **interval.row()}
            if quantity in REMOVED:
                yield {**fixed, "quantity": f"{quantity}: random g", "value": rows["reference"].mean()}


def _against_random(sites: pd.DataFrame, who: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Yield the removed shares over those of a random gradient, mean over norms, interval over seeds."""
    for quantity in REMOVED:
        times = (sites[quantity] / sites["reference"]).groupby(sites["step"]).mean()
        interval = log_t_interval(times)
        if interval.n:
            yield {**who, "panel": "summary", "quantity": f"{quantity} over random", **interval.row()}


def _over_time(sites: pd.DataFrame, who: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    means = sites.groupby("step")[[*QUANTITIES, "reference"]].mean()
    counts = sites.groupby("step")["site"].count()
    if len(counts) > LONG:
        yield {**who, "panel": "summary", "quantity": "thinned", "n": len(counts)}
    for quantity, (_, unit) in QUANTITIES.items():
        series = means[quantity].dropna()
        fixed = {**who, "panel": TIME, "quantity": quantity, "unit": unit}
        for kind, values in ((quantity, series), (f"{quantity}, smoothed", smoothed(series))):
            drawn = envelope(values)
            curve = {"x": drawn.index.to_numpy(), "value": drawn.to_numpy(), "n": counts[drawn.index].to_numpy()}
            yield {**fixed, "quantity": kind, **curve}
        if series.empty:
            continue
        if quantity in REMOVED:
            ends = {"quantity": f"{quantity}: random g", "value": means["reference"].mean()}
            yield from ({**fixed, **ends, "x": x} for x in (means.index.min(), means.index.max()))
        end = at_the_end(series)
        fixed = {**who, "panel": "summary", "quantity": f"{quantity} at the end", "group": span_of_steps(end)}
        yield {**fixed, **block_bootstrap_interval(end).row()}
    if means[list(QUANTITIES)].notna().any(axis=None):
        yield {**who, "panel": "summary", "quantity": "random g", "value": means["reference"].mean()}
