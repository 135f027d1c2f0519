"""The figure of ``xu2019_scores``: a panel a task, a row a norm."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analyses import drawing
from analyses.papers.xu2019.metrics import metrics
from analyses.papers.xu2019.panels import LOOKS, named
from analyses.papers.xu2019.runs import NORMS, in_order
from analyses.tables import pick

#: Panels side by side, and the height of a row of them, in inches.
_ACROSS, _HEIGHT = 5, 2.6
#: Where a norm's word about divergence stands below its row, in rows.
_BELOW = 0.34
_SMALL = 6.0


def plot(table: pd.DataFrame, figure: Figure) -> None:
    """Draw every task's scores, better ones to the right.

    The figure's height is set to its rows of panels.
    """
    ended = pick(table, quantity="diverged")
    if ended.empty:
        drawing.say(figure, "No run of the paper's grid came to its end.")
        return
    tasks, norms = list(ended["panel"].unique()), in_order(ended["variant"], NORMS)
    down = -(-len(tasks) // _ACROSS)
    across = -(-len(tasks) // down)
    figure.set_size_inches(figure.get_figwidth(), _HEIGHT * down)
    axes = figure.subplots(down, across, squeeze=False, sharey=True)
    for index, ax in enumerate(axes.flat):
        if index < len(tasks):
            _draw(ax, pick(table, panel=tasks[index]), tasks[index], norms)
        else:
            ax.set_axis_off()
    for row in axes:
        row[0].set_yticks(range(len(norms)), [NORMS[norm] for norm in norms])
        row[0].set_ylim(len(norms) - 0.4, -0.6)


def _draw(ax: Axes, rows: pd.DataFrame, task: str, norms: list[str]) -> None:
    metric = metrics(task)[0]
    for place, norm in enumerate(norms):
        own = pick(rows, variant=norm)
        score, ended = pick(own, quantity=metric.column), pick(own, quantity="diverged")
        if ended.empty:
            continue
        style = {key: LOOKS[norm][key] for key in ("color", "marker")}
        value, low, high = score[["value", "low", "high"]].iloc[0]
        ax.plot([low, high], [place, place], color=style["color"], linewidth=1.4, solid_capstyle="butt")
        ax.plot([value], [place], **style, linestyle="", markersize=4)
        broken, of = int(ended["value"].iloc[0]), int(ended["n"].iloc[0])
        if broken:
            word = "diverged" if broken == of else f"{broken} of {of} diverged"
            _at_the_worse_edge(ax, place if broken == of else place + _BELOW, word, style["color"])
    if not metric.higher:
        ax.invert_xaxis()
    ax.xaxis.set_major_locator(MaxNLocator(3))
    ax.tick_params(axis="y", length=0)
    ax.set_title(named(task), fontsize=7)
    unit = f", {metric.unit.partition(' per ')[0]}" if metric.unit not in ("", metric.name) else ""
    ax.set_xlabel(f"{metric.name}{unit}\nbetter →")


def _at_the_worse_edge(ax: Axes, place: float, word: str, color: str) -> None:
    """Mark a divergence at the left edge, where the worse scores are."""
    across = ax.get_yaxis_transform()
    ax.plot([0.05], [place], transform=across, color=color, marker="x", markersize=4, markeredgewidth=1.2)
    ax.text(0.12, place, word, transform=across, fontsize=_SMALL, va="center_baseline", ha="left")
