"""The figure of ``norm_decomposition``: a column a quantity, over the norms at initialization and over training."""

import re
from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses import drawing
from analyses.norm_decomposition.numbers import DEPTH, QUANTITIES, REMOVED, TIME
from analyses.steps import LONG, SMOOTHED_FROM, STRETCHES
from analyses.tables import pick

#: What a caption tells, by what must be drawn for it.
READING = {
    "": (
        "g is the gradient at the normalized value. Its energy splits exactly into what the derivative of the mean "
        "removes (re-centering), what the derivative of σ removes (re-scaling), and the rest (kept), which the norm "
        "multiplies by 1/σ."
    ),
    "init": (
        "At init: every norm, in forward order, mean over seeds with its 95 % interval; those at the same place of "
        "their blocks are joined."
    ),
    "training": "Training: the mean over norms, step by step; intervals at the end of training are over steps.",
    "smoothed": "Faint, every recorded step; clear, the running mean over 5 % of them, five at least.",
    "thinned": (
        f"Of runs of more than {LONG:,} recorded steps the lowest and the highest of each of {STRETCHES:,} stretches "
        "is drawn."
    ),
    "random g": "Dotted, 1/H: the share that a gradient without preferred direction loses along any one direction of "
    "its H features.",
}
_ROW, _LEGEND = 1.75, 0.55
#: A removed share below this is a rounding of 0, and asks for no decades of its axis.
_ROUNDING = 1e-6
#: In inches, of a row of one variant alone.
_OWN_ROW = 0.62
#: In inches, where both rows are drawn.
SIZE = (6.7, 2 * _ROW + _LEGEND)


def plot(table: pd.DataFrame, figure: Figure) -> None:
    """Draw a column a quantity: over the norms at initialization above, over the steps of training below.

    Args:
        table: of ``compute``.
        figure: an empty one; its height is set to its one or two rows.
    """
    drawn = table[table["panel"] != "summary"]
    panels = [panel for panel in (DEPTH, TIME) if (drawn["panel"] == panel).any()]
    if not panels:
        drawing.say(figure, "No recording holds a norm with a gradient.")
        return
    look = drawing.looks(table)
    models = pick(drawn, panel=DEPTH)["label"].unique()
    apart = list(models) if len(models) > drawing.TOGETHER else []
    own_rows = len(apart) * [_OWN_ROW]
    heights = [height for panel in panels for height in (own_rows if own_rows and panel == DEPTH else [_ROW])]
    figure.set_size_inches(figure.get_figwidth(), sum(heights) + _LEGEND)
    axes = figure.subplots(len(heights), len(QUANTITIES), squeeze=False, gridspec_kw={"height_ratios": heights})
    for panel in panels:
        lines = axes[: len(apart) or 1] if panel == DEPTH else axes[-1:]
        for column, quantity in zip(lines.T, QUANTITIES, strict=True):
            for ax, label in zip(column, apart if len(column) > 1 else [None], strict=True):
                if ax is not column[0]:
                    ax.sharex(column[0])
                    ax.sharey(column[0])
                rows = pick(drawn, panel=panel) if label is None else pick(drawn, panel=panel, label=label)
                _draw(ax, rows, panel, quantity, look)
            _scale(column, pick(drawn, panel=panel, quantity=quantity)["value"], panel, quantity)
        for line, label in zip(lines, apart if len(lines) > 1 else [""], strict=True):
            line[0].set_ylabel(drawing.in_lines(label) or QUANTITIES["recentering"][1])
        lines[-1][-1].set_ylabel(QUANTITIES["inv_sigma"][1])
    drawing.legend(figure, _entries(drawn, look))


def caption(table: pd.DataFrame) -> str:
    """Return what there is to read in the figure of a table; nothing where nothing is drawn.

    Args:
        table: of ``compute``.
    """
    drawn = table[table["panel"] != "summary"]
    found = {"" if len(drawn) else None, *drawn["panel"].unique()}
    found |= {"random g"} if drawn["quantity"].str.endswith("random g").any() else set()
    lengths = pick(drawn, panel=TIME).groupby(["label", "quantity"]).size()
    found |= {"smoothed"} if (lengths >= SMOOTHED_FROM).any() else set()
    found |= {"thinned"} if (table["quantity"] == "thinned").any() else set()
    return " ".join(text for what, text in READING.items() if what in found)


def _draw(ax: Axes, rows: pd.DataFrame, panel: str, quantity: str, look: Mapping[str, drawing.Look]) -> None:
    """Draw one quantity of every recording, and what a random gradient would lose."""
    own = pick(rows, quantity=quantity)
    smooth = pick(rows, quantity=f"{quantity}, smoothed")
    for label, part in own.groupby("label", sort=False):
        if panel == DEPTH:
            for _, same in part.groupby(part["group"].map(_place), sort=False):
                drawing.measured(ax, same, look[str(label)], markersize=2.2)
        else:
            drawing.series(ax, part, pick(smooth, label=str(label)), look[str(label)])
    reference = pick(rows, quantity=f"{quantity}: random g")
    for _, line in reference.groupby(["label", reference["group"].map(_place)], sort=False):
        line = line.sort_values("x")
        ax.plot(line["x"], line["value"], **drawing.DOTTED)


def _place(site: str) -> str:
    """Return a norm's place in its block: its path without numbers."""
    return re.sub(r"\d+", "#", site)


def _scale(column: npt.NDArray[Any], values: "pd.Series[float]", panel: str, quantity: str) -> None:
    """Scale the panels of one quantity, which share their axes: the title above the first, steps or norms below."""
    shown = values.mask(values.abs() < _ROUNDING, 0.0) if quantity in REMOVED else values
    for ax in column:
        drawing.value_axis(ax, shown, zero=quantity in REMOVED, small=len(column) > 1)
        drawing.counted_axis(ax, "norm, in order" if panel == DEPTH else "step", most=4, start=int(panel == DEPTH))
        if ax is not column[-1]:
            ax.set_xlabel("")
            ax.tick_params(labelbottom=False)
    column[0].set_title(f"{QUANTITIES[quantity][0]}, {'at init' if panel == DEPTH else 'training'}", fontsize=7.5)


def _entries(drawn: pd.DataFrame, look: Mapping[str, drawing.Look]) -> list[Artist]:
    entries = drawing.run_entries(drawn, look)
    schedules = set(drawn["schedule"].unique()) - {""}
    if len(schedules) > 1 and len(entries) < len(look):
        for name in sorted(schedules, reverse=True):
            line = {"color": drawing.THEORY, "linestyle": drawing.SCHEDULE_DASHES.get(name, "-")}
            entries.append(drawing.entry(f"training, {name}", **line))
    if drawn["quantity"].str.endswith("random g").any():
        entries.append(drawing.entry("theory: random g loses 1/H", **drawing.DOTTED))
    return entries
