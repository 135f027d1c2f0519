"""The figures of the gradients: a row of panels a task, a column a quantity, a line a norm."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from analyses import drawing
from analyses.papers.run_curves import crosses_inside
from analyses.papers.xu2019 import panels
from analyses.papers.xu2019.metrics import METRICS
from analyses.papers.xu2019.runs import in_order
from analyses.tables import SUMMARY, pick

#: Quantity to the heading of its column.
COLUMNS = {
    "mean": "Mean",
    "variance": "Variance",
    "recentering": "Re-centering",
    "rho2": "Re-scaling, ρ²",
    "inv_sigma": "1/σ",
}
UNITS = {
    "mean": "after / before",
    "variance": "after / before",
    "recentering": "share of ‖g‖²",
    "rho2": "share of variance",
    "inv_sigma": "1/input",
}
_ROW_HEIGHT, _HEIGHT_OF_LEGEND = 1.45, 0.9
SIZE = (6.7, 5 * _ROW_HEIGHT + _HEIGHT_OF_LEGEND)
#: What is smaller is rounding of float32, and is drawn there.
_FLOORS = {"mean": 1e-9, "recentering": 1e-6, "rho2": 1e-6}
#: An axis of one value reaches so far around it.
_LEAST_SPAN = 0.005


def plot_by_depth(table: pd.DataFrame, figure: Figure) -> None:
    """Draw every norm in forward order at the end of training.

    The figure's height is set to its rows.
    """
    _plot(table, figure, "norm, in order", start=1)


def plot_over_training(table: pd.DataFrame, figure: Figure) -> None:
    """Draw the mean over norms, step by step.

    The figure's height is set to its rows.
    """
    _plot(table, figure, "step", start=0)


def _plot(table: pd.DataFrame, figure: Figure, across: str, start: int) -> None:
    drawn = table[table["panel"] != SUMMARY]
    tasks = in_order(drawn["schedule"], METRICS)
    figure.set_size_inches(figure.get_figwidth(), _ROW_HEIGHT * len(tasks) + _HEIGHT_OF_LEGEND)
    axes = figure.subplots(len(tasks), len(COLUMNS), squeeze=False)
    for row, task in zip(axes, tasks, strict=True):
        for ax, quantity in zip(row, COLUMNS, strict=True):
            _draw(ax, pick(drawn, schedule=task, panel=quantity), quantity, by_depth=bool(start))
            drawing.counted_axis(ax, across if task == tasks[-1] else "", most=3, start=start)
            ax.tick_params(labelsize=6, pad=2)
        panels.row_named(row[0], task)
    for ax, (quantity, title) in zip(axes[0], COLUMNS.items(), strict=True):
        panels.headed(ax, title, UNITS[quantity])
    figure.align_ylabels(axes[:, 0])
    keys = panels.entries(drawn, markers=bool(start))
    if (drawn["quantity"] == "random g").any():
        keys.append(drawing.entry("random g", **drawing.DOTTED))
    drawing.legend(figure, keys)


def _draw(ax: Axes, rows: pd.DataFrame, quantity: str, *, by_depth: bool) -> None:
    """Draw one quantity of one task."""
    floor = _FLOORS.get(quantity, -np.inf)
    shown = rows.assign(**{name: rows[name].clip(lower=floor) for name in ("value", "low", "high")})
    own, random = pick(shown, quantity=quantity), pick(shown, quantity="random g").drop_duplicates("x").sort_values("x")
    panels.lines(ax, own, markers=by_depth, band=by_depth, ends=not by_depth)
    if len(own):
        ax.plot(random["x"], random["value"], **drawing.DOTTED, marker="_" if len(random) == 1 else "", markersize=9)
    if by_depth:
        _between_stacks(ax, own)
    _value_axis(ax, [*own["value"], *random["value"]], quantity)
    crosses_inside(ax)


def _between_stacks(ax: Axes, own: pd.DataFrame) -> None:
    """Draw a line where the norms of the encoder end and those of the decoder begin."""
    places = own.drop_duplicates("x").sort_values("x")
    stacks = places["group"].str.split(".").str[0].where(places["group"].str.match(r"(?:encoder|decoder)\."))
    for x in places["x"][stacks.notna() & (stacks != stacks.shift()) & stacks.shift().notna()]:
        ax.axvline(x - 0.5, color=drawing.THEORY, linewidth=0.5)


def _value_axis(ax: Axes, values: list[float], quantity: str) -> None:
    """Scale the vertical axis: shares and the mean by decades, the variance from its least value to one."""
    finite = [value for value in values if np.isfinite(value)]
    if not finite:
        ax.text(0.5, 0.5, "none", transform=ax.transAxes, ha="center", va="center", color=drawing.THEORY, fontsize=6.5)
        ax.set_yticks([])
        return
    low, high = min(finite), max(finite)
    if quantity in _FLOORS:
        ax.set_yscale("log")
        middle, half = np.sqrt(low * high), 1.4 * np.sqrt(max(high / low, 10.0))
        ends = (middle / half, middle * half)
        ax.set_ylim(*ends)
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if ends[1] < 60 * ends[0] else (1,), numticks=5))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter(FuncFormatter(_power))
    elif quantity == "variance":
        room = max(high - low, _LEAST_SPAN)
        ax.set_ylim(low - 0.1 * room - (room - (high - low)), high + 0.1 * room)
        ax.yaxis.set_major_locator(MaxNLocator(4))
    else:
        drawing.value_axis(ax, finite, log_from=6)


def _power(value: float, _position: float) -> str:
    """Write a tick in digits where they are few, else with its power of ten."""
    if 0.001 <= value <= 100:
        return f"{value:g}"
    power = int(np.floor(np.log10(value) + 1e-9))
    digit = round(value / 10.0**power)
    return (rf"{digit}$\cdot$" if digit > 1 else "") + rf"$10^{{{power}}}$"
