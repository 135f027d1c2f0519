"""What each norm does to the gradient: the shares it re-centers away, re-scales away, and lets through."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses import drawing
from analyses.findings.norm_decomposition import CODES, judge
from analyses.intervals import block_bootstrap_interval, log_t_interval, t_interval
from analyses.steps import SMOOTHED_FROM, smoothed
from analyses.tables import identity, pick, tidy
from gradlens.analysis import Analysis
from gradlens.analysis.ending import at_the_end, span_of_steps
from gradlens.recording import Recording

#: Column of the ``norms`` table to the title of its panel and the unit of its axis, in the figure's order.
QUANTITIES = {
    "recentering": ("Re-centering", "share of ‖g‖²"),
    "rescaling": ("Re-scaling", "share of ‖g‖²"),
    "kept": ("Kept", "share of ‖g‖²"),
    "inv_sigma": ("1/σ", "1/input"),
}
#: What a caption tells, by what must be drawn for it.
READING = {
    "": (
        "g is the gradient at the normalized value. Its energy splits exactly into what the derivative of the mean "
        "removes (re-centering), what the derivative of σ removes (re-scaling), and the rest (kept), which the norm "
        "multiplies by 1/σ."
    ),
    "init": "At init: every norm, in forward order, mean over seeds with its 95 % interval.",
    "training": "Training: the mean over norms, step by step; intervals at the end of training are over steps.",
    "smoothed": "Faint, every recorded step; clear, the running mean over 5 % of them, five at least.",
    "random g": "Dotted, 1/H: the share that a gradient without preferred direction loses along any one direction of "
    "its H features.",
}
_SHARES = ("recentering", "rescaling", "kept")
#: Shares that a gradient without preferred direction loses: 1/H along any one direction.
_REMOVED = ("recentering", "rescaling")
#: Norms over space, whose gradients have a direction of their own (constant behind a mean over space).
_OVER_SPACE = ("batchnorm", "groupnorm", "instancenorm")
_ROW_HEIGHT, _HEIGHT_OF_LEGEND = 1.75, 0.55
_DEPTH, _TIME = "init", "training"


def compute(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Return shares and 1/σ of every norm at initialization, their means in training, and their checks.

    Args:
        recordings: of any kind; those of kind ``init`` are averaged over seeds, others followed over steps.
    """
    return tidy(row for recording in recordings if len(recording.norms) for row in _rows(recording))


def _rows(recording: Recording) -> Iterator[dict[str, Any]]:
    who, norms = identity(recording), recording.norms
    order = recording.sites.set_index("site")["order"].sort_values()
    place = {site: k + 1 for k, site in enumerate(order[order.index.isin(set(norms["site"]))].index)}
    columns = [*QUANTITIES, "width"]
    # Several calls of a shared norm count alike; what is drawn is one number a norm and step.
    sites = norms.groupby(["step", "site"], sort=False)[columns].mean().reset_index()
    sites["reference"] = 1.0 / sites["width"]
    yield from _checks(norms, who)
    if recording.meta.get("kind") == "init":
        yield from _over_depth(sites, place, who)
        over_space = recording.sites.loc[recording.sites["norm"].isin(_OVER_SPACE), "site"]
        yield from _against_random(sites[~sites["site"].isin(over_space)], who)
    else:
        yield from _over_time(sites, who)


