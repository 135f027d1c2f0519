"""The figure of ``xiong2020_arrangements_by_depth``: stream and gradient by block, and the errors of theory."""

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.ticker import FuncFormatter

from analyses import drawing
from analyses.limits import limit
from analyses.papers import panels
from analyses.papers.measured import ARRANGEMENTS
from analyses.papers.profiles import PREDICTED, scale
from analyses.tables import pick

_CURVES = {"stream": "stream q", "gradient": "gradient of W2"}
#: Small panels beside each other; heights in inches.
_ACROSS = 5
_SMALL, _ROW, _ENDS = 1.12, 0.15, 0.75


def plot(table: pd.DataFrame, figure: Figure) -> None:
    """Draw the curves over depth, a small panel an arrangement, and the errors of theory below.

    The figure's height is set to its rows.
    """
    drawn, errors = table[table["panel"].isin(_CURVES)], pick(table, panel="errors")
    if drawn.empty and errors.empty:
        drawing.say(figure, "No recording holds a Transformer at initialization.")
        return
    names, judged = panels.in_order(drawn["variant"]), panels.in_order(errors["variant"])
    lines = math.ceil(len(names) / _ACROSS)
    heights = [_SMALL] * (len(_CURVES) * lines) + ([_ENDS + _ROW * len(judged)] if judged else [])
    figure.set_size_inches(figure.get_figwidth(), sum(heights) + 0.35)
    grid = figure.add_gridspec(len(heights), 2 * _ACROSS, height_ratios=heights)
    for first, panel in enumerate(_CURVES):
        _curves(figure, grid, first * lines, pick(drawn, panel=panel), names, panel)
    for half, kind in enumerate(_CURVES if judged else ()):
        ax = figure.add_subplot(grid[-1, half * _ACROSS : (half + 1) * _ACROSS])
        _errors(ax, pick(errors, group=kind), judged, kind)
        if half:
            ax.set_yticklabels([])
    keys = [drawing.entry("measured", color=drawing.THEORY, marker="o", markersize=2.5)]
    if (drawn["quantity"] == PREDICTED).any():
        keys.append(drawing.entry("theory", **drawing.DOTTED))
    drawing.legend(figure, keys)


def _curves(figure: Figure, grid: GridSpec, first: int, rows: pd.DataFrame, names: list[str], panel: str) -> None:
    """Draw a panel an arrangement, on one vertical axis."""
    shared: Axes | None = None
    for place, name in enumerate(names):
        line, column = divmod(place, _ACROSS)
        ax = figure.add_subplot(grid[first + line, 2 * column : 2 * column + 2], sharey=shared)
        own = pick(rows, variant=name)
        panels.measurements(ax, own, markersize=1.8, markevery=max(1, len(own) // 12), linewidth=1.0)
        ax.set_title(ARRANGEMENTS[name], fontsize=6.8, fontweight="normal", pad=3)
        drawing.counted_axis(ax, "block" if place >= len(names) - _ACROSS else "", most=3)
        ax.xaxis.label.set_fontsize(6.5)
        ax.tick_params(labelsize=6, pad=2, labelleft=column == 0)
        if column == 0:
            ax.set_ylabel(_CURVES[panel], fontsize=6.8)
        shared = shared or ax
    if shared is not None:
        scale(shared, rows, _CURVES[panel], log_from=3)
        shared.yaxis.label.set_fontsize(6.8)


def _errors(ax: Axes, rows: pd.DataFrame, names: list[str], kind: str) -> None:
    """Draw a line an arrangement from the median to the 95th percentile."""
    for place, name in enumerate(names):
        own = pick(rows, variant=name).set_index("quantity")["value"]
        if own.empty:
            continue
        median, far, look = 100 * own["median"], 100 * own["95th percentile"], panels.LOOKS[name]
        ax.plot([median, far], [place, place], color=look["color"], linewidth=1.3)
        ax.plot([median], [place], color=look["color"], marker=look["marker"], markeredgewidth=0, linestyle="")
    for code in ("GL617", "GL618"):
        ax.axvline(100 * limit(code, "most"), **(drawing.DOTTED | {"zorder": 1.5}))
    ax.set_yticks(range(len(names)), [ARRANGEMENTS[name] for name in names])
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    most = 100 * max(float(np.nanmax(rows["value"])) if len(rows) else 0.0, limit("GL618", "most"))
    ax.set_xlim(-0.02 * most, 1.08 * most)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
    ax.set_title(f"How far theory is off, {kind}", fontsize=7.5)
