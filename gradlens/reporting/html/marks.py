"""What is drawn in the axes of a figure, read back as numbers: lines, areas, words and grids of colours."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cbook import is_math_text
from matplotlib.collections import LineCollection, PathCollection, PolyCollection
from matplotlib.colors import LogNorm, Normalize, to_hex, to_rgba
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.markers import MarkerStyle
from matplotlib.patches import Patch
from matplotlib.path import Path
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Affine2D, Transform, blended_transform_factory

#: Points of the lines of a figure; of more, each is drawn by the least and the largest of successive ones, but so many.
MOST_POINTS, FEWEST_POINTS = 150_000, 100
#: Colours of a grid's scale.
_SHADES = 32
_NONE = ("None", "none", "", " ")

Mark = dict[str, Any]


class UnknownMarkError(Exception):
    """Something is drawn that is not read here; its figure is shown as it is."""


def marks(ax: Axes, most: int) -> list[Mark]:
    """Read what is drawn in axes, the lowest first.

    Args:
        ax: of a figure that is laid out.
        most: points of a line.

    Raises:
        UnknownMarkError: something in them is not read here.
    """
    frame = {ax.patch, *titles(ax), ax.xaxis, ax.yaxis, *ax.spines.values(), ax.get_legend()}
    drawn = [artist for artist in ax.get_children() if artist not in frame and artist.get_visible()]
    drawn.sort(key=lambda artist: artist.get_zorder())
    found = [mark for artist in drawn for mark in _reader(artist)(ax, artist)]
    return [_thinned(mark, most) if mark["kind"] == "line" else mark for mark in found]


def titles(ax: Axes) -> tuple[Text, ...]:
    """Return what stands over axes, from left to right."""
    return vars(ax)["_left_title"], ax.title, vars(ax)["_right_title"]


def colour(value: Any) -> str:
    """Return a colour as CSS has it, on a light page and on a dark one."""
    red, green, blue, _ = to_rgba(value)
    parts, most, least = (red, green, blue), max(red, green, blue), min(red, green, blue)
    if most - least < 0.15:  # a grey stands as far from black as it did from white
        red, green, blue = (0.12 + 0.85 * (1 - part) for part in parts)
    else:
        paler = 0.0 if most + least > 1.1 else 0.22
        red, green, blue = (part + (1 - part) * paler for part in parts)
    return f"light-dark({to_hex(parts)}, {to_hex((red, green, blue))})"


def look(line: Line2D) -> Mark:
    """Return how a line is drawn: colour, width, dashes in points; its marker as ``outline`` has it, and how filled."""
    marker = MarkerStyle(line.get_marker(), line.get_fillstyle())
    path = marker.get_path().transformed(marker.get_transform()).transformed(Affine2D().scale(line.get_markersize()))
    return {
        "colour": colour(line.get_color()),
        "alpha": _alpha(line, line.get_color()),
        "width": 0.0 if line.get_linestyle() in _NONE else line.get_linewidth(),
        "dashes": [float(part) for part in vars(line)["_dash_pattern"][1] or ()],
        "shape": str(line.get_marker()),
        "marker": outline(path),
        "inside": colour(line.get_markerfacecolor()),
        "filled": "" if not marker.is_filled() else "paper" if _clear(line.get_markerfacecolor()) else "colour",
    }


def outline(path: Path) -> str:
    """Return a path as SVG has it, in points, each part from where the one before ended."""
    letters, drawn = {Path.MOVETO: "m", Path.LINETO: "l", Path.CURVE3: "q", Path.CURVE4: "c", Path.CLOSEPOLY: "z"}, []
    here = start = np.zeros(2)
    for points, code in path.iter_segments(simplify=False):
        ends = code == Path.CLOSEPOLY
        steps = (np.reshape(points, (-1, 2)) - here) * (1, -1) + 0.0  # without a minus before 0
        drawn.append(letters[code] + ("" if ends else " ".join(f"{step:.3g}" for step in steps.ravel())))
        here = start if ends else points[-2:]
        start = here if code == Path.MOVETO else start
    return "".join(drawn)


def _clear(value: Any) -> bool:
    return to_hex(value, keep_alpha=True) in ("#00000000", "#ffffffff")


def _reader(artist: Artist) -> Callable[[Axes, Any], Iterator[Mark]]:
    readers: dict[type[Artist], Callable[[Axes, Any], Iterator[Mark]]] = {
        Line2D: _line,
        PolyCollection: _areas,
        LineCollection: _strokes,
        PathCollection: _points,
        Annotation: _annotation,
        Text: _text,
        AxesImage: _grid,
        Patch: _patch,
    }
    for kind, reader in readers.items():
        if isinstance(artist, kind):
            return reader
    raise UnknownMarkError(type(artist).__name__)


def _line(ax: Axes, line: Line2D) -> Iterator[Mark]:
    points = np.column_stack([line.get_xdata(orig=False), line.get_ydata(orig=False)]).astype(float)
    label = str(line.get_label())
    if len(points):
        named = {"name": "" if label.startswith("_") else label}
        yield {"kind": "line", **named, **look(line), **_placed(ax, line.get_transform(), points)}


def _thinned(line: Mark, most: int) -> Mark:
    """Keep of successive points the least and the largest, where there are very many."""
    y = np.array([np.nan if value is None else value for value in line["y"]])
    if len(y) <= most:
        return line
    kept: list[int] = []
    for part in np.array_split(np.arange(len(y)), most // 2):
        kept += sorted({int(part[np.argmin(y[part])]), int(part[np.argmax(y[part])])})  # or the first that is none
    return line | {"x": [line["x"][i] for i in kept], "y": [line["y"][i] for i in kept]}


def _areas(ax: Axes, areas: PolyCollection) -> Iterator[Mark]:
    yield from _filled(ax, areas, [path.vertices for path in areas.get_paths()], areas.get_facecolor())


def _patch(ax: Axes, patch: Patch) -> Iterator[Mark]:
    path = patch.get_patch_transform().transform_path(patch.get_path())
    if path.codes is not None and not {*np.ravel(path.codes)} <= {1, 2, 79}:  # moves, lines and an end: no curves
        raise UnknownMarkError(type(patch).__name__)
    yield from _filled(ax, patch, [path.vertices], [patch.get_facecolor()])


def _filled(ax: Axes, artist: Any, outlines: Any, colours: Any) -> Iterator[Mark]:
    if len(colours) != 1 or artist.get_hatch():
        raise UnknownMarkError(f"{type(artist).__name__} of several colours, or hatched")
    to = artist.get_data_transform() if isinstance(artist, Patch) else artist.get_transform()
    width, edges = float(np.ravel(artist.get_linewidth())[0]), np.atleast_2d(artist.get_edgecolor())
    for outline in outlines:
        placed = _placed(ax, to, outline)
        if _alpha(artist, colours[0]):
            yield {"kind": "area", "colour": colour(colours[0]), "alpha": _alpha(artist, colours[0]), **placed}
        if width and edges.size and edges[0][3]:
            yield {"kind": "line", "width": width, **_stroke(artist, edges[0]), **placed}


def _strokes(ax: Axes, strokes: Any) -> Iterator[Mark]:
    for index, segment in enumerate(strokes.get_segments()):
        own = strokes.get_colors()[index % len(strokes.get_colors())]
        width = float(strokes.get_linewidths()[index % len(strokes.get_linewidths())])
        yield {"kind": "line", "width": width, **_stroke(strokes, own), **_placed(ax, strokes.get_transform(), segment)}


def _stroke(artist: Artist, own: Any) -> Mark:
    return {"colour": colour(own), "alpha": _alpha(artist, own), "dashes": [], "shape": "", "marker": ""}


def _points(ax: Axes, points: PathCollection) -> Iterator[Mark]:
    if len(points.get_facecolor()) != 1 or len(points.get_sizes()) != 1:
        raise UnknownMarkError("points of several colours or sizes")
    own, path = points.get_facecolor()[0], points.get_paths()[0]
    marker = outline(path.transformed(Affine2D().scale(float(points.get_sizes()[0]) ** 0.5)))
    facts = {"colour": colour(own), "alpha": _alpha(points, own), "width": 0.0, "dashes": [], "shape": "points"}
    placed = _placed(ax, points.get_offset_transform(), points.get_offsets())
    yield {"kind": "line", **facts, "marker": marker, "inside": colour(own), "filled": "colour", **placed}


def _text(ax: Axes, text: Text) -> Iterator[Mark]:
    if text.get_text():
        place = np.array([text.get_position()], float)
        yield _words(text) | _placed(ax, text.get_transform(), place) | {"shift": [0, 0]}


def _annotation(ax: Axes, note: Annotation) -> Iterator[Mark]:
    """Read a note's words, at the point that it is of; how far they stand from it is said in points."""
    if note.arrowprops is not None:
        raise UnknownMarkError("an arrow")
    among = {"data": ax.transData, "axes fraction": ax.transAxes}
    of: Any = note.xycoords if isinstance(note.xycoords, tuple) else (note.xycoords, note.xycoords)
    if not {*of} <= {*among}:
        raise UnknownMarkError(f"a note at {note.xycoords}")
    to = blended_transform_factory(*(among[one] for one in of))
    here, there = to.transform(note.xy), note.get_transform().transform(note.get_position())
    shift = (there - here) * 72 / ax.figure.dpi
    yield _words(note) | _placed(ax, to, np.array([note.xy], float)) | {"shift": [float(shift[0]), float(-shift[1])]}


