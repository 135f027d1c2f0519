"""How gradients and the residual stream change with depth at initialization, and what theory says."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.patches import Patch

from analyses import drawing
from analyses.depth import REST, WHOLE, gradient_by_block, stream_by_depth
from analyses.depth_theory import DepthTheory
from analyses.findings.depth_profile import CODES, judge
from analyses.intervals import log_t_interval
from analyses.tables import identity, pick, tidy
from gradlens.analysis import Analysis
from gradlens.recording import Recording

#: The matrix the law speaks of, as the zoo names it; models that lack it are drawn and judged by whole
#: blocks.
W2 = "ffn.w2"
_GROUPS_IN_A_ROW = 6
_HEIGHT, _HEIGHT_OF_GROUPS, _HEIGHT_OF_LEGEND = 2.1, 1.3, 0.45
_GRADIENT_UNIT = "loss/weight"


def compute(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Return gradient norms by block and group, stream rms by depth, their theory, and the numbers judged.

    Args:
        recordings: those of kind ``init`` are used; their steps are seeds.
    """
    found = [(r, gradient_by_block(r), stream_by_depth(r)) for r in recordings if r.meta.get("kind") == "init"]
    stacks = [part for _, gradients, _ in found for _, part in gradients.groupby("stack")]
    main = W2 if stacks and all((part["group"] == W2).any() for part in stacks) else WHOLE
    return tidy(row for recording, g, q in found for row in _rows(recording, g, q, main))


def _rows(recording: Recording, gradients: pd.DataFrame, stream: pd.DataFrame, main: str) -> Iterator[dict[str, Any]]:
    theory, who = DepthTheory(recording.meta.get("model") or {}), identity(recording)
    for stack in dict.fromkeys([*gradients["stack"], *stream["stack"]]):
        here = who | {"stack": stack}
        g = gradients[gradients["stack"] == stack]
        q = stream[stream["stack"] == stack].pivot(index="step", columns="depth", values="second_moment")
        profiles = {group: _profile(g, group) for group in dict.fromkeys(g["group"])}
        for group, profile in profiles.items():
            panel = "gradient" if group == main else "groups"
            fixed = here | {"panel": panel, "quantity": "measured", "group": group, "unit": _GRADIENT_UNIT}
            yield from ({**fixed, "x": x, **log_t_interval(profile[x]).row()} for x in profile.columns)
            yield from _ratios(profile, group == main, here | {"panel": "summary", "group": group})
        fixed = here | {"panel": "stream", "group": theory.arrangement}
        rms = np.sqrt(q)
        yield from ({**fixed, "quantity": "measured", "x": x, **log_t_interval(rms[x]).row()} for x in q.columns)
        yield from ({**fixed, "quantity": "lemma 2", **row} for row in theory.lemma2(stack, list(q.columns)))
        fixed = here | {"panel": "summary", "group": theory.arrangement if theory.applies else ""}
        yield from ({**fixed, **row} for row in theory.stream_summary(stack, q))
        if main == W2 and W2 in profiles:
            curve, summary = theory.law(stack, profiles[W2], q)
            fixed = here | {"panel": "gradient", "quantity": "law", "group": W2, "unit": _GRADIENT_UNIT}
            yield from ({**fixed, "x": x, "value": value} for x, value in curve.items())
            yield from ({**here, "panel": "summary", "group": W2, **row} for row in summary)


def _profile(gradients: pd.DataFrame, group: str) -> pd.DataFrame:
    """Return gradient norms [seeds, blocks]; the columns are block numbers from 1."""
    rows = gradients[gradients["group"] == group]
    return rows.pivot(index="step", columns="block", values="grad_norm").rename(columns=lambda block: int(block) + 1)


