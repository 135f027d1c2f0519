"""The figure of ``attention``: a panel a run, a row a site, a colour the entropy of its weights, over the steps."""

import pandas as pd
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from analyses import drawing, heat
from analyses.attention.numbers import ENTROPY
from analyses.tables import pick

#: What a caption tells, by what must be drawn for it.
READING = {
    "": (
        "Each row is a module that computes attention, in the order of the forward pass; the colour is the entropy of "
        "a query's weights over the logarithm of the keys that it sees, mean over heads and sampled queries. Pale "
        "looks at all keys alike, dark at one alone. Rows grow darker as attention learns; one that turns dark at once "
        "has saturated, and one that stays pale to the end looks at nothing."
    ),
    "none": "Hatched: it did not run.",
    "left out": f"Only the first {heat.MOST} recordings are drawn.",
}
#: In inches; the height is set by what is drawn.
SIZE = (6.7, 3.0)


def plot(table: pd.DataFrame, figure: Figure) -> None:
    """Draw a panel a run: sites downwards, steps to the right, colours from 0 to 1.

    Args:
        table: of ``compute``.
        figure: an empty one; its height is set to its rows.
    """
    cells = pick(table, panel=ENTROPY)
    if cells.empty:
        drawing.say(figure, "No recording of training holds attention.")
        return
    heat.draw(figure, cells, Normalize(0.0, 1.0), "viridis", "entropy / ln(keys)")


def caption(table: pd.DataFrame) -> str:
    """Return what there is to read in the figure of a table; nothing where nothing is drawn.

    Args:
        table: of ``compute``.
    """
    cells = pick(table, panel=ENTROPY)
    return heat.caption(READING, cells, bool(cells["value"].isna().any()))
