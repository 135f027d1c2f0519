"""Whether a figure can be read: no text is cut, no panel runs into another."""

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def picture(figure: Figure) -> bytes:
    """Draw a figure, assert that it can be read, and return its pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer, inside = canvas.get_renderer(), figure.bbox.expanded(1.001, 1.001)
    panels = [(a.get_title(loc="left"), b) for a in figure.axes if a.axison and (b := a.get_tightbbox(renderer))]
    panels += [("legend", legend.get_window_extent(renderer)) for legend in figure.legends]
    words = [(t.get_text(), t.get_window_extent(renderer)) for a in figure.axes for t in (*a.texts, a.xaxis.label)]
    words += [(a.get_title(loc="left"), a._left_title.get_window_extent(renderer)) for a in figure.axes]  # type: ignore[attr-defined]
    for name, box in panels + [(name, box) for name, box in words if name]:
        assert inside.contains(*box.min), name
        assert inside.contains(*box.max), name
    for index, (name, box) in enumerate(panels):
        for other, second in panels[index + 1 :]:
            shared = box.intersection(box, second)
            assert shared is None or min(shared.width, shared.height) < 2.0, f"{name} and {other}"
    for axes in figure.axes:
        own = [(t.get_text(), t.get_window_extent(renderer)) for t in axes.texts]
        for index, (name, box) in enumerate(own):
            for other, second in own[index + 1 :]:
                shared = box.intersection(box, second)
                assert shared is None or min(shared.width, shared.height) < 2.0, f"{name} and {other}"
        right = axes.get_window_extent(renderer).x1
        assert all(box.x1 <= right + 1.0 for _, box in own), [name for name, _ in own]
    return bytes(canvas.buffer_rgba())
