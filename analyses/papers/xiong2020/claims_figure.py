"""The figure of ``xiong2020_claims``: a panel a claim, a row a task, optimizer and learning rate."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analyses import drawing
from analyses.papers import claims_axes
from analyses.papers.claims_axes import LOOKS
from analyses.papers.xiong2020.verdicts import WORDS, name_of
from analyses.tables import pick

_ROW, _PANEL, _ENDS = 0.16, 0.34, 0.75


def plot(table: pd.DataFrame, figure: Figure) -> None:
    """Draw the claims' differences with their intervals; positive speaks for the favoured setting.

    Args:
        table: of ``claims.compute``.
        figure: an empty one; its height is set to its rows.
    """
    if table.empty:
        drawing.say(figure, "No two training runs share task, optimizer, learning rate and seed as a claim asks.")
        return
    shown = [code for code in WORDS if (table["code"] == code).any()]
    heights = [_PANEL + _ROW * len(pick(table, code=code)) for code in shown]
    figure.set_size_inches(figure.get_figwidth(), sum(heights) + _ENDS)
    axes = figure.subplots(len(shown), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    for ax, code in zip(axes, shown, strict=True):
        _draw(ax, pick(table, code=code), code)
    _scale(axes[-1], table)
    axes[-1].set_xlabel("held-out loss lower by % of that with the whole warm-up")
    keys = [drawing.entry(name, **{"linestyle": "", "markersize": 4.5, **look}) for name, look in LOOKS.items()]
    drawing.legend(figure, [*keys, drawing.entry("what the claim asks for", **drawing.DOTTED)])


def _draw(ax: Axes, rows: pd.DataFrame, code: str) -> None:
    claims_axes.lines(ax, float(rows["bar"].iloc[0]))
    for place, (_, row) in enumerate(rows.iterrows()):
        look = LOOKS[str(row["verdict"])]
        if row["diverged"] > 0:
            words = f"{row['verdict']}: {claims_axes.who_diverged(row, _setting)}"
            claims_axes.say(ax, place, words, look["color"])
        else:
            claims_axes.difference(ax, place, row, look)
    claims_axes.signed_rows(ax, [name_of(row) for _, row in rows.iterrows()])
    ax.set_title(f"{code}  {WORDS[code].title}", fontsize=7.2)


def _setting(text: str) -> str:
    variant, _, warm_up = text.partition(", ")
    return f"{'Post-LN' if variant == 'post-ln' else 'Pre-LN'} with {warm_up.replace('none', 'no')} warm-up"


def _scale(ax: Axes, table: pd.DataFrame) -> None:
    ends = table[["value", "low", "high", "bar"]].to_numpy(dtype=np.float64)
    reach = 1.12 * float(np.nanmax(np.abs(ends)))
    ax.set_xlim(-reach, reach)
    ax.xaxis.set_major_locator(MaxNLocator(9, symmetric=True))
