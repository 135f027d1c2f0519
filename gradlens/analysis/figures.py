"""One look for every figure, wherever it is drawn: the reader's own matplotlib settings play no part."""

from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.text import Text

from gradlens.analysis.contract import Analysis
from gradlens.analysis.finding import Finding
from gradlens.errors import GradlensError

#: Width and height of the first page's strip, in inches.
STRIP = (6.7, 1.8)
#: On top of matplotlib's defaults. Sizes in points, at the size the figure is printed.
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same metrics on every machine
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 7.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.edgecolor": "#4a4f57",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e8ec",
    "grid.linewidth": 0.6,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.color": "#4a4f57",
    "ytick.color": "#4a4f57",
    "xtick.labelcolor": "#1c1e21",
    "ytick.labelcolor": "#1c1e21",
    "lines.linewidth": 1.4,
    "lines.markersize": 3.5,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text: searchable, and small
    "svg.hashsalt": "gradlens",  # the same ids, so the same bytes
}


def draw(analysis: Analysis, table: pd.DataFrame) -> Figure:
    """Draw an analysis' table on a fresh figure of its size, under gradlens' own style.

    Args:
        analysis: whose ``plot`` draws.
        table: what its ``compute`` returned.

    Returns:
        A figure that belongs to no window and to no pyplot state.

    Raises:
        GradlensError: the analysis has no figure.
    """
    plot = analysis.plot
    if plot is None:
        raise GradlensError(f"The analysis {analysis.name!r} draws nothing; its answer is read in its tables.")
    return _drawn(analysis.size, table, lambda figure: plot(table, figure))


def draw_strip(analysis: Analysis, table: pd.DataFrame, causes: Sequence[Finding]) -> Figure:
    """Draw an analysis' strip for the first page.

    Args:
        analysis: whose ``strip`` draws.
        table: what its ``compute`` returned.
        causes: findings that no other explains.

    Returns:
        A figure, as of ``draw``.

    Raises:
        GradlensError: the analysis has none.
    """
    strip = analysis.strip
    if strip is None:
        raise GradlensError(f"The analysis {analysis.name!r} draws nothing for the first page.")
    return _drawn(STRIP, table, lambda figure: strip(table, figure, causes))


def _drawn(size: tuple[float, float], table: pd.DataFrame, plot: Callable[[Figure], None]) -> Figure:
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        figure = Figure(figsize=size, layout="constrained")
        plot(figure)
    _take_literally(figure, table)
    return figure


def _take_literally(figure: Figure, table: pd.DataFrame) -> None:
    """Keep matplotlib from reading a user's label that holds a dollar sign as a formula."""
    texts = table.select_dtypes(exclude="number")
    words = {word for name in texts for word in texts[name].unique()}
    names = {word for word in words if isinstance(word, str) and "$" in word}
    for artist in figure.findobj(Text) if names else ():
        if isinstance(artist, Text) and any(name in artist.get_text() for name in names):
            artist.set_parse_math(False)
