"""The first page's strip: loss and gradient norm side by side, with the steps at which something began."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from analyses import drawing
from analyses.tables import pick
from gradlens.analysis import Finding

_PANELS = {"loss": "loss", "gradient norm": "gradient norm"}
#: Marks that one strip has room for, and runs that a legend has.
_MOST, _NAMED = 3, 6
_MARK = "#a3170f"


def strip(table: pd.DataFrame, figure: Figure, causes: Sequence[Finding]) -> None:
    """Draw loss and gradient norm over the steps, and a line where each of the first causes began.

    Args:
        table: of ``compute``.
        figure: an empty one.
        causes: findings that no other explains, in order.
    """
    drawn = table[table["panel"].isin(_PANELS)]
    panels = [panel for panel in _PANELS if (drawn["panel"] == panel).any()]
    look = drawing.looks(drawn, dashes=True)
    began = [finding for finding in causes if finding.onset is not None][:_MOST]
    for ax, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        own = pick(drawn, panel=panel)
        for label, rows in own.groupby("label", sort=False):
            drawing.series(ax, pick(rows, quantity="raw"), pick(rows, quantity="smoothed"), look[str(label)])
        drawing.value_axis(ax, own["value"], f"{_PANELS[panel]} ({own['unit'].iloc[0]})", small=True)
        drawing.counted_axis(ax, "step")
        for finding in began:
            ax.axvline(float(finding.onset or 0), color=_MARK, linewidth=0.9, linestyle=(0, (4, 2)), zorder=6)
            ax.annotate(f"{finding.code} ", (float(finding.onset or 0), 1.0), xycoords=("data", "axes fraction"),
                        ha="right", va="top", fontsize=6.5, color=_MARK, rotation=90)  # fmt: skip
    if 1 < drawn["label"].nunique() <= _NAMED:
        drawing.legend(figure, drawing.run_entries(drawn, look, marker=""))
