"""How claims are drawn: a row a comparison, its interval in the look of its verdict, or words on what diverged."""

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from analyses import drawing

#: Verdict to colour and marker: told apart in grey too.
LOOKS: Mapping[str, dict[str, Any]] = {
    "supports": {"color": "#0072B2", "marker": "o"},
    "contradicts": {"color": "#D55E00", "marker": "X"},
    "undecided": {"color": "#6b717a", "marker": "o", "markerfacecolor": "white", "markeredgewidth": 1.1},
}
_SMALL = 5.8


def lines(ax: Axes, bar: float | None) -> None:
    """Draw where there is no difference and, dotted, what a claim asks for."""
    ax.axvline(0, color=drawing.THEORY, linewidth=0.8, zorder=1.5)
    if bar is not None:
        ax.axvline(bar, **(drawing.DOTTED | {"zorder": 1.5}))


def difference(ax: Axes, place: float, row: pd.Series, look: Mapping[str, Any]) -> None:
    """Draw a difference with its interval."""
    ax.plot([row["low"], row["high"]], [place, place], color=look["color"], linewidth=1.3, solid_capstyle="butt")
    ax.plot([row["value"]], [place], **{"markersize": 4.2, "markeredgewidth": 0, **look}, linestyle="")


def say(ax: Axes, place: float, words: str, color: str) -> None:
    """Write words in a row, where there is no difference to draw."""
    background = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
    ax.text(
        0.02, place, words, transform=ax.get_yaxis_transform(), fontsize=_SMALL, color=color, va="center", ha="left",
        bbox=background, zorder=5,
    )  # fmt: skip


def who_diverged(row: pd.Series, named: Callable[[str], str]) -> str:
    """Say of how many pairs which side diverged.

    Args:
        row: with the counts of ``claims.Pairs.row``.
        named: what is written for ``favoured`` and ``against`` of the row.
    """
    both = row["favoured_diverged"] + row["against_diverged"] - row["diverged"]
    alone = {"both": both} | {named(row[s]): row[f"{s}_diverged"] - both for s in ("favoured", "against")}
    return ", ".join(f"{name} diverged ({k:.0f} of {row['n']:.0f})" for name, k in alone.items() if k)


def signed_rows(ax: Axes, names: list[str]) -> None:
    """Name the rows from above, and write the horizontal axis' numbers with their signs."""
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.45, -0.55)
    ax.tick_params(axis="y", length=0)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+g}".replace("-", "−") if value else "0"))
