"""The figure of ``xiong2020_claims``: a panel a claim, a row a task, optimizer and learning rate."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analyses import drawing
from analyses.papers import claims_axes
from analyses.papers.xiong2020.claimed import CLAIMS
from analyses.papers.xiong2020.measured import PAPER
from analyses.papers.xiong2020.runs import name_of
from analyses.tables import pick

_ROW, _PANEL, _ENDS = 0.16, 0.34, 0.75


def plot(table: pd.DataFrame, figure: Figure) -> None:
    """Draw the claims' differences with their intervals; positive speaks for the favoured setting.

    The figure's height is set to its rows.
    """
    if table.empty:
        drawing.say(figure, "No two training runs share task, optimizer, learning rate and seed as a claim asks.")
        return
    shown = [claim for claim in CLAIMS if (table["code"] == claim.code).any()]
    heights = [_PANEL + _ROW * len(pick(table, code=claim.code)) for claim in shown]
    figure.set_size_inches(figure.get_figwidth(), sum(heights) + _ENDS)
    axes = figure.subplots(len(shown), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    for ax, claim in zip(axes, shown, strict=True):
        rows = pick(table, code=claim.code)
        claims_axes.panel(ax, claim, [name_of(row) for _, row in rows.iterrows()], float(rows["bar"].iloc[0]))
        for place, (_, row) in enumerate(rows.iterrows()):
            claims_axes.comparison(ax, place, row, _setting)
        claims_axes.signed_axis(ax)
    reach = 1.12 * float(np.nanmax(np.abs(table[["value", "low", "high", "bar"]].to_numpy(dtype=np.float64))))
    axes[-1].set_xlim(-reach, reach)
    axes[-1].xaxis.set_major_locator(MaxNLocator(9, symmetric=True))
    axes[-1].set_xlabel("held-out loss lower by % of that with the whole warm-up")
    drawing.legend(figure, claims_axes.entries("what the claim asks for"))


def _setting(text: str) -> str:
    variant, _, warm_up = text.partition(", ")
    return f"{PAPER[variant]} with {warm_up.replace('none', 'no')} warm-up"
