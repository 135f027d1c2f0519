"""Figures as SVG whose text is text, the same bytes for the same figure."""

import io
import warnings

import matplotlib
from matplotlib.figure import Figure

from gradlens.analysis.figures import STYLE


def to_svg(figure: Figure) -> bytes:
    """Write a figure as SVG.

    Args:
        figure: drawn by ``gradlens.analysis.figures.draw``.

    Returns:
        The file: fonts by name and not embedded, no date, ids from a fixed salt.
    """
    out = io.BytesIO()
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # Only the metrics of such a glyph are missing here; the typesetter finds a font for it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()
