"""Lemma 2 on encoders: the second moment of the stream block by block, and the law that it divides the gradient."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from analyses import drawing
from analyses.depth_profile.theory import variation
from analyses.intervals import Interval, jackknife_interval, log_t_interval, t_interval
from analyses.papers.xiong2020 import panels
from analyses.papers.xiong2020.measured import W2, arrangement, depth, gradients, initial, model, of, of_paper, profile
from analyses.papers.xiong2020.measured import streams as streams_of
from analyses.papers.xiong2020.prediction import predicted
from analyses.papers.xiong2020.stream_growth_findings import CODES, NAME, REFERENCE, judge
from analyses.tables import SUMMARY, pick, tidy
from gradlens.analysis import Analysis
from gradlens.recording import Recording
from gradlens.theory import xiong2020

_LEMMA = "lemma 2"
_CONSTANT = "constant"


def compute(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Return q_l of the deepest networks with Lemma 2's range and theory, c_l, and the numbers judged at every depth.

    Args:
        recordings: of any kind; encoders at initialization count.
    """
    found = of_paper(initial(recordings, "encoder"))
    deepest = {arrangement(recording): depth(recording) for recording in found}  # by depth: the last one stays
    rows: list[dict[str, Any]] = []
    for recording in found:
        q = streams_of(recording)[""]
        constant = profile(gradients(recording), "", W2) * np.sqrt(q)
        if depth(recording) == deepest[arrangement(recording)]:
            rows += _drawn(recording, q, constant[q.columns[1:]])
        rows += _judged(recording, q, constant[q.columns[1:]])
    return tidy(rows)


def _lemma(recording: Recording) -> tuple[pd.Series, pd.Series]:
    """Return Lemma 2's range of q by blocks applied, at the network's ratio of FFN to width."""
    size = model(recording)
    ratio = float(size["ffn"]) / float(size["width"])
    low, high = xiong2020.stream_second_moment_pre(depth(recording), ratio)
    if arrangement(recording) == "post-ln":
        low = high = np.full(depth(recording) + 1, xiong2020.stream_second_moment_post(ratio))
    return pd.Series(low).iloc[1:], pd.Series(high).iloc[1:]


def _drawn(recording: Recording, q: pd.DataFrame, constant: pd.DataFrame) -> Iterator[dict[str, Any]]:
    who, own = of(recording), arrangement(recording)
    low, high = _lemma(recording)
    for block in q.columns[1:]:
        yield {**who, "panel": own, "quantity": panels.MEASURED, "x": block, **t_interval(q[block]).row()}
        yield {**who, "panel": own, "quantity": _LEMMA, "x": block, "low": low[block], "high": high[block]}
        interval = log_t_interval(constant[block])
        yield {**who, "panel": _CONSTANT, "quantity": panels.MEASURED, "x": block, **interval.row()}
    theory = predicted(recording)
    stream = theory.streams.get("", pd.Series(dtype="float64"))
    yield from (
        {**who, "panel": own, "quantity": panels.PREDICTED, "x": x, "value": v} for x, v in stream.items() if x != 0
    )
    fixed = {**who, "panel": _CONSTANT, "quantity": panels.PREDICTED}
    yield from ({**fixed, "x": x, "value": value} for x, value in _constant_of_theory(recording).items())


def _constant_of_theory(recording: Recording) -> pd.Series:
    """Return c_l as theory gives it, by block from 1; empty where it says nothing."""
    theory = predicted(recording)
    if theory.outside:
        return pd.Series(dtype="float64")
    return (theory.gradients["", W2] * theory.streams[""] ** 0.5).dropna()


