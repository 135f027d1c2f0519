"""Fig. 3(c, d) and Theorem 1: the gradient of the last block's output matrix against the number of blocks."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses import drawing
from analyses.intervals import log_t_interval
from analyses.papers.xiong2020 import panels
from analyses.papers.xiong2020.last_block_by_depth_findings import CODES, NAME, REFERENCE, judge
from analyses.papers.xiong2020.measured import (
    PAPER,
    W2,
    arrangement,
    depth,
    gradients,
    initial,
    of,
    of_paper,
    profile,
    slope,
    streams,
)
from analyses.papers.xiong2020.prediction import predicted
from analyses.tables import SUMMARY, pick, tidy
from gradlens.analysis import Analysis
from gradlens.recording import Recording

#: Kind of network to the stack whose last block is read.
STACKS = {"encoder-decoder": "decoder", "encoder": ""}
_BOUND = "bound"


def compute(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Return the last block's gradient at each depth, its slopes, and Pre-LN's over Post-LN's beside the law.

    Args:
        recordings: of any kind; encoder-decoders and encoders at initialization count.
    """
    rows: list[dict[str, Any]] = []
    for kind, stack in STACKS.items():
        found = of_paper(initial(recordings, kind))
        last = {name: _last(found, name, stack) for name in PAPER}
        for recording in found:
            rows += _at_depth(recording, kind, stack, last)
        for name, (gradient, _) in last.items():
            rows += _slope(gradient, {"label": PAPER[name], "variant": name, "panel": SUMMARY, "group": kind})
            rows += _slope_of_theory([row for row in rows if row.get("group") == kind and row.get("variant") == name])
        rows += _ratio(last, kind)
    return tidy(rows)


