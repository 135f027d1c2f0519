"""The figure of ``training_curves``: a row a quantity, a column a schedule, a line a run."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses import drawing
from analyses.steps import LONG, SMOOTHED_FROM, STRETCHES
from analyses.tables import pick

#: Panel to its title and the name of its vertical axis.
_ROWS = {
    "loss": ("Loss", "loss ({unit})"),
    "gradient norm": ("Gradient norm", "gradient norm ({unit})"),
    "gradient ratio": ("Gradient over depth", "last block / first block"),
}
_COLUMNS = {"warm-up": "with warm-up", "no warm-up": "without warm-up", "": "other runs"}
#: What a caption tells, by what must be drawn for it.
READING = {
    "both schedules": "Left with, right without warm-up, on the same axes.",
    "smoothed": (
        "Faint, every recorded step; clear, the running mean over 5 % of them, five at least (geometric below the "
        f"loss); runs of fewer than {SMOOTHED_FROM} recorded steps are drawn as they are."
    ),
    "thinned": (
        f"Of runs of more than {LONG:,} recorded steps the lowest and the highest of each of {STRETCHES:,} stretches "
        "is drawn."
    ),
    "held out": "Hollow, the loss on held-out data.",
    "frequencies alone": (
        "Dotted, the loss of a model that knows only how often each token occurs: a run that stays there has learned "
        "nothing from its context."
    ),
    "gradient norm": "Gradient norm: the L2 norm of the whole gradient, before it is clipped.",
    "gradient ratio": "Gradient over depth: the last block's gradient norm over the first block's.",
    "spike": "Crosses mark spikes of the gradient (GL303).",
    "": "The findings' intervals are over the last steps of a run, not over seeds.",
}
_ROW_HEIGHT, _HEIGHT_OF_LEGEND = 1.6, 0.5
#: In inches, where all rows are drawn.
SIZE = (6.7, len(_ROWS) * _ROW_HEIGHT + _HEIGHT_OF_LEGEND)


def plot(table: pd.DataFrame, figure: Figure) -> None:
    """Draw a row a quantity and a column a schedule; the columns share their vertical axes.

    Args:
        table: of ``compute``.
        figure: an empty one; its height is set to its rows.
    """
    drawn = table[table["panel"] != "summary"]
    if drawn.empty:
        drawing.say(figure, "No recording of training holds a loss or a gradient.")
        return
    look = drawing.looks(drawn, dashes=False)
    rows = [panel for panel in _ROWS if (drawn["panel"] == panel).any()]
    schedules = [s for s in _COLUMNS if (drawn["schedule"] == s).any()]
    figure.set_size_inches(figure.get_figwidth(), _ROW_HEIGHT * len(rows) + _HEIGHT_OF_LEGEND)
    axes = figure.subplots(len(rows), len(schedules), sharex=True, sharey="row", squeeze=False)
    for panel, line in zip(rows, axes, strict=True):
        own, (title, axis) = pick(drawn, panel=panel), _ROWS[panel]
        for ax, schedule in zip(line, schedules, strict=True):
            _draw(ax, pick(own, schedule=schedule), look)
            ax.set_title(title if schedules == [""] else f"{title}, {_COLUMNS[schedule]}")
        drawing.value_axis(line[0], own["value"], axis.format(unit=own["unit"].iloc[0]))
    for ax in axes[-1]:
        drawing.counted_axis(ax, "step")
    figure.align_ylabels(axes[:, 0])
    drawing.legend(figure, _entries(drawn, look))


def caption(table: pd.DataFrame) -> str:
    """Return what there is to read in the figure of a table; nothing where nothing is drawn.

    Args:
        table: of ``compute``.
    """
    drawn = table[table["panel"] != "summary"]
    found = {"" if len(drawn) else None, *drawn["panel"].unique(), *drawn["quantity"].unique()} - {"smoothed"}
    found |= {"both schedules"} if {"warm-up", "no warm-up"} <= set(drawn["schedule"].unique()) else set()
    lengths = pick(drawn, quantity="smoothed").groupby(["label", "panel"]).size()
    found |= {"smoothed"} if (lengths >= SMOOTHED_FROM).any() else set()
    found |= {"thinned"} if (table["quantity"] == "thinned").any() else set()
    return " ".join(text for what, text in READING.items() if what in found)


def _draw(ax: Axes, rows: pd.DataFrame, look: Mapping[str, drawing.Look]) -> None:
    for label, own in rows.groupby("label", sort=False):
        style = look[str(label)]
        drawing.series(ax, pick(own, quantity="raw"), pick(own, quantity="smoothed"), style)
        held_out = pick(own, quantity="held out")
        ax.plot(held_out["x"], held_out["value"], linestyle="", zorder=5, **_hollow(style))
        spike = pick(own, quantity="spike")
        ax.plot(spike["x"], spike["value"], linestyle="", marker="x", color=style["color"], markersize=4)
    alone = pick(rows, quantity="frequencies alone").drop_duplicates("x").sort_values("x")
    ax.plot(alone["x"], alone["value"], **drawing.DOTTED)


def _hollow(style: drawing.Look) -> drawing.Look:
    return {"marker": style["marker"], "markersize": 3.5, "markeredgewidth": 0.9, "markerfacecolor": "white",
            "markeredgecolor": style["color"]}  # fmt: skip


def _entries(drawn: pd.DataFrame, look: Mapping[str, drawing.Look]) -> list[Artist]:
    grey = _hollow({"marker": "o", "color": drawing.THEORY})
    others = {
        "held out": drawing.entry("held-out loss", linestyle="", **grey),
        "frequencies alone": drawing.entry("token frequencies alone", **drawing.DOTTED),
        "spike": drawing.entry("spike", linestyle="", marker="x", color=drawing.THEORY, markeredgewidth=1),
    }
    entries = drawing.run_entries(drawn, look, marker="")
    return entries + [others[what] for what in others if (drawn["quantity"] == what).any()]