def _ratios(profile: pd.DataFrame, main: bool, fixed: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Yield the ratio of gradient norms, last block over first; of the main group also the factor a block."""
    blocks = len(profile.columns)
    if blocks < 2:
        return
    positive = profile.where(profile > 0)
    ratio = log_t_interval(positive.iloc[:, -1] / positive.iloc[:, 0])
    if not ratio.n:
        return
    yield {**fixed, "quantity": "gradient ratio last/first", **ratio.row()}
    if main:
        factor = ratio.mapped(lambda end: end ** (1 / (blocks - 1)))
        yield {**fixed, "quantity": "gradient factor a block", **factor.row()}


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
    groups = [_groups(rows) for rows in stacks]
    strips = [math.ceil(len(names) / _GROUPS_IN_A_ROW) for names in groups]
    heights = ([_HEIGHT] if len(stacks) == 1 else 2 * [0.87 * _HEIGHT]) + [_HEIGHT_OF_GROUPS * n for n in strips if n]
    figure.set_size_inches(figure.get_figwidth(), sum(heights) + _HEIGHT_OF_LEGEND)
    grid = figure.add_gridspec(len(heights), 1, height_ratios=heights)
    gradient_axes, stream_axes = _main_axes(grid, len(stacks))
    for rows, gradient, stream in zip(stacks, gradient_axes, stream_axes, strict=True):
        stack = "" if len(stacks) == 1 else f", {rows['stack'].iloc[0]}"
        _draw_gradient(gradient, pick(rows, panel="gradient"), look, stack)
        _draw_stream(stream, pick(rows, panel="stream"), look, stack)
    drawing.value_axis(
        gradient_axes[0],
        pick(drawn, panel="gradient")["value"],
        f"gradient norm ({_GRADIENT_UNIT})",
        log_from=5,
    )
    drawing.value_axis(
        stream_axes[0], pick(drawn, panel="stream")[["value", "low", "high"]].to_numpy().ravel(), "stream rms"
    )
    filled = [index for index, n in enumerate(strips) if n]
    for place, index in enumerate(filled, start=len(heights) - len(filled)):
        part = grid[place].subgridspec(strips[index], math.ceil(len(groups[index]) / strips[index]))
        axes = part.subplots(sharex=True, sharey=True, squeeze=False)
        _draw_groups(axes, pick(stacks[index], panel="groups"), groups[index], look, len(stacks) > 1)
    drawing.legend(figure, _entries(drawn, look))


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
    """Draw the main group's gradient norm by block, and the law."""
    for label, own in rows.groupby("label", sort=False):
        drawing.measured(ax, pick(own, quantity="measured"), look[str(label)])
        law = pick(own, quantity="law").sort_values("x")
        ax.plot(law["x"], law["value"], **drawing.DOTTED)
    name = "FFN matrix W2" if (rows["group"] == W2).any() else WHOLE
    ax.set_title(f"Gradient, {name}{stack}")
    drawing.counted_axis(ax, "block", start=1)


def _draw_stream(ax: Axes, rows: pd.DataFrame, look: Mapping[str, drawing.Look], stack: str) -> None:
    """Draw the stream's rms by depth over Lemma 2's range."""
    lemma = pick(rows, quantity="lemma 2")
    for _, own in lemma.groupby("label", sort=False):
        own = own.drop_duplicates("x").sort_values("x")
        ax.fill_between(own["x"], own["low"], own["high"], color=drawing.THEORY_FILL, linewidth=0, zorder=0.6)
        for end in ("low", "high"):
            ax.plot(own["x"], own[end], **drawing.DOTTED)
    for label, own in pick(rows, quantity="measured").groupby("label", sort=False):
        drawing.measured(ax, own, look[str(label)])
    ax.set_title(f"Residual stream{stack}")
    drawing.counted_axis(ax, "blocks applied")


def _draw_groups(
    axes: npt.NDArray[Any],
    rows: pd.DataFrame,
    groups: Sequence[str],
    look: Mapping[str, drawing.Look],
    several: bool,
) -> None:
    """Draw a small panel a group; they share their axes, and name the stack where there are several."""
    for index, ax in enumerate(axes.flat):
        if index >= len(groups):
            ax.set_axis_off()
            continue
        for label, own in rows[rows["group"] == groups[index]].groupby("label", sort=False):
            drawing.measured(ax, own, look[str(label)], markersize=2, linewidth=1.1)
        name = "norms, biases" if groups[index] == REST else groups[index].replace(".", "\n", 1)
        ax.set_title(name, fontsize=7, fontweight="normal")
        if index + axes.shape[1] >= len(groups):
            drawing.counted_axis(ax, "block", most=4, start=1)
            ax.tick_params(labelbottom=True)  # where the cell below is empty
    drawing.value_axis(axes[0, 0], rows.loc[rows["group"].isin(groups), "value"])
    stack = f"{rows['stack'].iloc[0]}\n" if several else ""
    for ax in axes[:, 0]:
        ax.set_ylabel(f"{stack}gradient norm")


def _entries(drawn: pd.DataFrame, look: Mapping[str, drawing.Look]) -> list[Artist]:
    entries = drawing.run_entries(drawn, look)
    if (drawn["quantity"] == "law").any():
        entries.append(drawing.entry("theory: c/√q", **drawing.DOTTED))
    if (drawn["quantity"] == "lemma 2").any():
        entries.append(
            Patch(
                facecolor=drawing.THEORY_FILL,
                edgecolor=drawing.THEORY,
                linestyle=":",
                label="theory: Lemma 2",
            )
        )
    return entries


ANALYSIS = Analysis(
    name="depth_profile",
    title="Gradients and stream over depth, at initialization",
    question="How do gradients and the residual stream grow or shrink with depth before the first step?",
    reading=(
        "Top left: L2 norm of the gradient of each block's FFN output matrix (or of the whole block), "
        "geometric mean over seeds with its 95 % interval; dotted, the law c/√q with the measured stream "
        "and one constant c a stack. Top right: rms of the residual stream after each block, before a norm "
        "resets it; grey, the range of Lemma 2. Below: gradient norms of the block's other parameters, on "
        "one shared axis. A level line means that all blocks learn at one pace; a straight slope on a log "
        "axis is exponential growth."
    ),
    needs={
        "sites": ("site", "kind", "placement", "block", "order"),
        "params": ("step", "name", "grad_norm"),
        "activations": ("step", "site", "tensor", "rms"),
    },
    compute=compute,
    plot=plot,
    judge=judge,
    kinds=("init",),
    size=(6.7, 3.85),
    codes=CODES,
    reference="Xiong et al. 2020 (2002.04745), Lemmas 1 and 2, Theorem 1, Fig. 3",
)
