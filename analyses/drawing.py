"""How the analyses draw: one colour and marker a variant in every figure, axes and legends that can be read.

The fonts and line widths come from ``gradlens.analysis.figures.STYLE``; nothing here needs pyplot.
"""

import itertools
import math
import re
import textwrap
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

#: Okabe & Ito's palette, told apart with every common colour blindness; its yellow and black are left out.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
#: Where there are more variants than that: their colours differ in lightness too, after Tol's muted scheme.
FURTHER = ("#332288", "#882255", "#999933", "#6B4C1E", "#000000", "#AA4499", "#117733")
MARKERS = ("o", "s", "^", "D", "v", "P")
#: More variants than these are drawn each in a panel of its own where lines would cover one another.
TOGETHER = 6
#: What stands behind a line that is told of.
OTHERS = "#c9cdd4"
#: The two arrangements that most comparisons hold keep their colours whatever stands beside them.
FIXED = {"pre-ln": 0, "post-ln": 1}
#: What theory says is drawn in these, beside measurements in colour.
THEORY, THEORY_FILL = "#4a4f57", "#dcdfe4"
DOTTED: dict[str, Any] = {"color": THEORY, "linewidth": 1.0, "linestyle": (0, (1.5, 1.5)), "zorder": 4}
SCHEDULE_DASHES = {"no warm-up": (0, (4, 1.5))}
#: Values that span more than this factor get a log axis.
DECADE = 10.0
#: Lines of more points than this get small markers.
_DENSE = 16
_LINEAR_BELOW = 1e-3
_LONGEST_LABEL = 60

Look = dict[str, Any]


