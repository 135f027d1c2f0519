"""What every figure must not do: cut a text, or change with a table that was written and read."""

from matplotlib.backends.backend_agg import FigureCanvasAgg

from gradlens.analysis import Analysis
from gradlens.analysis.figures import draw
from gradlens.recording import Recording


def cut_texts(analysis: Analysis, recordings: list[Recording]) -> list[str]:
    """Name the panels and legends that reach over the edge of the page, or into each other."""
    figure = draw(analysis, analysis.compute(recordings))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    inside = figure.bbox.expanded(1.001, 1.001)
    boxes = [(a.get_title(loc="left") or str(k), a.get_tightbbox(canvas.get_renderer()))
             for k, a in enumerate(figure.axes)]  # fmt: skip
    boxes += [("legend", legend.get_window_extent(canvas.get_renderer())) for legend in figure.legends]
    cut = [name for name, box in boxes if not (inside.contains(*box.min) and inside.contains(*box.max))]
    for index, (name, box) in enumerate(boxes):
        for other, second in boxes[index + 1 :]:
            shared = box.intersection(box, second)
            if shared is not None and min(shared.width, shared.height) >= 2.0:
                cut.append(f"{name} and {other}")
    return cut
