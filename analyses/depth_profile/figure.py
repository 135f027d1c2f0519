"""The figure of ``depth_profile``: gradient and stream over depth, measured and predicted, stack by stack."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.patches import Patch

from analyses import drawing
from analyses.depth import GRADIENT_UNIT, REST, W2, WHOLE
from analyses.depth_profile import apart
from analyses.depth_profile.prediction import PREDICTED
from analyses.tables import pick
from gradlens.analysis import Finding

#: What a caption tells, by what must be drawn for it.
READING = {
    "gradient": (
        "Gradient: the L2 norm of each block's gradient, of what the title names; geometric mean over seeds with its "
        "95 % interval. A level line means that all blocks learn at one pace; a straight slope on a log axis is "
        "exponential growth."
    ),
    "stream": (
        "Stream: its rms after each block, before a norm resets it (the first page's output rms is of what a block "
        "hands on: in Post-LN behind its last norm)."
    ),
    "groups": "Small panels: gradient norms of the block's other parameters, on one shared axis.",
    PREDICTED: (
        "Dotted in a variant's dark shade: mean-field theory of its equations, exact for wide networks, with nothing "
        "fitted; it covers Transformers of the zoo with Xavier's weights that predict next tokens."
    ),
    "law": "Dotted grey: the law c/√q with the measured stream and one fitted constant c a stack.",
    "lemma 2": "Grey field: Lemma 2 of Xiong et al., the paper's bound on the stream and no prediction.",
}
_GROUPS_IN_A_ROW = 6
#: Letters for which a small panel has room.
_SHORT_NAME = 12
_HEIGHT, _HEIGHT_OF_GROUPS, _AROUND_LEGEND = 2.1, 1.45, 0.12
#: A prediction has the colour of its variant, this share of it, the rest black.
_SHADE = 0.6


def plot(table: pd.DataFrame, figure: Figure) -> None:
    """Draw gradient and stream over depth, a column a stack, and below them the other groups of parameters.

    Args:
        table: of ``compute``.
        figure: an empty one; its height is set to what the stacks need.
    """
    drawn = table[table["panel"] != "summary"]
    if drawn.empty:
        drawing.say(figure, "No recording at initialization holds parameter gradients or a stream by block.")
        return
    look, stacks = drawing.looks(table), _by_position(drawn)
    drawing.legend(figure, _entries(drawn, look), columns=6)
    groups = [_groups(rows) for rows in stacks]
    strips = [math.ceil(len(names) / _GROUPS_IN_A_ROW) for names in groups]
    many = len(stacks) == 1 and drawn["label"].nunique() > drawing.TOGETHER
    main = [apart.height(stacks[0])] if many else [_HEIGHT] if len(stacks) == 1 else 2 * [0.87 * _HEIGHT]
    heights = main + [_HEIGHT_OF_GROUPS * n for n in strips if n]
    legend = figure.legends[0].get_window_extent().height / figure.dpi + _AROUND_LEGEND
    figure.set_size_inches(figure.get_figwidth(), sum(heights) + legend)
    grid = figure.add_gridspec(len(heights), 1, height_ratios=heights)
    if many:
        apart.draw(grid[0], stacks[0], look, _draw_curves)
    else:
        _draw_together(grid, stacks, look)
    filled = [index for index, n in enumerate(strips) if n]
    for place, index in enumerate(filled, start=len(heights) - len(filled)):
        part = grid[place].subgridspec(strips[index], math.ceil(len(groups[index]) / strips[index]))
        axes = part.subplots(sharex=True, sharey=True, squeeze=False)
        _draw_groups(axes, pick(stacks[index], panel="groups"), groups[index], look, len(stacks) > 1)


def strip(table: pd.DataFrame, figure: Figure, _causes: Sequence[Finding]) -> None:
    """Draw gradient and stream of the first stack, for a report on models that were not trained.

    Args:
        table: of ``compute``.
        figure: an empty one.
        _causes: what was found; before the first step nothing has an onset.
    """
    rows = _by_position(table[table["panel"].isin(("gradient", "stream"))])[0]
    told, look = _steepest(rows), drawing.looks(table)
    own = rows[rows["label"].isin(told)]
    others = rows[~rows["label"].isin(told) & (rows["quantity"] == "measured")].assign(low=math.nan, high=math.nan)
    look |= {label: {"color": drawing.OTHERS, "linestyle": "-"} for label in others["label"].unique()}
    _draw_together(figure.add_gridspec(1, 1), [pd.concat([others, own])], look)
    figure.axes[0].set_ylabel("gradient norm")
    entries = _entries(own, look)
    entries += [drawing.entry(f"{others['label'].nunique()} others", color=drawing.OTHERS)] if len(others) else []
    drawing.legend(figure, entries, columns=6)


def _steepest(rows: pd.DataFrame) -> list[str]:
    """Return the models that are drawn in colour: all where they are few, else those whose gradient changes most."""
    labels = [str(label) for label in rows["label"].unique()]
    if len(labels) <= drawing.TOGETHER:
        return labels
    gradient = pick(rows, panel="gradient", quantity="measured").sort_values("x").groupby("label")["value"]
    ranked = [str(label) for label in (gradient.last() / gradient.first()).sort_values().index]
    return [*ranked[:2], *ranked[-2:]]


def _draw_together(grid: GridSpec, stacks: Sequence[pd.DataFrame], look: Mapping[str, drawing.Look]) -> None:
    """Draw all recordings on the same axes, a column a stack."""
    gradient_axes, stream_axes = _main_axes(grid, len(stacks))
    for rows, gradient, stream in zip(stacks, gradient_axes, stream_axes, strict=True):
        stack = "" if len(stacks) == 1 else f", {rows['stack'].iloc[0]}"
        _draw_gradient(gradient, pick(rows, panel="gradient"), look, stack)
        _draw_stream(stream, pick(rows, panel="stream"), look, stack)
    drawn = pd.concat(stacks)
    gradients, rms = pick(drawn, panel="gradient")["value"], pick(drawn, panel="stream")[["value", "low", "high"]]
    drawing.value_axis(gradient_axes[0], gradients, f"gradient norm ({GRADIENT_UNIT})", log_from=5)
    drawing.value_axis(stream_axes[0], rms.to_numpy().ravel(), "stream rms")


def caption(table: pd.DataFrame) -> str:
    """Return what there is to read in the figure of a table; nothing where nothing is drawn.

    Args:
        table: of ``compute``.
    """
    drawn = table[table["panel"] != "summary"]
    found = {*drawn["panel"].unique(), *drawn["quantity"].unique()}
    return " ".join(text for what, text in READING.items() if what in found)


def _main_axes(grid: GridSpec, stacks: int) -> tuple[list[Axes], list[Axes]]:
    """Return the axes of gradient and stream, one each a stack: side by side for one, else in two rows."""
    if stacks == 1:
        left, right = grid[0].subgridspec(1, 2).subplots(squeeze=False)[0]
        return [left], [right]
    top, bottom = (grid[row].subgridspec(1, stacks).subplots(sharey=True, squeeze=False)[0] for row in (0, 1))
    return list(top), list(bottom)


def _by_position(drawn: pd.DataFrame) -> list[pd.DataFrame]:
    """Return the rows of every recording's first stack, of every second, and so on, four at most.

    By position and not by name, so that ``blocks`` of one model stands beside ``transformer.h`` of another.
    """
    position = {
        (label, stack): place
        for label, rows in drawn.groupby("label", sort=False)
        for place, stack in enumerate(rows["stack"].unique())
    }
    places = np.array([position[key] for key in zip(drawn["label"], drawn["stack"], strict=True)])
    return [drawn[places == place] for place in range(min(4, places.max() + 1))]


def _groups(rows: pd.DataFrame) -> list[str]:
    """Return the groups of the small panels: two rows of them at most, the rest of the block last."""
    found = [group for group in pick(rows, panel="groups")["group"].unique() if group not in (REST, WHOLE)]
    kept = found[: 2 * _GROUPS_IN_A_ROW - 1]
    return [*kept, REST] if (rows["group"] == REST).any() else kept


def _draw_gradient(ax: Axes, rows: pd.DataFrame, look: Mapping[str, drawing.Look], stack: str) -> None:
    """Draw the main group's gradient norm by block with its prediction, else the law."""
    _draw_curves(ax, rows, look)
    for _, own in rows.groupby("label", sort=False):
        law = pick(own, quantity="law").sort_values("x")
        ax.plot(law["x"], law["value"], **drawing.DOTTED)
    name = "FFN matrix W2" if (rows["group"] == W2).any() else WHOLE
    ax.set_title(f"Gradient, {name}{stack}")
    drawing.counted_axis(ax, "block", start=1)


