"""The figure of ``parameters``: a panel a run, a row a group, a colour the size of its gradient, over the steps."""

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from analyses import drawing
from analyses.parameters.numbers import GRADIENT
from analyses.tables import pick

_MOST, _ACROSS, _LABELS = 6, 2, 16
#: What a caption tells, by what must be drawn for it.
READING = {
    "": (
        "Each row is a block, or a module outside of blocks, in the model's order; the colour "
        "is the L2 norm of the gradient of its parameters, before clipping. A row that grows pale stops learning; one "
        "that is dark alone holds the gradient."
    ),
    "none": "Hatched: no gradient arrived, or it was 0.",
    "left out": f"Only the first {_MOST} recordings are drawn.",
}
_ROW, _FRAME = 0.15, 0.75
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
    labels = list(cells["label"].unique())[:_MOST]
    across = min(_ACROSS, len(labels))
    down = math.ceil(len(labels) / across)
    most = int(pick(cells, quantity="norm").groupby("label")["group"].nunique().max())
    figure.set_size_inches(figure.get_figwidth(), down * (_FRAME + _ROW * max(4, min(most, 30))))
    axes = figure.subplots(down, across, squeeze=False)
    for ax in axes.flat[len(labels) :]:
        ax.set_visible(False)
    drawn = cells[cells["label"].isin(labels) & (cells["value"] > 0)]["value"]
    largest = float(drawn.max()) if len(drawn) else 1.0
    least = max(float(drawn.min()), largest * _PALEST) if len(drawn) else largest / 2
    scale = LogNorm(least if least < largest else largest / 2, largest)
    images = [_draw(ax, pick(cells, label=label), scale) for ax, label in zip(axes.flat, labels, strict=False)]
    for ax, label in zip(axes.flat, labels, strict=False):
        ax.set_title(label if len(label) <= 40 else f"{label[:39]}…")
    bar = figure.colorbar(images[0], ax=axes, shrink=0.9, aspect=30, pad=0.02)
    bar.set_label(f"gradient norm ({cells['unit'].iloc[0]})")


def caption(table: pd.DataFrame) -> str:
    """Return what there is to read in the figure of a table; nothing where nothing is drawn.

    Args:
        table: of ``compute``.
    """
    cells = pick(table, panel=GRADIENT)
    if cells.empty:
        return ""
    found = {"", "" if (cells["value"] > 0).all() else "none"}
    found |= {"left out"} if cells["label"].nunique() > _MOST else set()
    return " ".join(text for what, text in READING.items() if what in found)


def _draw(ax: Axes, cells: pd.DataFrame, scale: LogNorm) -> AxesImage:
    grid = cells.pivot(index="n", columns="x", values="value").sort_index()
    names = cells.drop_duplicates("n").sort_values("n")["group"].tolist()
    first, last = cells["low"].min() - 0.5, cells["high"].max() + 0.5
    values = np.ma.masked_invalid(grid.where(grid > 0).to_numpy(dtype=float))
    ax.set_facecolor("white")
    ax.patch.set(hatch="//////", edgecolor="#b5bac2", linewidth=0)
    image = ax.imshow(
        values, aspect="auto", interpolation="nearest", cmap=_COLOURS, norm=scale,
        extent=(first, last, len(names) - 0.5, -0.5),
    )  # fmt: skip
    ax.grid(visible=False)
    stride = math.ceil(len(names) / _LABELS)
    ax.set_yticks(range(0, len(names), stride), [_short(name) for name in names[::stride]])
    drawing.counted_axis(ax, "step", most=4)
    return image


def _short(name: str) -> str:
    return name if len(name) <= 22 else f"…{name[-21:]}"
