"""The figure of ``norm_decomposition``: a column a quantity, over the norms at initialization and over training."""

from collections.abc import Mapping

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
    "init": "At init: every norm, in forward order, mean over seeds with its 95 % interval.",
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
    figure.set_size_inches(figure.get_figwidth(), _ROW * len(panels) + _LEGEND)
    axes = figure.subplots(len(panels), len(QUANTITIES), squeeze=False)
    for row, panel in zip(axes, panels, strict=True):
        for ax, quantity in zip(row, QUANTITIES, strict=True):
            _draw(ax, pick(drawn, panel=panel), panel, quantity, look)
        row[0].set_ylabel(QUANTITIES["recentering"][1])
        row[-1].set_ylabel(QUANTITIES["inv_sigma"][1])
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
    own, at_init = pick(rows, quantity=quantity), panel == DEPTH
    smooth = pick(rows, quantity=f"{quantity}, smoothed")
    for label, part in own.groupby("label", sort=False):
        if at_init:
            drawing.measured(ax, part, look[str(label)], markersize=2.2)
        else:
            drawing.series(ax, part, pick(smooth, label=str(label)), look[str(label)])
    reference = pick(rows, quantity=f"{quantity}: random g")
    for label in reference["label"].unique():
        line = pick(reference, label=label).sort_values("x")
        ax.plot(line["x"], line["value"], **drawing.DOTTED)
    ax.set_title(f"{QUANTITIES[quantity][0]}, {'at init' if at_init else 'training'}", fontsize=7.5)
    drawing.value_axis(ax, own["value"], zero=quantity in REMOVED)
    drawing.counted_axis(ax, "norm, in order" if at_init else "step", most=4, start=int(at_init))


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
