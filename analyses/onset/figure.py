"""The figure of ``onset``: each block's level beside the others over the steps, a row a run."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses import drawing
from analyses.tables import pick

#: Panel to its title.
_PANELS = {"growth": "size of output over input", "gradient": "gradient norm"}
_MOST, _NAMED = 4, 5
_ROW = 1.7
#: Letters that a panel has room for.
_LONGEST = 38
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
        named, short = _moving_most(own), label if len(label) <= _LONGEST else f"{label[: _LONGEST - 1]}…"
        for panel, ax in zip(panels, line, strict=True):
            rows, title = pick(own, panel=panel), _PANELS[panel]
            ax.set_title(title.capitalize() if len(labels) == 1 else f"{short}\n{title}", fontsize=7.5)
            ax.set_visible(not rows.empty)
            _draw(ax, rows, named)
        line[0].set_ylabel("times the others' median")
        entries = [drawing.entry(_short(name), color=drawing.PALETTE[at]) for at, name in enumerate(named)]
        line[-1].legend(handles=entries, loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=1.0)


def caption(table: pd.DataFrame) -> str:
    """Return what there is to read in the figure of a table; nothing where nothing is drawn.

    Args:
        table: of ``compute``.
    """
    levels = pick(table, quantity="level")
    if levels.empty:
        return ""
    return " ".join(text for what, text in READING.items() if not what or levels["label"].nunique() > _MOST)


def _moving_most(rows: pd.DataFrame) -> list[str]:
    """Return the groups whose level changes most in some panel, in the model's order."""
    moved = rows.groupby(["panel", "group"], sort=False)["value"].agg(lambda v: v.max() / v.min()).groupby("group")
    most = set(moved.max().sort_values(ascending=False, kind="stable").index[:_NAMED])
    return [name for name in dict.fromkeys(rows["group"]) if name in most]


def _draw(ax: Axes, rows: pd.DataFrame, named: list[str]) -> None:
    for group, own in rows.groupby("group", sort=False):
        colour = drawing.PALETTE[named.index(str(group))] if group in named else "#b5bac2"
        ax.plot(own["x"], own["value"], color=colour, linewidth=1.2 if group in named else 0.6,
                zorder=3 if group in named else 2)  # fmt: skip
    drawing.counted_axis(ax, "step", most=5)
    drawing.value_axis(ax, rows["value"], log_from=1.0, small=True)


def _short(name: str) -> str:
    return name if len(name) <= 18 else f"…{name[-17:]}"
