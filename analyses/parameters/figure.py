"""The figure of ``parameters``: a panel a run, a row a group, a colour the size of its gradient, over the steps."""

import pandas as pd
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from analyses import drawing, heat
from analyses.parameters.numbers import GRADIENT
from analyses.tables import pick

#: What a caption tells, by what must be drawn for it.
READING = {
    "": (
        "Each row is a block, or a module outside of blocks, in the model's order; the colour "
        "is the L2 norm of the gradient of its parameters, before clipping. A row that grows pale stops learning; one "
        "that is dark alone holds the gradient."
    ),
    "none": "Hatched: no gradient arrived, or it was 0.",
    "left out": f"Only the first {heat.MOST} recordings are drawn.",
}
#: In inches; the height is set by what is drawn.
SIZE = (6.7, 3.0)
#: Dark is large, also in print; its palest end differs from the paper.
_COLOURS, _PALEST = "viridis_r", 1e-12


def plot(table: pd.DataFrame, figure: Figure) -> None:
    """Draw a panel a run: groups downwards, steps to the right, one scale of colours for all.

    Args:
        table: of ``compute``.
        figure: an empty one; its height is set to its rows.
    """
    cells = pick(table, panel=GRADIENT)
    if cells.empty:
        drawing.say(figure, "No recording of training holds a gradient of parameters.")
        return
    labels = cells["label"].unique()[: heat.MOST]
    drawn = cells[cells["label"].isin(labels) & (cells["value"] > 0)]["value"]
    largest = float(drawn.max()) if len(drawn) else 1.0
    least = max(float(drawn.min()), largest * _PALEST) if len(drawn) else largest / 2
    scale = LogNorm(least if least < largest else largest / 2, largest)
    there = cells.assign(value=cells["value"].where(cells["value"] > 0))
    heat.draw(figure, there, scale, _COLOURS, f"gradient norm ({cells['unit'].iloc[0]})")


def caption(table: pd.DataFrame) -> str:
    """Return what there is to read in the figure of a table; nothing where nothing is drawn.

    Args:
        table: of ``compute``.
    """
    cells = pick(table, panel=GRADIENT)
    return heat.caption(READING, cells, bool(not (cells["value"] > 0).all()))
