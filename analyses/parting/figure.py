"""The figure of ``parting``: the difference of the losses, and the ratio of the gradient norms, over the steps."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses import drawing
from analyses.tables import first, pick

READING = (
    "The second run beside the first, by recorded step. On the left the second's loss less the first's, on the right "
    "the second's gradient norm over the first's on a logarithmic axis, of the whole model in colour and of each block "
    "in grey; a long run is drawn in means over successive steps. The dotted line is the step in which they part."
)
SIZE = (6.7, 2.2)
#: Panel to its title and unit.
_PANELS = {
    "loss": ("Loss, second less first", "loss"),
    "gradient": ("Gradient norm, second over first", "ratio"),
}


def plot(table: pd.DataFrame, figure: Figure) -> None:
    """Draw both panels.

    Args:
        table: of ``compute``.
        figure: an empty one.
    """
    curves = pick(table, quantity="curve")
    if curves.empty:
        drawing.say(figure, "There are not two runs whose steps can be paired.")
        return
    panels = [panel for panel in _PANELS if (curves["panel"] == panel).any()]
    parted = first(pick(table, quantity="parted"))
    for ax, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        own, (title, unit) = pick(curves, panel=panel), _PANELS[panel]
        ax.set_title(title)
        _draw(ax, own, 0.0 if panel == "loss" else 1.0)
        drawing.counted_axis(ax, "step", most=5)
        drawing.value_axis(ax, own["value"], unit, log_from=3.0 if panel == "gradient" else drawing.DECADE, small=True)
        if parted is not None:
            ax.axvline(float(parted["x"]), **drawing.DOTTED)


def caption(table: pd.DataFrame) -> str:
    """Return what there is to read in the figure of a table; nothing where nothing is drawn.

    Args:
        table: of ``compute``.
    """
    return READING if len(pick(table, quantity="curve")) else ""


def _draw(ax: Axes, rows: pd.DataFrame, same: float) -> None:
    ax.axhline(same, color=drawing.THEORY, linewidth=0.6)
    for group, own in rows.groupby("group", sort=False):
        whole = group in ("", "whole model")
        ax.plot(own["x"], own["value"], color=drawing.PALETTE[0] if whole else "#b5bac2",
                linewidth=1.3 if whole else 0.6, zorder=3 if whole else 2)  # fmt: skip
