"""How networks are drawn: one look an arrangement, measurements over what theory says of them."""

from collections.abc import Iterable

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes

from analyses import drawing
from analyses.papers.measured import ARRANGEMENTS
from analyses.papers.profiles import MEASURED, PREDICTED
from analyses.tables import pick

#: Colour, marker and dashes of each arrangement; Post-LN and Pre-LN as in all other figures.
LOOKS: dict[str, drawing.Look] = {
    "post-ln": {"color": "#D55E00", "marker": "s", "linestyle": "-"},
    "pre-ln": {"color": "#0072B2", "marker": "o", "linestyle": "-"},
    "peri-ln": {"color": "#009E73", "marker": "^", "linestyle": "-"},
    "deepnorm": {"color": "#CC79A7", "marker": "D", "linestyle": "-"},
    "admin": {"color": "#56B4E9", "marker": "v", "linestyle": "-"},
    "layernorm-scaling": {"color": "#E69F00", "marker": "P", "linestyle": "-"},
    "mix-ln": {"color": "#1c1e21", "marker": "X", "linestyle": (0, (4, 1.5))},
    "b2t": {"color": "#8C5A2B", "marker": "<", "linestyle": (0, (4, 1.5))},
    "sub-ln": {"color": "#6A51A3", "marker": ">", "linestyle": (0, (4, 1.5))},
    "norm-free": {"color": "#8a8f98", "marker": "d", "linestyle": (0, (4, 1.5))},
}


def measurements(ax: Axes, rows: pd.DataFrame, **changes: object) -> None:
    """Draw a line an arrangement, mean over seeds in its 95 % interval, and dotted over it what theory says.

    Args:
        ax: the axes.
        rows: of one panel, of the quantities ``measured`` and ``predicted``.
        changes: line properties of all measurements.
    """
    for name in in_order(rows["variant"]):
        own = pick(rows, variant=name)
        drawing.measured(ax, pick(own, quantity=MEASURED), LOOKS[name], **changes)
        theory = pick(own, quantity=PREDICTED).sort_values("x")
        ax.plot(theory["x"], theory["value"], **drawing.DOTTED)


def in_order(names: Iterable[str]) -> list[str]:
    """Return the arrangements among the names, each once, in their order."""
    there = set(names)
    return [name for name in ARRANGEMENTS if name in there]


def entries(rows: pd.DataFrame, theory: str = "theory") -> list[Artist]:
    """Return a legend entry an arrangement, and one for what theory says where something is drawn of it."""
    keys: list[Artist] = [drawing.entry(ARRANGEMENTS[name], **LOOKS[name]) for name in in_order(rows["variant"])]
    if (rows["quantity"] == PREDICTED).any():
        keys.append(drawing.entry(theory, **drawing.DOTTED))
    return keys
