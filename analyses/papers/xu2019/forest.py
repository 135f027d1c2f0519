"""The figure of ``xu2019_claims``: a panel a claim, a row a task."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analyses import drawing
from analyses.limits import limit
from analyses.papers import claims_axes
from analyses.papers.claims import Claim
from analyses.papers.xu2019.claimed import CLAIMS
from analyses.papers.xu2019.metrics import METRICS
from analyses.papers.xu2019.panels import named
from analyses.papers.xu2019.runs import NORMS, in_order
from analyses.tables import pick

_NOT_COUNTED = {"color": "#a9afb8", "marker": "d"}
#: From this many per cent on, an axis is logarithmic beyond a linear middle of this many.
_FAR, _NEAR = 30.0, 2.0
_APART, _COLUMNS = 0.21, 2


def plot(table: pd.DataFrame, figure: Figure) -> None:
    """Draw the claims' differences with their intervals; positive speaks for the claim."""
    if table.empty:
        drawing.say(figure, "No two runs share a task and a seed and differ in the norm as a claim of the paper asks.")
        return
    tasks = in_order(table["task"], METRICS)
    axes = figure.subplots(len(CLAIMS) // _COLUMNS, _COLUMNS, squeeze=False)
    for claim, ax in zip(CLAIMS, axes.flat, strict=True):
        _draw(ax, pick(table, code=claim.code), claim, tasks)
    for ax in axes[:, 1:].flat:
        ax.set_yticklabels([])
    more = {} if (table["counted"] == 1).all() else {"not_counted": _NOT_COUNTED}
    margin = f"{100 * limit('GL501', 'margin'):g} % worse: still no difference"
    drawing.legend(figure, claims_axes.entries(margin, **more), columns=5)


def _draw(ax: Axes, rows: pd.DataFrame, claim: Claim, tasks: list[str]) -> None:
    bar = None if claim.compared[0].better else -100 * limit("GL501", "margin")
    claims_axes.panel(ax, claim, [named(task) for task in tasks], bar)
    for place, task in enumerate(tasks):
        own = pick(rows, task=task)
        if own.empty:
            claims_axes.say(ax, place, "no pair of runs")
        for index, (_, row) in enumerate(own.iterrows()):
            shift = (index - (len(own) - 1) / 2) * 2 * _APART
            other = None if row["counted"] == 1 else _NOT_COUNTED
            claims_axes.comparison(ax, place + shift, row, NORMS.__getitem__, other)
    ends = rows[["value", "low", "high"]].to_numpy(dtype="float64")
    _scale(ax, float(np.nanmax(np.abs(ends))) if np.isfinite(ends).any() else 0.0)
    claims_axes.signed_axis(ax)
    ax.set_xlabel(_axis_label(rows), fontsize=6.8)


def _scale(ax: Axes, most: float) -> None:
    """Scale the horizontal axis evenly about 0; logarithmic beyond the middle where one value lies far out."""
    reach = max(1.12 * most, 2.2 * 100 * limit("GL501", "margin"))
    if most > _FAR:
        ax.set_xscale("symlog", linthresh=_NEAR, linscale=0.7)
        decades = [10.0**k for k in range(1, 7) if 10.0**k <= reach]
        ticks = [_NEAR, *decades[:: 1 + len(decades) // 4]]
        ax.set_xticks([-t for t in reversed(ticks)] + [0.0, *ticks])
        ax.set_xticks([], minor=True)
        reach *= 1.25
    else:
        ax.xaxis.set_major_locator(MaxNLocator(6, symmetric=True))
    ax.set_xlim(-reach, reach)


def _scales(rows: pd.DataFrame) -> list[str]:
    """Return the norms whose score the drawn numbers are shares of."""
    return [str(norm) for norm in rows.loc[rows["value"].notna(), "scale"].unique()]


def _axis_label(rows: pd.DataFrame) -> str:
    """Name what is subtracted from what, and the unit."""
    if rows.empty:
        return "\n"
    if len(set(rows["measure"])) > 1:
        return "upper: LayerNorm's lower training loss; lower: its\nhigher held-out loss; % of LayerNorm's"
    row, others = rows.iloc[0], [NORMS[s] for s in _scales(rows) if s != "layernorm"]
    of = f" (or of {others[0]}'s)" if others else ""
    return f"{NORMS[row['favoured']]} better than {NORMS[row['against']]} by\n% of LayerNorm's score{of}"
