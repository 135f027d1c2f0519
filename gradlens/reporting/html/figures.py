"""A matplotlib figure as plain data that a page draws: rows of panels, and what its legend says.

What is not known here is not lost: a figure that holds any of it is shown as matplotlib draws it.
"""

import base64
import math
import re
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cbook import is_math_text
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from gradlens.reporting.figures import to_svg
from gradlens.reporting.html.marks import (
    FEWEST_POINTS,
    MOST_POINTS,
    Mark,
    UnknownMarkError,
    colour,
    look,
    marks,
    titles,
    words,
)

#: Panels whose middles differ by less than this share of the figure's height stand in one row.
_ROW = 0.03
_THINNED = "Lines of very many points are drawn by the least and the largest of successive ones."
_SCALES = ("linear", "log", "symlog")


def drawing(figure: Figure) -> dict[str, Any]:
    """Return a figure as data.

    Args:
        figure: drawn by ``gradlens.analysis.figures.draw``.

    Returns:
        ``rows`` of panels and ``legend``; or ``svg``, base64, where something in it is not known.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # the browser finds another
        figure.draw_without_rendering()
    try:
        return _read(figure)
    except Exception:  # whatever somebody's analysis draws, it is shown
        return {"svg": base64.b64encode(to_svg(figure)).decode()}


def _read(figure: Figure) -> dict[str, Any]:
    bars = [image.colorbar.ax for ax in figure.axes for image in ax.images if image.colorbar]
    shown = [ax for ax in figure.axes if ax not in bars and ax.get_visible()]
    known = {figure.patch, *figure.axes, *figure.legends, *figure.texts}
    boxes = [tuple(ax.get_position().bounds) for ax in shown]
    plain = all(ax.name == "rectilinear" and ax.axison for ax in shown)
    if {*figure.get_children()} - known or len({*boxes}) < len(boxes) or not plain:
        raise UnknownMarkError("pictures in pictures, axes on axes, round ones or none")
    legend = [entry for one in figure.legends for entry in _legend(one)]
    points = [len(np.ravel(line.get_xdata())) for ax in shown for line in ax.lines]
    most = max(MOST_POINTS // max(len(points), 1), FEWEST_POINTS) if sum(points) > MOST_POINTS else MOST_POINTS
    rows = [_row(row, legend, most) for row in _rows(shown)]
    across = [panel["x"] for row in rows for panel in row["panels"]]
    names = {axis["label"] for axis in across if axis["label"]}
    for axis in across:  # often only the lowest panels say what all of them share
        axis["name"] = axis["label"] or (min(names) if len(names) == 1 else "")
    return {
        "legend": legend,
        "said": [
            *filter(None, map(words, figure.texts)),
            *[_THINNED] * (max(points, default=0) > most),
        ],
        "rows": rows,
    }


def _row(axes: Sequence[Axes], legend: Sequence[Mark], most: int) -> dict[str, Any]:
    """Read panels that stand beside each other; a legend that one of them has alone is of them all."""
    own = [_legend(found) if (found := ax.get_legend()) else [] for ax in axes]
    with_own = [entries for entries in own if entries]
    shared = with_own[0] if len(with_own) == 1 else []
    panels = [
        _panel(ax, [*entries, *shared, *legend], most) | {"legend": [] if shared else entries}
        for ax, entries in zip(axes, own, strict=True)
    ]
    return {"legend": shared, "panels": panels}


def _rows(axes: Sequence[Axes]) -> list[list[Axes]]:
    """Group axes by their height in the figure, from above; in a row from left to right."""

    def middle(ax: Axes) -> float:
        return float(sum(ax.get_position().intervaly) / 2)

    rows: list[list[Axes]] = []
    for ax in sorted(axes, key=middle, reverse=True):
        if rows and middle(rows[-1][0]) - middle(ax) < _ROW:
            rows[-1].append(ax)
        else:
            rows.append([ax])
    return [sorted(row, key=lambda ax: ax.get_position().x0) for row in rows]


def _panel(ax: Axes, legend: Sequence[Mark], most: int) -> dict[str, Any]:
    return {
        "title": " ".join(filter(None, map(words, titles(ax)))),
        "height": float(ax.bbox.height / ax.figure.dpi),
        "x": _axis(ax.xaxis),
        "y": _axis(ax.yaxis),
        "hatched": bool(ax.patch.get_hatch()),
        "key": next((image.colorbar.ax.get_ylabel() for image in ax.images if image.colorbar), ""),
        "marks": [mark | _named(mark, legend) for mark in marks(ax, most)],
    }


def _named(mark: Mark, legend: Sequence[Mark]) -> Mark:
    """Give a line the name that the legend has for it: of the entry in its colour that looks most like it."""
    if mark["kind"] != "line" or mark.get("name"):
        return {}
    same = [entry for entry in legend if entry["colour"] == mark["colour"]]
    alike = max(same, key=lambda entry: sum(entry.get(of) == mark[of] for of in ("dashes", "shape")), default=None)
    return {"name": alike["text"] if alike else ""}


def _legend(legend: Legend) -> list[Mark]:
    return [
        {"text": words(text), **_swatch(handle)}
        for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True)
    ]


def _swatch(handle: Artist | None) -> Mark:
    if isinstance(handle, Line2D):
        return look(handle)
    if isinstance(handle, Patch):
        return {"colour": colour(handle.get_facecolor()), "fill": to_rgba(handle.get_facecolor())[3]}
    raise UnknownMarkError(f"a legend's {type(handle).__name__}")


def _axis(axis: Axis) -> dict[str, Any]:
    scale = axis.get_scale()
    if scale not in _SCALES:
        raise UnknownMarkError(f"the scale {scale}")
    return {
        "label": words(axis.label),
        "scale": scale,
        "linear_below": vars(axis.get_transform()).get("linthresh", 0.0),
        "ends": [float(end) for end in axis.get_view_interval()],
        "ticks": _names(axis),
    }


def _names(axis: Axis) -> list[tuple[float, str]] | None:
    """Return places and words of ticks that say something else than their own number; else None."""
    places, formatter = axis.get_majorticklocs(), axis.get_major_formatter()
    written = (text.replace("−", "-") for text in formatter.format_ticks(list(places)))
    said = [re.sub(r"^\$\\mathdefault\{(.*)\}\$$", r"\1", text) for text in written]
    own = (text == "" or "10^" in text or _is(text, at) for text, at in zip(said, places, strict=True))
    if formatter.get_offset() or (any(said) and all(own)):
        return None
    if any(map(is_math_text, said)):
        raise UnknownMarkError("formulas at ticks")
    return [(float(at), text) for at, text in zip(places, said, strict=True) if text]


def _is(text: str, value: float) -> bool:
    try:
        return math.isclose(float(text), value, rel_tol=0.01, abs_tol=1e-12)
    except ValueError:
        return False