def _judged(recording: Recording, q: pd.DataFrame, constant: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield a Post-LN stream's level, or how far a Pre-LN stream leaves the lemma's range at most, and c's spread."""
    fixed = {**of(recording), "panel": SUMMARY, "group": f"{depth(recording)} blocks"}
    low, high = _lemma(recording)
    if arrangement(recording) == "post-ln":
        level = t_interval(q.iloc[:, 1:].mean(axis=1))
        yield {**fixed, "quantity": "level", "x": depth(recording), **level.row()}
        yield {**fixed, "quantity": _LEMMA, "low": low[1], "high": high[1]}
    else:
        inside = [_beyond(q[block], low[block], high[block]) for block in q.columns[1:]]
        worst = int(np.argmax([interval.value for interval in inside]))
        yield {**fixed, "quantity": "beyond the range", "x": worst + 1, **inside[worst].row()}
    if len(constant.columns) > 1:
        spread = jackknife_interval(constant.to_numpy(dtype=np.float64), variation)
        not_below_zero = spread.mapped(lambda end: end if np.isnan(end) else max(end, 0.0))
        yield {**fixed, "quantity": "variation of c", "x": depth(recording), **not_below_zero.row()}
        said = _constant_of_theory(recording).to_numpy(dtype=np.float64)
        if len(said):
            yield {**fixed, "quantity": "variation of c, theory", "value": variation(said[None])}


def _beyond(q: pd.Series, low: float, high: float) -> Interval:
    """Return by what factor q lies beyond the nearer end of a range; below 1 where it lies inside."""
    interval = t_interval(q)
    if interval.value > np.sqrt(low * high):
        return interval.mapped(lambda end: end / high)
    return Interval(low / interval.value, low / interval.high, low / interval.low, interval.n)


def plot(table: pd.DataFrame, figure: Figure) -> None:
    """Draw both streams over the lemma's range, and c_l.

    Args:
        table: of ``compute``.
        figure: an empty one.
    """
    drawn = table[table["panel"] != SUMMARY]
    if drawn.empty:
        drawing.say(figure, "No recording holds the stream of an encoder at initialization.")
        return
    titles = {"post-ln": "Post-LN stream", "pre-ln": "Pre-LN stream", _CONSTANT: "Gradient of W2 times √q"}
    shown = [panel for panel in titles if (drawn["panel"] == panel).any()]
    for ax, panel in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        own = pick(drawn, panel=panel)
        _range(ax, pick(own, quantity=_LEMMA))
        panels.measurements(ax, own)
        _scale(ax, own, panel)
        drawing.counted_axis(ax, "block", start=1)
        ax.set_title(titles[panel])
        ax.set_ylabel("c = ‖dL/dW2‖·√q" if panel == _CONSTANT else "second moment q")
    keys = panels.entries(drawn)
    keys.append(Patch(facecolor=drawing.THEORY_FILL, edgecolor=drawing.THEORY, linestyle="--", label="Lemma 2"))
    drawing.legend(figure, keys)


def _range(ax: Axes, rows: pd.DataFrame) -> None:
    rows = rows.sort_values("x")
    if len(rows):
        ax.fill_between(rows["x"], rows["low"], rows["high"], color=drawing.THEORY_FILL, linewidth=0, zorder=0.6)
        for end in ("low", "high"):
            ax.plot(rows["x"], rows[end], color=drawing.THEORY, linewidth=0.7, linestyle=(0, (5, 2)), zorder=1.5)


def _scale(ax: Axes, rows: pd.DataFrame, panel: str) -> None:
    """Scale the vertical axis: what is to be one level begins at 0, so that it looks as flat as it is."""
    values = panels.finite(rows["value"], rows["low"], rows["high"])
    if panel == "pre-ln":
        drawing.value_axis(ax, values)
    else:
        drawing.value_axis(ax, values, log_from=np.inf)
        ax.set_ylim(0, 1.25 * max(values))


ANALYSIS = Analysis(
    name=NAME,
    title="The stream, and the gradient that it divides",
    question="Does the stream grow as Lemma 2 says, and does the norm divide the gradient by its size?",
    reading=(
        "The deepest encoders. The second moment q of the stream where each block has added its branches, before a "
        "norm resets it: mean over seeds in its 95 % interval, dotted what theory says. Grey and broken, Lemma 2: 1 + "
        "v for Post-LN, 1 + v·l to 1 + (1 + v)·l for Pre-LN after l blocks, with the FFN's gain v, 1/2 where it is as "
        "wide as the stream. The lemma leaves open how much attention adds, between nothing (many independent tokens) "
        "and 1 (all alike); theory follows the tokens' correlation and gives a curve. Right, c: the gradient norm of "
        "each block's W2 times √q of the same block. The paper has no closed form below the last block; the law is "
        "that c is one constant for all blocks, so that a gradient is small just where the stream is large."
    ),
    needs={"params": ("step", "name", "grad_norm"), "activations": ("step", "site", "tensor", "rms")},
    compute=compute,
    plot=plot,
    judge=judge,
    kinds=("init",),
    size=(6.7, 2.6),
    codes=CODES,
    reference=REFERENCE,
    optional=True,
)
