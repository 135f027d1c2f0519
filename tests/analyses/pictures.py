"""What no figure may do: cut a text, or let panels or texts run into each other. And its pixels, to compare two."""

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

#: What is drawn and where, in pixels.
Boxes = list[tuple[str, Bbox]]


def pixels(figure: Figure) -> bytes:
    """Draw a figure and return its pixels."""
    return bytes(_drawn(figure).buffer_rgba())


def faults(figure: Figure) -> list[str]:
    """Name what is cut by the figure's edge, what overlaps, and the texts that leave their panel to the right."""
    renderer = _drawn(figure).get_renderer()
    extents = [(axes, axes.get_tightbbox(renderer)) for axes in figure.axes]
    panels = [(axes.get_title(loc="left") or str(k), box) for k, (axes, box) in enumerate(extents) if box is not None]
    panels += [("legend", legend.get_window_extent(renderer)) for legend in figure.legends]
    words = [
        (text.get_text(), text.get_window_extent(renderer))
        for axes in figure.axes
        for text in (*axes.texts, axes.xaxis.label, axes._left_title)  # type: ignore[attr-defined]
        if text.get_text()
    ]
    found = [*_cut(figure.bbox.expanded(1.001, 1.001), panels + words), *_overlapping(panels)]
    for axes in figure.axes:
        own = [(text.get_text(), text.get_window_extent(renderer)) for text in axes.texts]
        right = axes.get_window_extent(renderer).x1
        found += [*_overlapping(own), *(f"{name} right of its panel" for name, box in own if box.x1 > right + 1.0)]
    return found


def _drawn(figure: Figure) -> FigureCanvasAgg:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas


def _cut(inside: Bbox, boxes: Boxes) -> list[str]:
    return [f"{name} cut" for name, box in boxes if not (inside.contains(*box.min) and inside.contains(*box.max))]


def _overlapping(boxes: Boxes) -> list[str]:
    pairs = [(one, other) for index, one in enumerate(boxes) for other in boxes[index + 1 :]]
    shared = [(a, b, Bbox.intersection(one, other)) for (a, one), (b, other) in pairs]
    return [f"{a} and {b}" for a, b, box in shared if box is not None and min(box.width, box.height) >= 2.0]