def looks(table: pd.DataFrame, *, dashes: bool = True) -> dict[str, Look]:
    """Return label to line properties: colour and marker tell the variant, dashes the schedule.

    Recordings of the same variant and schedule differ in their dashes.

    Args:
        table: with the columns ``label``, ``variant`` and ``schedule``.
        dashes: whether the schedule shows in the dashes; needless where panels tell it.
    """
    runs = table[["label", "variant", "schedule"]].drop_duplicates()
    slots = _slots(runs["variant"])
    found: dict[str, Look] = {}
    for (variant, schedule), group in runs.groupby(["variant", "schedule"], sort=False):
        own = SCHEDULE_DASHES.get(str(schedule), "-") if dashes else "-"
        repeats = itertools.chain([own], itertools.cycle(["-.", ":"]))
        for label, linestyle in zip(group["label"], repeats, strict=False):
            slot, colours, signs = slots[str(variant)], (*PALETTE, *FURTHER), len(MARKERS)
            marker = MARKERS[(slot + slot // signs) % signs]  # past the colours' end the pairs still differ
            found[str(label)] = {"color": colours[slot % len(colours)], "marker": marker, "linestyle": linestyle}
    return found


def _slots(variants: Iterable[str]) -> dict[str, int]:
    """Return variant to its place in the palette.

    A place is chosen by the variant's name, the next free one where it is taken: a variant mostly keeps its
    colour in figures that hold other variants.
    """
    slots = dict(FIXED)
    others = sorted(set(variants) - set(FIXED))
    several = len(FIXED) + len(others)
    colours = len(PALETTE) if several <= len(PALETTE) else len(PALETTE) + len(FURTHER)
    places = list(range(len(FIXED), max(colours, several)))
    for name in others:
        start = zlib.crc32(name.encode()) % (colours - len(FIXED))
        slots[name] = next(p for p in places[start:] + places[:start] if p not in slots.values())
    return slots


def measured(ax: Axes, rows: pd.DataFrame, look: Look, **changes: Any) -> None:
    """Draw values over x as a line, with their interval as a band where they have one."""
    rows = rows.sort_values("x")
    dense = {"markersize": 2.0} if len(rows) > _DENSE else {}
    ax.plot(rows["x"], rows["value"], **{"markeredgewidth": 0, **look, **dense, **changes})
    if rows["low"].notna().any():
        ax.fill_between(rows["x"], rows["low"], rows["high"], color=look["color"], alpha=0.18, linewidth=0)


def series(ax: Axes, raw: pd.DataFrame, smooth: pd.DataFrame, look: Look) -> None:
    """Draw values over steps: faint as they are, clear where smoothed."""
    raw, smooth = raw.sort_values("x"), smooth.sort_values("x")
    ax.plot(raw["x"], raw["value"], color=look["color"], linewidth=0.5, alpha=0.35)
    ax.plot(smooth["x"], smooth["value"], color=look["color"], linestyle=look["linestyle"], linewidth=1.3)


def value_axis(
    ax: Axes,
    values: Iterable[float],
    unit: str = "",
    log_from: float = DECADE,
    zero: bool = False,
    small: bool = False,
) -> None:
    """Scale the vertical axis by what it shows.

    Args:
        ax: the axes.
        values: all that is drawn on them.
        unit: the axis' label.
        log_from: positive values that span more than this factor get a logarithmic axis.
        zero: whether values at or below 0 belong to it (shares that a norm does not remove): where the others
            span decades the axis is then logarithmic above 0.001 and linear below.
        small: whether there is room for few ticks only.
    """
    finite = [v for v in values if math.isfinite(v)]
    if finite and min(finite) > 0 and max(finite) > log_from * min(finite):
        ax.set_yscale("log")
        decades = math.log10(max(finite) / min(finite))
        ax.yaxis.set_major_locator(LogLocator(subs=_subs(decades, small), numticks=5 if small else 8))
        ax.yaxis.set_major_formatter(FuncFormatter(_plain))
        ax.yaxis.set_minor_formatter(NullFormatter())
    elif zero and finite and min(finite) < _LINEAR_BELOW and max(finite) > DECADE * _LINEAR_BELOW:
        ax.set_yscale("symlog", linthresh=_LINEAR_BELOW, linscale=0.6)
        ax.yaxis.set_major_formatter(FuncFormatter(_plain))
    else:
        ax.yaxis.set_major_locator(MaxNLocator(3 if small else 5))
    if unit:
        ax.set_ylabel(unit)


def _subs(decades: float, small: bool) -> tuple[int, ...]:
    """Return the multiples of powers of ten that get a tick, so that there are three to eight of them."""
    if decades >= 1.7:
        return (1,)
    return (1, 3) if small and decades > 1 else (1, 2, 5)


def _plain(value: float, _position: float) -> str:
    """Write a tick in plain digits where they are few, else as a multiple of a power of ten."""
    if value == 0 or 1e-4 <= abs(value) < 1e5:
        return f"{value:g}"
    factor, _, exponent = f"{value:.0e}".partition("e")
    times = factor.removesuffix("1") if factor in ("1", "-1") else rf"{factor} \cdot "
    return rf"${times}10^{{{int(exponent)}}}$"


def counted_axis(ax: Axes, name: str, most: int = 6, start: int = 0) -> None:
    """Label a horizontal axis of whole numbers that begin at start."""
    if start:
        ax.set_xlim(left=start - 0.04 * max(1.0, ax.get_xlim()[1] - start))
    ax.xaxis.set_major_locator(MaxNLocator(most, integer=True, min_n_ticks=1))
    ax.set_xlabel(name)


def entry(name: str, **line: Any) -> Line2D:
    """Return a legend entry."""
    return Line2D([], [], label=name, **{"markeredgewidth": 0, **line})


def run_entries(table: pd.DataFrame, look: Mapping[str, Look], **changes: Any) -> list[Artist]:
    """Return a legend entry a variant or, where recordings share variant and schedule, an entry a recording.

    Args:
        table: with the columns ``label``, ``variant`` and ``schedule``.
        look: of ``looks``.
        changes: line properties of all entries.
    """
    runs = table[["label", "variant", "schedule"]].drop_duplicates()
    name = "label" if runs.duplicated(["variant", "schedule"]).any() else "variant"
    named = runs.drop_duplicates(name)
    return [entry(text, **(look[label] | changes)) for text, label in zip(named[name], named["label"], strict=True)]


def legend(figure: Figure, entries: Sequence[Artist], columns: int = 4) -> None:
    """Put a legend over the figure, in rows that fit its width; long labels take fewer columns.

    Args:
        figure: made with a constrained layout.
        entries: in reading order.
        columns: at most this many side by side.
    """
    for artist in entries:
        text = str(artist.get_label())
        artist.set_label(text if len(text) <= _LONGEST_LABEL else f"{text[: _LONGEST_LABEL - 1]}…")
    longest = max((len(str(artist.get_label())) for artist in entries), default=1)
    fitting = max(1, int(figure.get_figwidth() / (0.058 * longest + 0.45)))
    across = min(columns, fitting, max(1, len(entries)))
    figure.legend(
        handles=[entry for column in range(across) for entry in entries[column::across]],  # read row by row
        loc="outside upper left",
        ncols=across,
        handlelength=2.4,
        columnspacing=1.4,
        borderaxespad=0.2,
    )


def in_lines(label: str, most: int = 12) -> str:
    """Break a label between its words, so that it fits beside or over a small panel.

    Args:
        label: of a recording.
        most: letters of a line; longer words stay whole.
    """
    parts = re.findall(r"[^\s/-]+[\s/-]*", label)
    lines = [""]
    for part in parts:
        lines = [*lines[:-1], lines[-1] + part] if len((lines[-1] + part).strip()) <= most else [*lines, part]
    return "\n".join(line.strip() for line in lines if line)


def say(figure: Figure, message: str) -> None:
    """Draw a sentence where there is nothing to draw, in no more room than it needs."""
    figure.set_size_inches(figure.get_figwidth(), 0.5)
    figure.text(0.5, 0.5, "\n".join(textwrap.wrap(message, 80)), ha="center", va="center", color=THEORY)
