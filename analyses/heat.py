"""Values over steps as colours: a panel a run, a row a place in the model, one scale for all."""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from analyses import drawing
from analyses.tables import pick

#: Columns of a picture; more steps are drawn as means over successive ones.
COLUMNS = 100
#: Recordings that are drawn.
MOST = 6
_ACROSS, _LABELS = 2, 16
_ROW, _FRAME = 0.15, 0.75


def successive(count: int, most: int = COLUMNS) -> list[np.ndarray]:
    """Return the places of so many steps, in groups that each make one column; none of no step."""
    return np.array_split(np.arange(count), min(most, count)) if count else []


def caption(reading: Mapping[str, str], cells: pd.DataFrame, gaps: bool) -> str:
    """Return what there is to read in a picture; nothing where nothing is drawn.

    Args:
        reading: what is told always (of the empty name), of gaps (``none``) and of recordings ``left out``.
        cells: of ``draw``.
        gaps: whether some cells are drawn without a colour.
    """
    if cells.empty:
        return ""
    found = {"", "none" if gaps else "", "left out" if cells["label"].nunique() > MOST else ""}
    return " ".join(text for what, text in reading.items() if what in found)


def draw(figure: Figure, cells: pd.DataFrame, scale: Normalize, colours: str, unit: str) -> None:
    """Draw a panel a run: places downwards, steps to the right.

    Args:
        figure: an empty one; its height is set to its rows.
        cells: rows of a table; ``low`` and ``high`` are a cell's first and last step, ``n`` its place downwards,
            ``group`` that place's name.
        scale: of the colours.
        colours: name of the map; its palest end differs from the paper.
        unit: what the colour bar says.
    """
    labels = list(cells["label"].unique())[:MOST]
    across = min(_ACROSS, len(labels))
    down = math.ceil(len(labels) / across)
    most = int(cells.groupby("label")["group"].nunique().max())
    figure.set_size_inches(figure.get_figwidth(), down * (_FRAME + _ROW * max(4, min(most, 30))))
    axes = figure.subplots(down, across, squeeze=False)
    for ax in axes.flat[len(labels) :]:
        ax.set_visible(False)
    images = [
        _panel(ax, pick(cells, label=label), scale, colours) for ax, label in zip(axes.flat, labels, strict=False)
    ]
    for ax, label in zip(axes.flat, labels, strict=False):
        ax.set_title(label if len(label) <= 40 else f"{label[:39]}…")
    bar = figure.colorbar(images[0], ax=axes, shrink=0.9, aspect=30, pad=0.02)
    bar.set_label(unit)


def _panel(ax: Axes, cells: pd.DataFrame, scale: Normalize, colours: str) -> AxesImage:
    grid = cells.pivot(index="n", columns="x", values="value").sort_index()
    names = cells.drop_duplicates("n").sort_values("n")["group"].tolist()
    first, last = cells["low"].min() - 0.5, cells["high"].max() + 0.5
    values = np.ma.masked_invalid(grid.to_numpy(dtype=float))
    ax.set_facecolor("white")
    ax.patch.set(hatch="//////", edgecolor="#b5bac2", linewidth=0)
    image = ax.imshow(
        values, aspect="auto", interpolation="nearest", cmap=colours, norm=scale,
        extent=(first, last, len(names) - 0.5, -0.5),
    )  # fmt: skip
    ax.grid(visible=False)
    stride = math.ceil(len(names) / _LABELS)
    ax.set_yticks(range(0, len(names), stride), [_short(name) for name in names[::stride]])
    drawing.counted_axis(ax, "step", most=4)
    return image


def _short(name: str) -> str:
    return name if len(name) <= 22 else f"…{name[-21:]}"
