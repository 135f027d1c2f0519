"""The figure of ``xiong2020_claims``: a panel a claim, a row an optimizer and learning rate."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from analyses import drawing
from analyses.papers.xiong2020.verdicts import WORDS, name_of
from analyses.tables import pick

#: Verdict to colour and marker: told apart in grey too.
_LOOKS: dict[str, dict[str, Any]] = {
    "supports": {"color": "#0072B2", "marker": "o"},
    "contradicts": {"color": "#D55E00", "marker": "X"},
    "undecided": {"color": "#6b717a", "marker": "o", "markerfacecolor": "white", "markeredgewidth": 1.1},
}
_ROW, _PANEL, _ENDS = 0.16, 0.34, 0.75


def plot(table: pd.DataFrame, figure: Figure) -> None:
    """Draw the claims' differences with their intervals; positive speaks for the favoured setting.

    Args:
        table: of ``claims.compute``.
        figure: an empty one; its height is set to its rows.
    """
    if table.empty:
        drawing.say(figure, "No two runs on translation share optimizer, learning rate and seed as a claim asks.")
        return
    shown = [code for code in WORDS if (table["code"] == code).any()]
    heights = [_PANEL + _ROW * len(pick(table, code=code)) for code in shown]
    figure.set_size_inches(figure.get_figwidth(), sum(heights) + _ENDS)
    axes = figure.subplots(len(shown), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    for ax, code in zip(axes, shown, strict=True):
        _draw(ax, pick(table, code=code), code)
    _scale(axes[-1], table)
    axes[-1].set_xlabel("held-out loss lower by % of that with the whole warm-up")
    keys = [drawing.entry(name, **{"linestyle": "", "markersize": 4.5, **look}) for name, look in _LOOKS.items()]
    drawing.legend(figure, [*keys, drawing.entry("what the claim asks for", **drawing.DOTTED)])


def _draw(ax: Axes, rows: pd.DataFrame, code: str) -> None:
    ax.axvline(0, color=drawing.THEORY, linewidth=0.8, zorder=1.5)
    ax.axvline(float(rows["bar"].iloc[0]), **(drawing.DOTTED | {"zorder": 1.5}))
    for place, (_, row) in enumerate(rows.iterrows()):
        look = _LOOKS[str(row["verdict"])]
        if row["diverged"] > 0:
            _say(ax, place, f"{row['verdict']}: {_who_diverged(row)}", look["color"])
        else:
            ax.plot([row["low"], row["high"]], [place, place], color=look["color"], linewidth=1.3)
            ax.plot([row["value"]], [place], **{"markersize": 4.2, "markeredgewidth": 0, **look}, linestyle="")
    ax.set_yticks(range(len(rows)), [name_of(row) for _, row in rows.iterrows()])
    ax.set_ylim(len(rows) - 0.45, -0.55)
    ax.tick_params(axis="y", length=0)
    ax.set_title(f"{code}  {WORDS[code].title}", fontsize=7.2)


def _who_diverged(row: pd.Series) -> str:
    both = row["favoured_diverged"] + row["against_diverged"] - row["diverged"]
    alone = {"both": both} | {_setting(row[side]): row[f"{side}_diverged"] - both for side in ("favoured", "against")}
    return ", ".join(f"{name} diverged ({k:.0f} of {row['n']:.0f})" for name, k in alone.items() if k)


def _setting(text: str) -> str:
    variant, _, warm_up = text.partition(", ")
    return f"{'Post-LN' if variant == 'post-ln' else 'Pre-LN'} with {warm_up.replace('none', 'no')} warm-up"


def _say(ax: Axes, place: float, words: str, color: str) -> None:
    background = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
    ax.text(
        0.02, place, words, transform=ax.get_yaxis_transform(), fontsize=6, color=color, va="center", bbox=background,
        zorder=5,
    )  # fmt: skip


def _scale(ax: Axes, table: pd.DataFrame) -> None:
    ends = table[["value", "low", "high", "bar"]].to_numpy(dtype=np.float64)
    reach = 1.12 * float(np.nanmax(np.abs(ends)))
    ax.set_xlim(-reach, reach)
    ax.xaxis.set_major_locator(MaxNLocator(9, symmetric=True))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+g}".replace("-", "−") if value else "0"))
