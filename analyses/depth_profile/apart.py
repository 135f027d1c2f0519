"""Gradient and stream over depth of many models: a panel a model, the others grey behind it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.gridspec import SubplotSpec

from analyses import drawing
from analyses.depth import GRADIENT_UNIT
from analyses.tables import pick

#: Panels side by side, and the height of one in inches.
ACROSS, ROW = 6, 1.15
#: Panel to the names of its axes.
_NAMES = {"gradient": (f"gradient norm\n({GRADIENT_UNIT})", "block"), "stream": ("stream rms", "blocks applied")}


def height(rows: pd.DataFrame) -> float:
    """Return the inches that the panels of a stack need."""
    return len(_NAMES) * ROW * math.ceil(rows["label"].nunique() / ACROSS)


def draw(place: SubplotSpec, rows: pd.DataFrame, look: Mapping[str, drawing.Look], curve: Any) -> None:
    """Draw a panel a model, those of the gradient above those of the stream, each kind on shared axes.

    Args:
        place: where in the figure.
        rows: of one stack.
        look: of ``drawing.looks``.
        curve: draws one model's measurement and prediction on axes.
    """
    labels = list(rows["label"].unique())
    several = math.ceil(len(labels) / ACROSS)
    grid = place.subgridspec(len(_NAMES) * several, ACROSS).subplots(squeeze=False)
    for index, (panel, (name, depth)) in enumerate(_NAMES.items()):
        axes = list(grid[index * several : (index + 1) * several].flat)
        for ax in axes[len(labels) :]:
            ax.set_axis_off()
        _draw_panels(axes[: len(labels)], pick(rows, panel=panel), labels, look, curve)
        for at, ax in enumerate(axes[: len(labels)]):
            drawing.counted_axis(ax, depth if at + ACROSS >= len(labels) else "", most=4)
        for ax in axes[: len(labels) : ACROSS]:
            ax.set_ylabel(name)


def _draw_panels(
    axes: Sequence[Axes], rows: pd.DataFrame, labels: Sequence[str], look: Mapping[str, drawing.Look], curve: Any
) -> None:
    measured = pick(rows, quantity="measured")
    for at, (ax, label) in enumerate(zip(axes, labels, strict=True)):
        if at:
            ax.sharex(axes[0])
            ax.sharey(axes[0])
        for _, other in measured[measured["label"] != label].groupby("label", sort=False):
            other = other.sort_values("x")
            ax.plot(other["x"], other["value"], color=drawing.OTHERS, linewidth=0.6, zorder=1)
        curve(ax, pick(rows, label=label), look)
        ax.set_title(drawing.in_lines(label), fontsize=7, color=look[label]["color"])
        drawing.value_axis(ax, rows["value"], log_from=5, small=True)
        ax.tick_params(labelleft=at % ACROSS == 0, labelbottom=at + ACROSS >= len(labels))
