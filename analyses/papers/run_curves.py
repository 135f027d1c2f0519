"""Curves of runs over steps: the mean over seeds in a band, single runs thin, a cross where one diverged."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analyses import drawing

_CROSS: dict[str, Any] = {"marker": "x", "markersize": 5, "markeredgewidth": 1.3, "linestyle": ""}


def together(ax: Axes, rows: pd.DataFrame, look: drawing.Look, alpha: float, *, band: bool = True, **line: Any) -> None:
    """Draw a mean over seeds and, where it has one, its range as a band.

    Args:
        ax: the axes.
        rows: of one curve, sorted.
        look: of the line.
        alpha: of the band.
        band: whether it is drawn.
        line: further line properties.
    """
    ax.plot(rows["x"], rows["value"], **{"linewidth": 1.1, **look, **line})
    if band and rows["low"].notna().any():
        ax.fill_between(rows["x"], rows["low"], rows["high"], color=look["color"], alpha=alpha, lw=0)


def alone(ax: Axes, rows: pd.DataFrame, look: drawing.Look, crossed: Callable[[pd.DataFrame], bool]) -> None:
    """Draw a thin line a run, with a cross at its end where one is asked for.

    Args:
        ax: the axes.
        rows: of runs that are told apart by their labels.
        look: of the lines; markers are left out.
        crossed: whether a run diverged.
    """
    for _, run in rows.groupby("label", sort=False):
        run = run.sort_values("x")
        ax.plot(run["x"], run["value"], color=look["color"], linestyle=look["linestyle"], linewidth=0.6)
        if crossed(run):
            last = run.iloc[-1]
            ax.plot([last["x"]], [last["value"]], color=look["color"], zorder=6, clip_on=False, **_CROSS)


def crosses_inside(ax: Axes) -> None:
    """Move the crosses that lie beyond the vertical axis to its ends, once its limits are set."""
    low, high = ax.get_ylim()
    for line in ax.lines:
        if line.get_marker() == _CROSS["marker"]:
            line.set_ydata(np.clip(np.asarray(line.get_ydata(), dtype=np.float64), low, high))


def diverged_entry() -> Line2D:
    """Return the legend entry of runs that diverged."""
    return drawing.entry("a run that diverged", color=drawing.THEORY, **_CROSS)