def _draw_stream(ax: Axes, rows: pd.DataFrame, look: Mapping[str, drawing.Look], stack: str) -> None:
    """Draw the stream's rms by depth with its prediction, over Lemma 2's range."""
    lemma = pick(rows, quantity="lemma 2")
    for _, own in lemma.groupby("label", sort=False):
        own = own.drop_duplicates("x").sort_values("x")
        ax.fill_between(own["x"], own["low"], own["high"], color=drawing.THEORY_FILL, linewidth=0, zorder=0.6)
        for end in ("low", "high"):
            ax.plot(own["x"], own[end], color=drawing.THEORY, linewidth=0.4, zorder=0.7)
    _draw_curves(ax, rows, look)
    ax.set_title(f"Stream{stack}")
    drawing.counted_axis(ax, "blocks applied")


def _draw_curves(ax: Axes, rows: pd.DataFrame, look: Mapping[str, drawing.Look], **changes: Any) -> None:
    """Draw what was measured of every recording, and over it what is predicted."""
    for label, own in rows.groupby("label", sort=False):
        drawing.measured(ax, pick(own, quantity="measured"), look[str(label)], **changes)
        curve = pick(own, quantity=PREDICTED).sort_values("x")
        shade = tuple(_SHADE * part for part in to_rgb(look[str(label)]["color"]))
        ax.plot(curve["x"], curve["value"], **(drawing.DOTTED | {"color": shade}))