def _last(recordings: Sequence[Recording], name: str, stack: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return ‖dL/dW2‖ and q_L of the last block, both [seeds, depths]."""
    own = [recording for recording in recordings if arrangement(recording) == name]
    gradient = {depth(r): profile(gradients(r), stack, W2).iloc[:, -1] for r in own}
    moment = {depth(r): streams(r)[stack].iloc[:, -1] for r in own}
    return pd.DataFrame(gradient), pd.DataFrame(moment)


def _at_depth(recording: Recording, kind: str, stack: str, last: dict[str, Any]) -> Iterator[dict[str, Any]]:
    fixed = {**of(recording), "panel": kind, "group": kind, "x": depth(recording), "unit": "loss/weight"}
    gradient = last[arrangement(recording)][0][depth(recording)]
    yield {**fixed, "quantity": panels.MEASURED, **log_t_interval(gradient).row()}
    curve = predicted(recording).gradients.get((stack, W2))
    if curve is not None:
        yield {**fixed, "quantity": panels.PREDICTED, "value": curve.iloc[-1]}


def _slope(gradient: pd.DataFrame, fixed: dict[str, str]) -> Iterator[dict[str, Any]]:
    if gradient.shape[1] < 2:
        return
    depths = np.array(gradient.columns, dtype=np.float64)
    yield {**fixed, "quantity": "slope", "x": depths.max(), **slope(gradient).row()}
    first = float(np.exp(np.log(gradient.iloc[:, 0]).mean()))
    power = 0.0 if fixed["variant"] == "post-ln" else -0.5
    for x, value in zip(depths, first * (depths / depths[0]) ** power, strict=True):
        yield {**fixed, "panel": fixed["group"], "quantity": _BOUND, "x": x, "value": value}


def _slope_of_theory(rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the slope of what theory says at the same depths."""
    curve = {row["x"]: [row["value"]] for row in rows if row["quantity"] == panels.PREDICTED}
    if len(curve) > 1:
        fixed = {name: rows[0][name] for name in ("label", "variant", "group")}
        yield {**fixed, "panel": SUMMARY, "quantity": "slope, theory", "value": slope(pd.DataFrame(curve)).value}


def _ratio(last: dict[str, tuple[pd.DataFrame, pd.DataFrame]], kind: str) -> Iterator[dict[str, Any]]:
    """Yield Pre-LN's gradient over Post-LN's, the law's √(q_Post/q_Pre) through the measured streams, and both' ratio.

    Pairs of one seed have the same weights and the same batch.
    """
    (post, q_post), (pre, q_pre) = last["post-ln"], last["pre-ln"]
    for blocks in [blocks for blocks in pre.columns if blocks in post.columns]:
        ratio = (pre[blocks] / post[blocks]).dropna()
        law = ((q_post[blocks] / q_pre[blocks]) ** 0.5).reindex(ratio.index)
        fixed = {"panel": "ratio", "group": kind, "label": kind, "variant": kind, "x": blocks}
        yield {**fixed, "quantity": panels.MEASURED, **log_t_interval(ratio).row()}
        yield {**fixed, "quantity": "law", "value": log_t_interval(law).value}
        yield {**fixed, "panel": SUMMARY, "quantity": "ratio over law", **log_t_interval(ratio / law).row()}


def plot(table: pd.DataFrame, figure: Figure) -> None:
    """Draw the gradient against depth in both kinds of networks, and the ratio of the arrangements.

    Args:
        table: of ``compute``.
        figure: an empty one.
    """
    drawn = table[table["panel"] != SUMMARY]
    if drawn.empty:
        drawing.say(figure, "No recording holds the gradients of an encoder-decoder or an encoder.")
        return
    titles = {
        "encoder-decoder": "Last decoder block",
        "encoder": "Last block, encoder only",
        "ratio": "Pre-LN / Post-LN",
    }
    shown = [panel for panel in titles if (drawn["panel"] == panel).any()]
    for ax, panel in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        own = pick(drawn, panel=panel)
        if panel == "ratio":
            _draw_ratio(ax, own)
        else:
            _draw(ax, own, pick(table, panel=SUMMARY, quantity="slope", group=panel))
        drawing.value_axis(ax, panels.finite(own["value"], own["low"], own["high"]), log_from=1.5)
        panels.depth_axis(ax, own["x"].tolist())
        ax.set_title(titles[panel])
        if panel != "ratio":
            ax.set_ylim(bottom=0.78 * ax.get_ylim()[0])  # room for the slopes
    keys = panels.entries(drawn[drawn["panel"].isin(STACKS)])
    if (drawn["quantity"] == _BOUND).any():
        keys.append(drawing.entry("order of Theorem 1", **_GUIDE))
    if (drawn["quantity"] == "law").any():
        keys += [
            drawing.entry(f"Pre/Post, {_SHORT[kind]}", **look)
            for kind, look in _KINDS.items()
            if kind in set(drawn["label"])
        ]
        keys.append(drawing.entry("√(q Post / q Pre)", **_LAW))
    drawing.legend(figure, keys, columns=4)


_GUIDE: dict[str, Any] = {"color": drawing.THEORY, "linewidth": 0.8, "linestyle": (0, (5, 2))}
_LAW: dict[str, Any] = {
    "color": drawing.THEORY,
    "marker": "_",
    "markersize": 9,
    "markeredgewidth": 1.2,
    "linestyle": "",
}
_SHORT = {"encoder-decoder": "decoders", "encoder": "encoders"}
_KINDS: dict[str, drawing.Look] = {
    "encoder-decoder": {"color": "#1c1e21", "marker": "D", "linestyle": "-"},
    "encoder": {"color": "#8a8f98", "marker": "^", "linestyle": "-"},
}


def _draw(ax: Axes, rows: pd.DataFrame, slopes: pd.DataFrame) -> None:
    for name in panels.in_order(rows["variant"]):
        guide = pick(rows, variant=name, quantity=_BOUND).sort_values("x")
        ax.plot(guide["x"], guide["value"], **_GUIDE)
    panels.measurements(ax, rows)
    ax.set_ylabel("gradient norm of W2")
    said = [f"{row['label']}: slope {row['value']:.2f}".replace("-0.", "−0.") for _, row in slopes.iterrows()]
    ax.text(0.03, 0.03, "\n".join(said), transform=ax.transAxes, fontsize=6.5, va="bottom")


def _draw_ratio(ax: Axes, rows: pd.DataFrame) -> None:
    for kind, look in _KINDS.items():
        own = pick(rows, label=kind)
        if len(own):
            drawing.measured(ax, pick(own, quantity=panels.MEASURED), look)
            law = pick(own, quantity="law")
            ax.plot(law["x"], law["value"], **_LAW, zorder=5)


ANALYSIS = Analysis(
    name=NAME,
    title="The last block's gradient against depth",
    question="How does the gradient of the last block change with the number of blocks?",
    reading=(
        "The L2 norm of the gradient of the last block's FFN output matrix against the number of blocks, mean over "
        "seeds (geometric) in its 95 % interval: left the decoder of an encoder-decoder, the paper's Fig. 3(c, d), "
        "then encoders alone, of which Theorem 1 speaks. Dotted, what theory says. Theorem 1 bounds Post-LN by O(d √ln "
        "d) and Pre-LN by O(d √(ln d / L)): upper bounds, in width loose (measured, the gradient grows about as √d), "
        "so that only their order in L is drawn (broken). Right, Pre-LN over Post-LN: the norm divides the gradient by "
        "the size of the stream, so the law is the root of the ratio of the second moments q (strokes, of the measured "
        "streams). Slopes are least squares on logarithms; at few blocks Pre-LN's is flatter than −1/2, as its stream "
        "starts at 1."
    ),
    needs={"params": ("step", "name", "grad_norm"), "activations": ("step", "site", "tensor", "rms")},
    compute=compute,
    plot=plot,
    judge=judge,
    kinds=("init",),
    size=(6.7, 2.9),
    codes=CODES,
    reference=REFERENCE,
    optional=True,
)
