"""The figure of ``onset``: each block's level beside the others over the steps, a row a run."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses import drawing
from analyses.tables import pick

#: Panel to its title.
_PANELS = {"growth": "What it makes of its input's size", "gradient": "Its gradient"}
_MOST, _NAMED = 4, 5
_ROW = 1.7
READING = {
    "": (
        "Each line is a block, or where there are none a norm or a module: its level over the median of all others in "
        "the same step, on a logarithmic axis. What moves all of them does not show; a line that leaves the others "
        "from one step to the next is a block that begins to amplify, or to fade. Named are those that move most, the "
        "others are grey."
    ),
    "left out": f"Only the first {_MOST} recordings are drawn.",
}
SIZE = (6.7, _ROW)


def plot(table: pd.DataFrame, figure: Figure) -> None:
    """Draw a row a run, growth on the left and gradient on the right.

    Args:
        table: of ``compute``.
        figure: an empty one; its height is set to its rows.
    """
    levels = pick(table, quantity="level")
    if levels.empty:
        drawing.say(figure, "No recording of training has three blocks, norms or modules, and steps enough.")
        return
    labels = list(levels["label"].unique())[:_MOST]
    panels = [panel for panel in _PANELS if (levels["panel"] == panel).any()]
    figure.set_size_inches(figure.get_figwidth(), _ROW * len(labels))
    axes = figure.subplots(len(labels), len(panels), squeeze=False, sharex="row")
    for label, line in zip(labels, axes, strict=True):
        own = pick(levels, label=label)
        moved = own.groupby(["panel", "group"], sort=False)["value"].agg(lambda v: v.max() / v.min()).groupby("group")
        named = list(moved.max().sort_values(ascending=False, kind="stable").index[:_NAMED])
        for panel, ax in zip(panels, line, strict=True):
            _draw(ax, pick(own, panel=panel), named)
            short = label if len(label) <= 30 else f"{label[:29]}…"
            ax.set_title(_PANELS[panel] if len(labels) == 1 else f"{short}: {_PANELS[panel].lower()}")
        line[0].set_ylabel("times the others' median")


def caption(table: pd.DataFrame) -> str:
    """Return what there is to read in the figure of a table; nothing where nothing is drawn.

    Args:
        table: of ``compute``.
    """
    levels = pick(table, quantity="level")
    if levels.empty:
        return ""
    return " ".join(text for what, text in READING.items() if not what or levels["label"].nunique() > _MOST)


def _draw(ax: Axes, rows: pd.DataFrame, named: list[str]) -> None:
    drawing.counted_axis(ax, "step", most=5)
    if rows.empty:
        return
    for group, own in rows.groupby("group", sort=False):
        name = str(group)
        slot = named.index(name) if name in named else None
        colour = "#b5bac2" if slot is None else drawing.PALETTE[slot]
        short = name if len(name) <= 24 else f"…{name[-23:]}"
        ax.plot(own["x"], own["value"], color=colour, linewidth=0.6 if slot is None else 1.2,
                label=None if slot is None else short, zorder=2 if slot is None else 3)  # fmt: skip
    drawing.value_axis(ax, rows["value"], log_from=1.0, small=True)
    ax.legend(loc="best", fontsize=6, handlelength=1.2)
