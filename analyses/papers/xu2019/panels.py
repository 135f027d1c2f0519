"""How the reproduction draws: one look a norm in all figures, a row of panels a task, broken-off runs marked."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes

from analyses import drawing
from analyses.papers.xu2019.runs import BROKE_OFF, NORMS
from analyses.tables import pick

#: What a task's row of panels is called.
TASK_NAMES = {
    "translation": "Translation",
    "lm": "Language model",
    "sentences": "Sentences",
    "images": "Images",
    "parsing": "Parsing",
}
#: Okabe & Ito's colours with black; norms whose curves lie close to each other also differ in their dashes.
LOOKS: dict[str, drawing.Look] = {
    "none": {"color": "#000000", "marker": "X", "linestyle": (0, (1, 1))},
    "detachnorm": {"color": "#D55E00", "marker": "s", "linestyle": "-"},
    "detachnorm-mean": {"color": "#E69F00", "marker": "v", "linestyle": (0, (4, 1.5))},
    "detachnorm-variance": {"color": "#CC79A7", "marker": "D", "linestyle": (0, (4, 1.5, 1, 1.5))},
    "layernorm": {"color": "#0072B2", "marker": "o", "linestyle": "-"},
    "layernorm-simple": {"color": "#56B4E9", "marker": "^", "linestyle": (0, (4, 1.5))},
    "adanorm": {"color": "#009E73", "marker": "P", "linestyle": (0, (5, 1.2, 1, 1.2, 1, 1.2))},
}
_CROSS: dict[str, Any] = {"marker": "x", "markersize": 5, "markeredgewidth": 1.3, "linestyle": ""}
_MARKERS = 6


def named(task: str) -> str:
    """Return the heading of a task."""
    return TASK_NAMES.get(task, task or "Task without a name")


def lines(ax: Axes, rows: pd.DataFrame, *, markers: bool = True, band: bool = True, ends: bool = True) -> None:
    """Draw a line a norm, the mean of the seeds that came to their end, and a thin one for every run that did not.

    Args:
        ax: the axes.
        rows: of one panel, with the columns of ``analyses.tables``.
        markers: whether the lines carry a few markers.
        band: whether the range over seeds is drawn.
        ends: whether a run that diverged ends in a cross.
    """
    for norm in [norm for norm in NORMS if (rows["variant"] == norm).any()]:
        own, look = pick(rows, variant=norm), LOOKS[norm]
        together = pick(own, stack="").sort_values("x")
        if len(together):
            every = max(1, len(together) // _MARKERS)
            shift = list(NORMS).index(norm) * every // len(NORMS)
            style = look if markers or len(together) == 1 else look | {"marker": ""}
            ax.plot(together["x"], together["value"], linewidth=1.1, markersize=2.8, markeredgewidth=0,
                    markevery=(shift, every), **style)  # fmt: skip
            if band and together["low"].notna().any():
                ax.fill_between(together["x"], together["low"], together["high"], color=look["color"], alpha=0.13, lw=0)
        for _, run in own[own["stack"] != ""].groupby("label", sort=False):
            run = run.sort_values("x")
            ax.plot(run["x"], run["value"], color=look["color"], linestyle=look["linestyle"], linewidth=0.6)
            if ends and run["stack"].iloc[0] == BROKE_OFF:
                last = run.iloc[-1]
                ax.plot(last["x"], last["value"], color=look["color"], zorder=6, **_CROSS)


def crosses_inside(ax: Axes) -> None:
    """Move the crosses that lie beyond the vertical axis to its ends, once its limits are set."""
    low, high = ax.get_ylim()
    for line in ax.lines:
        if line.get_marker() == _CROSS["marker"]:
            line.set_ydata(np.clip(np.asarray(line.get_ydata(), dtype="float64"), low, high))
            line.set_clip_on(False)


def entries(rows: pd.DataFrame, *, markers: bool = True) -> list[Artist]:
    """Return a legend entry a norm that is drawn, in the paper's order, and one for runs that diverged."""
    there = [norm for norm in NORMS if (rows["variant"] == norm).any()]
    keys = [drawing.entry(NORMS[n], **(LOOKS[n] if markers else LOOKS[n] | {"marker": ""})) for n in there]
    if (rows["stack"] == BROKE_OFF).any():
        keys.append(drawing.entry("a run that diverged", color=drawing.THEORY, **_CROSS))
    return list(keys)


def headed(ax: Axes, title: str, unit: str = "") -> None:
    """Put a column's name, and its unit in a second line, over its first panel."""
    ax.set_title(f"{title}\n" if unit else title, fontsize=7)
    if unit:
        ax.annotate(unit, (0, 1), (0, 6), xycoords="axes fraction", textcoords="offset points", fontsize=6.5)


def row_named(ax: Axes, task: str) -> None:
    """Put a task's name beside the first panel of its row."""
    ax.set_ylabel(named(task), fontsize=7.5, fontweight="bold")


def steps_axis(axes: Sequence[Axes], *, last: bool) -> None:
    """Label the horizontal axes of a row of panels over training; only the last row is named."""
    for ax in axes:
        drawing.counted_axis(ax, "step" if last else "", most=4)