def _draw_groups(
    axes: npt.NDArray[Any], rows: pd.DataFrame, groups: Sequence[str], look: Mapping[str, drawing.Look], several: bool
) -> None:
    """Draw a small panel a group; they share their axes, and name the stack where there are several."""
    for index, ax in enumerate(axes.flat):
        if index >= len(groups):
            ax.set_axis_off()
            continue
        _draw_curves(ax, pick(rows, group=groups[index]), look, markersize=2, linewidth=1.1)
        name = "norms, biases" if groups[index] == REST else _in_lines(groups[index])
        ax.set_title(name, fontsize=7, fontweight="normal")
        if index + axes.shape[1] >= len(groups):
            drawing.counted_axis(ax, "block", most=4, start=1)
            ax.tick_params(labelbottom=True)  # where the cell below is empty
    values = rows.loc[rows["group"].isin(groups), "value"]
    drawing.value_axis(axes[0, 0], values, zero=True, small=True)
    if (values == 0).any():  # as of ReZero
        axes[0, 0].set_ylim(bottom=0)
    stack = f"{rows['stack'].iloc[0]}\n" if several else ""
    for ax in axes[:, 0]:
        ax.set_ylabel(f"{stack}gradient\nnorm")  # longer than the panel is high, in one line


def _in_lines(group: str) -> str:
    """Break the name of a group behind its module, where it is long: ``attention.query``, but not ``f.0``."""
    return group if len(group) <= _SHORT_NAME else group.replace(".", "\n", 1)


def _entries(drawn: pd.DataFrame, look: Mapping[str, drawing.Look]) -> list[Artist]:
    bound = Patch(facecolor=drawing.THEORY_FILL, edgecolor=drawing.THEORY, linewidth=0.4, label="bound: Lemma 2")
    theory: dict[str, Artist] = {
        PREDICTED: drawing.entry("theory, no fit", **(drawing.DOTTED | {"color": "black"})),
        "law": drawing.entry("law c/√q, fitted", **drawing.DOTTED),
        "lemma 2": bound,
    }
    return drawing.run_entries(drawn, look) + [theory[what] for what in theory if (drawn["quantity"] == what).any()]