def words(text: Text) -> str:
    """Return what a text says.

    Raises:
        UnknownMarkError: it is a formula.
    """
    if text.get_parse_math() and is_math_text(text.get_text()):
        raise UnknownMarkError("a formula")
    return text.get_text()


def _words(text: Text) -> Mark:
    return {
        "kind": "text",
        "text": words(text),
        "colour": colour(text.get_color()),
        "size": text.get_fontsize(),
        "across": {"left": "start", "center": "middle", "right": "end"}[text.get_horizontalalignment()],
        "down": text.get_verticalalignment().replace("center_baseline", "center"),
        "turn": -text.get_rotation(),
        "boxed": text.get_bbox_patch() is not None,
    }


def _grid(ax: Axes, image: Any) -> Iterator[Mark]:
    values: np.ndarray = np.ma.filled(np.ma.asarray(image.get_array(), float), np.nan)
    scale = image.norm
    if values.ndim != 2 or type(scale) not in (Normalize, LogNorm):
        raise UnknownMarkError("a picture")
    if image.origin == "lower":
        values = values[::-1]
    yield grid(values, image.get_extent(), image.get_cmap(), scale)


def grid(values: np.ndarray, extent: Any, colours: Callable[[float], Any], scale: Normalize, digits: int = 6) -> Mark:
    """Return a grid of values as a mark.

    Args:
        values: [rows, columns], the first row on top; NaN where there is none.
        extent: left, right, bottom and top of it all, as of ``imshow``.
        colours: of shares from 0 to 1.
        scale: from values to shares.
        digits: that are kept of a value.
    """
    return {
        "kind": "grid",
        "values": [numbers(row, digits) for row in values],
        "extent": [float(end) for end in extent],
        "shades": [to_hex(colours(share)) for share in np.linspace(0, 1, _SHADES)],
        "low": float(scale.vmin or 0),
        "high": float(scale.vmax or 0),
        "log": isinstance(scale, LogNorm),
        "frame": [0, 0],
    }


def numbers(values: Any, digits: int = 6) -> list[float | None]:
    """Return numbers with more digits than anybody reads off a figure; None for what is none."""
    return [float(f"{value:.{digits}g}") if np.isfinite(value) else None for value in np.asarray(values, float)]


def _placed(ax: Axes, to: Transform, points: Any) -> Mark:
    """Return where points are: in the axes' own units or, where ``frame`` is 1, as shares of their width or height."""
    points = np.ma.filled(np.ma.asarray(points, float), np.nan)
    own = to.contains_branch_seperately(ax.transData)
    shares = points if all(own) else ax.transAxes.inverted().transform(to.transform(points))
    x, y = ((points if here else shares)[:, axis] for axis, here in enumerate(own))
    return {"x": numbers(x), "y": numbers(y), "frame": [int(not here) for here in own]}


def _alpha(artist: Artist, value: Any) -> float:
    return float(to_rgba(value, artist.get_alpha())[3])
