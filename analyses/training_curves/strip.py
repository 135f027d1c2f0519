"""The first page's strip: loss and gradient norm side by side, with the steps at which something began."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from analyses import drawing
from analyses.tables import pick
from gradlens.analysis import Finding

_PANELS = {"loss": "loss", "gradient norm": "gradient norm"}
#: Marks that one strip has room for; of more runs than a legend has room for, the best and the worst are named.
_MOST, _NAMED, _BEST, _WORST = 3, 6, 3, 2
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
    told = _told(drawn)
    began = [finding for finding in causes if finding.onset is not None][:_MOST]
    for ax, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        own = pick(drawn, panel=panel)
        for label, rows in own.groupby("label", sort=False):
            raw, smooth = pick(rows, quantity="raw"), pick(rows, quantity="smoothed")
            if label in told:
                drawing.series(ax, raw, smooth, look[str(label)])
            else:
                ax.plot(smooth["x"], smooth["value"], color=drawing.OTHERS, linewidth=0.6, zorder=1)
        drawing.value_axis(ax, own["value"], f"{_PANELS[panel]}\n({own['unit'].iloc[0]})", small=True)
        drawing.counted_axis(ax, "step")
        for finding in began:
            ax.axvline(float(finding.onset or 0), color=_MARK, linewidth=0.9, linestyle=(0, (4, 2)), zorder=6)
            ax.annotate(f"{finding.code} ", (float(finding.onset or 0), 1.0), xycoords=("data", "axes fraction"),
                        ha="right", va="top", fontsize=6.5, color=_MARK, rotation=90)  # fmt: skip
    several = drawn["label"].nunique()
    named = [drawing.entry(label, **(look[label] | {"marker": ""})) for label in told]
    if several > len(told):
        named.append(drawing.entry(f"{several - len(told)} others", color=drawing.OTHERS))
    if several > 1:
        drawing.legend(figure, named)


def _told(drawn: pd.DataFrame) -> list[str]:
    """Return the runs that are drawn in colour: all where they are few, else those that end lowest and highest."""
    labels = [str(label) for label in drawn["label"].unique()]
    if len(labels) <= _NAMED:
        return labels
    loss = pick(drawn, panel="loss", quantity="smoothed")
    ends = (loss if len(loss) else pick(drawn, quantity="smoothed")).sort_values("x").groupby("label")["value"].last()
    ranked = [str(label) for label in ends.sort_values().index]
    return [*ranked[:_BEST], *ranked[-_WORST:]]