def _checks(norms: pd.DataFrame, who: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Yield how far the shares are, at worst, from a sum of one and from 0 to 1, and where."""
    shares = norms.dropna(subset=list(_SHARES))
    if shares.empty:
        return
    values = shares[list(_SHARES)].to_numpy()
    off = {
        "shares: off one": np.abs(values.sum(axis=1) - 1.0),
        "shares: out of range": np.maximum(np.maximum(-values, values - 1.0), 0.0).max(axis=1),
    }
    for quantity, error in off.items():
        worst = int(error.argmax())
        yield {
            **who, "panel": "summary", "quantity": quantity, "value": error[worst], "n": len(shares),
            "group": shares["site"].iloc[worst], "x": shares["step"].iloc[worst],
        }  # fmt: skip


def _over_depth(sites: pd.DataFrame, place: Mapping[str, int], who: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    for site, rows in sites.groupby("site", sort=False):
        for quantity, (_, unit) in QUANTITIES.items():
            fixed = {
                **who,
                "panel": _DEPTH,
                "quantity": quantity,
                "group": site,
                "x": place.get(str(site), 0),
            }
            interval = (t_interval if quantity == "kept" else log_t_interval)(rows[quantity])
            if not interval.n:
                continue
            if quantity in _SHARES:  # no share is more than all, whatever the interval of a few seeds says
                interval = interval._replace(low=np.clip(interval.low, 0, 1), high=np.clip(interval.high, 0, 1))
            yield {**fixed, "unit": unit, **interval.row()}
            if quantity in _REMOVED:
                yield {
                    **fixed,
                    "quantity": f"{quantity}: random g",
                    "value": rows["reference"].mean(),
                    "unit": unit,
                }


def _against_random(sites: pd.DataFrame, who: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Yield the removed shares over those of a random gradient, mean over norms, interval over seeds."""
    for quantity in _REMOVED:
        times = (sites[quantity] / sites["reference"]).groupby(sites["step"]).mean()
        interval = log_t_interval(times)
        if interval.n:
            yield {**who, "panel": "summary", "quantity": f"{quantity} over random", **interval.row()}


def _over_time(sites: pd.DataFrame, who: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    means = sites.groupby("step")[[*QUANTITIES, "reference"]].mean()
    counts = sites.groupby("step")["site"].nunique()
    for quantity, (_, unit) in QUANTITIES.items():
        series = means[quantity].dropna()
        fixed = {**who, "panel": _TIME, "quantity": quantity, "unit": unit}
        for kind, values in ((quantity, series), (f"{quantity}, smoothed", smoothed(series))):
            table = pd.DataFrame({"value": values, "n": counts})
            yield from ({**fixed, "quantity": kind, "x": x, "value": y, "n": n}
                        for x, y, n in table.dropna().itertuples())  # fmt: skip
        if series.empty:
            continue
        if quantity in _REMOVED:
            ends = {"quantity": f"{quantity}: random g", "value": means["reference"].mean()}
            yield from ({**fixed, **ends, "x": x} for x in (means.index.min(), means.index.max()))
        end = at_the_end(series)
        fixed = {**who, "panel": "summary", "quantity": f"{quantity} at the end", "group": span_of_steps(end)}
        yield {**fixed, **block_bootstrap_interval(end).row()}
    if means[list(QUANTITIES)].notna().any(axis=None):
        yield {**who, "panel": "summary", "quantity": "random g", "value": means["reference"].mean()}


def plot(table: pd.DataFrame, figure: Figure) -> None:
    """Draw a column a quantity: over the norms at initialization above, over the steps of training below.

    Args:
        table: of ``compute``.
        figure: an empty one; its height is set to its one or two rows.
    """
    drawn = table[table["panel"] != "summary"]
    panels = [panel for panel in (_DEPTH, _TIME) if (drawn["panel"] == panel).any()]
    if not panels:
        drawing.say(figure, "No recording holds a norm with a gradient.")
        return
    look = drawing.looks(table)
    figure.set_size_inches(figure.get_figwidth(), _ROW_HEIGHT * len(panels) + _HEIGHT_OF_LEGEND)
    axes = figure.subplots(len(panels), len(QUANTITIES), squeeze=False)
    for row, panel in zip(axes, panels, strict=True):
        for ax, quantity in zip(row, QUANTITIES, strict=True):
            _draw(ax, pick(drawn, panel=panel), panel, quantity, look)
        row[0].set_ylabel(QUANTITIES["recentering"][1])
        row[-1].set_ylabel(QUANTITIES["inv_sigma"][1])
    drawing.legend(figure, _entries(drawn, look))


def caption(table: pd.DataFrame) -> str:
    """Return what there is to read in the figure of a table; nothing where nothing is drawn.

    Args:
        table: of ``compute``.
    """
    drawn = table[table["panel"] != "summary"]
    found = {"" if len(drawn) else None, *drawn["panel"]}
    found |= {"random g"} if drawn["quantity"].str.endswith("random g").any() else set()
    lengths = pick(drawn, panel=_TIME).groupby(["label", "quantity"]).size()
    found |= {"smoothed"} if (lengths >= SMOOTHED_FROM).any() else set()
    return " ".join(text for what, text in READING.items() if what in found)


def _draw(ax: Axes, rows: pd.DataFrame, panel: str, quantity: str, look: Mapping[str, drawing.Look]) -> None:
    """Draw one quantity of every recording, and what a random gradient would lose."""
    own, at_init = pick(rows, quantity=quantity), panel == _DEPTH
    smooth = pick(rows, quantity=f"{quantity}, smoothed")
    for label, part in own.groupby("label", sort=False):
        if at_init:
            drawing.measured(ax, part, look[str(label)], markersize=2.2)
        else:
            drawing.series(ax, part, pick(smooth, label=str(label)), look[str(label)])
    reference = pick(rows, quantity=f"{quantity}: random g")
    for label in reference["label"].unique():
        line = pick(reference, label=label).sort_values("x")
        ax.plot(line["x"], line["value"], **drawing.DOTTED)
    ax.set_title(f"{QUANTITIES[quantity][0]}, {'at init' if at_init else 'training'}", fontsize=7.5)
    drawing.value_axis(ax, own["value"], zero=quantity in _REMOVED)
    drawing.counted_axis(ax, "norm, in order" if at_init else "step", most=4, start=int(at_init))


def _entries(drawn: pd.DataFrame, look: Mapping[str, drawing.Look]) -> list[Artist]:
    entries = drawing.run_entries(drawn, look)
    schedules = set(drawn["schedule"]) - {""}
    if len(schedules) > 1 and len(entries) < len(look):
        for name in sorted(schedules, reverse=True):
            line = {"color": drawing.THEORY, "linestyle": drawing.SCHEDULE_DASHES.get(name, "-")}
            entries.append(drawing.entry(f"training, {name}", **line))
    if drawn["quantity"].str.endswith("random g").any():
        entries.append(drawing.entry("theory: random g loses 1/H", **drawing.DOTTED))
    return entries


ANALYSIS = Analysis(
    name="norm_decomposition",
    title="What the norms do to the gradient",
    question="How much of the gradient does each norm re-center away, re-scale away, and let through?",
    reading=" ".join(READING.values()),
    caption=caption,
    needs={
        "sites": ("site", "order"),
        "norms": ("step", "site", "width", "recentering", "rescaling", "kept", "inv_sigma"),
    },
    compute=compute,
    plot=plot,
    judge=judge,
    size=(6.7, 2 * _ROW_HEIGHT + _HEIGHT_OF_LEGEND),
    codes=CODES,
    reference="Xu et al. 2019 (1911.07013), Theorem 1",
)
