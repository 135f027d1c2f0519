"""The figure of ``xiong2020_warm_up``: a row an arrangement, a column a task, optimizer and learning rate."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses import drawing
from analyses.papers import panels, run_curves
from analyses.papers.xiong2020.paper import PAPER
from analyses.papers.xiong2020.runs import WARM_UPS, optimizer_name
from analyses.tables import pick

_LOOKS: dict[str, drawing.Look] = {
    "none": {"color": "#D55E00", "marker": "", "linestyle": (0, (4, 1.5))},
    "short": {"color": "#E69F00", "marker": "", "linestyle": (0, (5, 1.2, 1, 1.2))},
    "full": {"color": "#0072B2", "marker": "", "linestyle": "-"},
}
_NAMES = {"none": "no warm-up", "short": "short warm-up", "full": "whole warm-up"}
#: A vertical axis reaches this much above the loss at the start: what blows up beyond is cut.
_ABOVE = 1.15


def plot(table: pd.DataFrame, figure: Figure) -> None:
    """Draw the training loss over steps.

    The figure's height is set to its rows.
    """
    drawn = pick(table, panel="curves")
    if drawn.empty:
        drawing.say(figure, "No training run with or without warm-up holds a loss.")
        return
    rows = panels.in_order(drawn["variant"])
    columns = list(dict.fromkeys(zip(drawn["group"], drawn["schedule"], strict=True)))
    figure.set_size_inches(figure.get_figwidth(), 1.3 * len(rows) + 0.65)
    axes = figure.subplots(len(rows), len(columns), squeeze=False, sharex="col")
    for line, variant in zip(axes, rows, strict=True):
        for ax, (group, lr) in zip(line, columns, strict=True):
            _draw(ax, pick(drawn, variant=variant, group=group, schedule=lr))
            drawing.counted_axis(ax, "step" if variant == rows[-1] else "", most=3)
            if variant == rows[0]:
                task, optimizer = group.split("/")
                ax.set_title(f"{task}\n{optimizer_name(optimizer)}, {lr}", fontsize=7)
        line[0].set_ylabel(f"{PAPER[variant]}\nloss", fontsize=7.5)
    tasks = [group.split("/")[0] for group, _ in columns]
    for task in dict.fromkeys(tasks):
        own = axes[:, [of == task for of in tasks]]
        _limit(own, drawn[drawn["group"].str.startswith(f"{task}/")])
    there = [name for name in WARM_UPS if (drawn["stack"] == name).any()]
    keys = [drawing.entry(_NAMES[name], **_LOOKS[name]) for name in there]
    if (drawn["label"] != "").any():
        keys.append(run_curves.diverged_entry())
    drawing.legend(figure, keys)


def _draw(ax: Axes, rows: pd.DataFrame) -> None:
    if rows.empty:
        ax.text(0.5, 0.5, "not trained", transform=ax.transAxes, ha="center", color=drawing.THEORY, fontsize=6.5)
    for name in WARM_UPS:
        own, look = pick(rows, stack=name), _LOOKS[name]
        run_curves.together(ax, pick(own, label="").sort_values("x"), look, 0.15)
        run_curves.alone(ax, own[own["label"] != ""], look, lambda run: True)


def _limit(axes: Any, drawn: pd.DataFrame) -> None:
    """Give the axes of a task one scale, of all that learns; curves beyond are cut, their crosses moved to its edge."""
    ended = pick(drawn, label="") if (drawn["label"] == "").any() else drawn
    start = ended.sort_values("x").groupby(["variant", "group", "schedule", "stack"])["value"].first().median()
    low = float(ended["value"].min())
    top = min(float(ended["value"].max()), _ABOVE * float(start))
    room = 0.05 * max(top - low, 1e-3)
    for ax in axes.flat:
        ax.set_ylim(low - room, top + room)
        ax.tick_params(labelleft=bool(ax in axes[:, 0]))
        run_curves.crosses_inside(ax)
