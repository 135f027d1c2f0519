"""How the reproduction draws: one look a norm in all figures, a row of panels a task, broken-off runs marked."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes

from analyses import drawing
from analyses.papers import run_curves
from analyses.papers.xu2019.runs import BROKE_OFF, NORMS
from analyses.tables import pick

#: What a task's row of panels is called.
TASK_NAMES = {
    "translation": "Translation",
    "lm": "Language model",
    "sentences": "Sentences",
    "images": "Images",
    "parsing": "Parsing",
}
#: Okabe & Ito's colours with black; norms whose curves lie close to each other also differ in their dashes.
LOOKS: dict[str, drawing.Look] = {
    "none": {"color": "#000000", "marker": "X", "linestyle": (0, (1, 1))},
    "detachnorm": {"color": "#D55E00", "marker": "s", "linestyle": "-"},
    "detachnorm-mean": {"color": "#E69F00", "marker": "v", "linestyle": (0, (4, 1.5))},
    "detachnorm-variance": {"color": "#CC79A7", "marker": "D", "linestyle": (0, (4, 1.5, 1, 1.5))},
    "layernorm": {"color": "#0072B2", "marker": "o", "linestyle": "-"},
    "layernorm-simple": {"color": "#56B4E9", "marker": "^", "linestyle": (0, (4, 1.5))},
    "adanorm": {"color": "#009E73", "marker": "P", "linestyle": (0, (5, 1.2, 1, 1.2, 1, 1.2))},
}
_MARKERS = 6


def named(task: str) -> str:
    """Return the heading of a task."""
    return TASK_NAMES.get(task, task or "Task without a name")


def lines(ax: Axes, rows: pd.DataFrame, *, markers: bool = True, band: bool = True, ends: bool = True) -> None:
    """Draw a line a norm, the mean of the seeds that came to their end, and a thin one for every run that did not.

    Args:
        ax: the axes.
        rows: of one panel, with the columns of ``analyses.tables``.
        markers: whether the lines carry a few markers.
        band: whether the range over seeds is drawn.
        ends: whether a run that diverged ends in a cross.
    """
    for norm in [norm for norm in NORMS if (rows["variant"] == norm).any()]:
        own, look = pick(rows, variant=norm), LOOKS[norm]
        ended = pick(own, stack="").sort_values("x")
        if len(ended):
            every = max(1, len(ended) // _MARKERS)
            shift = list(NORMS).index(norm) * every // len(NORMS)
            style = look if markers or len(ended) == 1 else look | {"marker": ""}
            line = {"markersize": 2.8, "markeredgewidth": 0, "markevery": (shift, every)}
            run_curves.together(ax, ended, style, 0.13, band=band, **line)
        run_curves.alone(ax, own[own["stack"] != ""], look, lambda run: ends and run["stack"].iloc[0] == BROKE_OFF)


def entries(rows: pd.DataFrame, *, markers: bool = True) -> list[Artist]:
    """Return a legend entry a norm that is drawn, in the paper's order, and one for runs that diverged."""
    there = [norm for norm in NORMS if (rows["variant"] == norm).any()]
    keys = [drawing.entry(NORMS[n], **(LOOKS[n] if markers else LOOKS[n] | {"marker": ""})) for n in there]
    if (rows["stack"] == BROKE_OFF).any():
        keys.append(run_curves.diverged_entry())
    return list(keys)


def headed(ax: Axes, title: str, unit: str = "") -> None:
    """Put a column's name, and its unit in a second line, over its first panel."""
    ax.set_title(f"{title}\n" if unit else title, fontsize=7)
    if unit:
        ax.annotate(unit, (0, 1), (0, 6), xycoords="axes fraction", textcoords="offset points", fontsize=6.5)


def row_named(ax: Axes, task: str) -> None:
    """Put a task's name beside the first panel of its row."""
    ax.set_ylabel(named(task), fontsize=7.5, fontweight="bold")


def steps_axis(axes: Sequence[Axes], *, last: bool) -> None:
    """Label the horizontal axes of a row of panels over training; only the last row is named."""
    for ax in axes:
        drawing.counted_axis(ax, "step" if last else "", most=4)
