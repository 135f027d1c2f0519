"""How claims are drawn: a row a comparison, its interval in the look of its verdict, or words on what diverged."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from analyses import drawing
from analyses.papers.claims import Claim
from analyses.tables import pick

#: Verdict to colour and marker: told apart in grey too.
LOOKS: Mapping[str, dict[str, Any]] = {
    "supports": {"color": "#0072B2", "marker": "o"},
    "contradicts": {"color": "#D55E00", "marker": "X"},
    "undecided": {"color": "#6b717a", "marker": "o", "markerfacecolor": "white", "markeredgewidth": 1.1},
}
_SMALL = 5.8
#: Heights in inches: of a row, of a panel's heading, of legend and axis.
_ROW, _PANEL, _ENDS = 0.16, 0.34, 0.75


def stacked(
    table: pd.DataFrame, figure: Figure, claims: Sequence[Claim], named: Callable[[pd.Series], str],
    setting: Callable[[str], str], label: str,
) -> None:  # fmt: skip
    """Draw a panel a claim below each other, a row a setting; positive speaks for the claim.

    Args:
        table: of ``claims.judged``, with a row.
        figure: an empty one; its height is set to its rows.
        claims: in order.
        named: names the row of a setting.
        setting: what is written for ``favoured`` and ``against``.
        label: of the horizontal axis.
    """
    parts = [(claim, own) for claim in claims if len(own := pick(table, code=claim.code))]
    heights = [_PANEL + _ROW * len(own) for _, own in parts]
    figure.set_size_inches(figure.get_figwidth(), sum(heights) + _ENDS)
    axes = figure.subplots(len(parts), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    for ax, (claim, rows) in zip(axes, parts, strict=True):
        panel(ax, claim, [named(row) for _, row in rows.iterrows()], float(rows["bar"].iloc[0]))
        for place, (_, row) in enumerate(rows.iterrows()):
            comparison(ax, place, row, setting)
        signed_axis(ax)
    reach = 1.12 * float(np.nanmax(np.abs(table[["value", "low", "high", "bar"]].to_numpy(dtype=np.float64))))
    axes[-1].set_xlim(-reach, reach)
    axes[-1].xaxis.set_major_locator(MaxNLocator(9, symmetric=True))
    axes[-1].set_xlabel(label)
    drawing.legend(figure, entries("what the claim asks for"))


def panel(ax: Axes, claim: Claim, names: list[str], bar: float | None) -> None:
    """Name a claim and its rows, and draw where there is no difference and, dotted, what the claim asks for.

    Args:
        ax: the axes.
        claim: whose rows are drawn on them.
        names: of the rows, from above.
        bar: what the claim asks for, where it is not 0.
    """
    ax.set_title(f"{claim.code}  {claim.title}", fontsize=7.2)
    ax.axvline(0, color=drawing.THEORY, linewidth=0.8, zorder=1.5)
    if bar is not None:
        ax.axvline(bar, **(drawing.DOTTED | {"zorder": 1.5}))
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.45, -0.55)
    ax.tick_params(axis="y", length=0)


def signed_axis(ax: Axes) -> None:
    """Write the horizontal axis' numbers with their signs."""
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+g}".replace("-", "−") if value else "0"))


def comparison(
    ax: Axes, place: float, row: pd.Series, named: Callable[[str], str], other: Mapping[str, Any] | None = None
) -> None:
    """Draw a difference with its interval, or say who diverged.

    Args:
        ax: the axes.
        place: of the row.
        row: of a comparison, with its verdict.
        named: what is written for ``favoured`` and ``against`` of the row.
        other: the look of a comparison that does not count.
    """
    look = other or LOOKS[str(row["verdict"])]
    if row["diverged"] > 0:
        words = f"{row['verdict']}{', not counted' if other else ''}: {_who_diverged(row, named)}"
        say(ax, place, words, LOOKS["undecided"]["color"] if other else look["color"])
        return
    ax.plot([row["low"], row["high"]], [place, place], color=look["color"], linewidth=1.3, solid_capstyle="butt")
    ax.plot([row["value"]], [place], **{"markersize": 4.2, "markeredgewidth": 0, **look}, linestyle="")


def say(ax: Axes, place: float, words: str, color: str = LOOKS["undecided"]["color"]) -> None:
    """Write words in a row, where there is no difference to draw."""
    background = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
    ax.text(
        0.02, place, words, transform=ax.get_yaxis_transform(), fontsize=_SMALL, color=color, va="center", ha="left",
        bbox=background, zorder=5,
    )  # fmt: skip


def entries(bar: str, **more: Mapping[str, Any]) -> list[Artist]:
    """Return a legend entry a verdict, those of more looks, and one of what a claim asks for."""
    looks = {**LOOKS, **{name.replace("_", " "): look for name, look in more.items()}}
    keys = [drawing.entry(name, **{"linestyle": "", "markersize": 4.5, **look}) for name, look in looks.items()]
    return [*keys, drawing.entry(bar, **drawing.DOTTED)]


def _who_diverged(row: pd.Series, named: Callable[[str], str]) -> str:
    """Say of how many pairs which side diverged."""
    both = row["favoured_diverged"] + row["against_diverged"] - row["diverged"]
    alone = {"both": both} | {named(row[s]): row[f"{s}_diverged"] - both for s in ("favoured", "against")}
    return ", ".join(f"{name} diverged ({k:.0f} of {row['n']:.0f})" for name, k in alone.items() if k)
