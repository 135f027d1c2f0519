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
from analyses.intervals import Interval, jackknife_interval, t_interval
from analyses.limits import limit
from analyses.papers import panels
from analyses.papers.findings import Code, all_held, farthest, question
from analyses.papers.measured import W2, arrangement, depth, gradients, initial, model, of, profile
from analyses.papers.measured import streams as streams_of
from analyses.papers.prediction import predicted
from analyses.papers.profiles import MEASURED, PREDICTED, beside, curve, finite, over
from analyses.papers.xiong2020.paper import MORE_NETWORKS, OWN_THEORY, XIONG, of_paper
from analyses.tables import SUMMARY, listed, number, percent, pick, span, tidy
from gradlens.analysis import Finding
from gradlens.recording import Recording
from gradlens.theory import xiong2020

_NAME = "xiong2020_stream_growth"
GROWTH = Code(
    code="GL609",
    analysis=_NAME,
    explanation=(
        "The stream grows as Lemma 2 says. Before each block's last norm a Post-LN stream has the second moment 1 + v "
        "whatever the block; a Pre-LN stream grows by v to 1 + v a block. v is the FFN's gain, 1/2 for an FFN as wide "
        "as the stream (Lemma 1). The lemma speaks of expectations; room is left for finite width and few seeds."
    ),
    causes=(
        "Another initialization, activation or branch scale than the lemma's.",
        "Dropout, which raises second moments by 1/(1 − p).",
        "Few seeds or a narrow stream: the lemma speaks of expectations.",
    ),
    remedies=(MORE_NETWORKS, "Compare the initialization with the paper's."),
    reference=f"{XIONG}, Lemma 2",
)
CONSTANT = Code(
    code="GL610",
    analysis=_NAME,
    explanation=(
        "Gradient times stream is one constant. In each block the norm of the gradient of W2 times the root of the "
        "stream's second moment is the same number: the norm divides the gradient by the size of what it normalizes, "
        "and nothing else changes with depth. Value: coefficient of variation over the blocks, corrected for the "
        "seeds' noise."
    ),
    expected=0.0,
    expected_from="equal forward and backward gain of each branch (exact for FFNs, near for attention)",
    causes=(
        "Tokens that grow alike with depth, so that attention's gain changes.",
        "Labels that depend on the tokens, or tokens that repeat: gradients of one sequence are alike.",
    ),
    remedies=(MORE_NETWORKS, OWN_THEORY),
    reference=f"after {XIONG}, Lemmas 2 and 3",
)
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
    stream = predicted(recording).streams.get("", pd.Series(dtype="float64"))
    for block in q.columns[1:]:
        yield from over(q[[block]], t_interval, **who, panel=own, quantity=MEASURED)
        yield {**who, "panel": own, "quantity": _LEMMA, "x": block, "low": low[block], "high": high[block]}
        yield from over(constant[[block]], **who, panel=_CONSTANT, quantity=MEASURED)
    yield from curve(stream[stream.index != 0], **who, panel=own, quantity=PREDICTED)
    yield from curve(_constant_of_theory(recording), **who, panel=_CONSTANT, quantity=PREDICTED)


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


def _plot(table: pd.DataFrame, figure: Figure) -> None:
    """Draw both streams over the lemma's range, and c_l."""
    drawn = table[table["panel"] != SUMMARY]
    titles = {"post-ln": "Post-LN stream", "pre-ln": "Pre-LN stream", _CONSTANT: "Gradient of W2 times √q"}
    for panel, ax in beside(figure, drawn, titles).items():
        own = pick(drawn, panel=panel)
        _range(ax, pick(own, quantity=_LEMMA))
        panels.measurements(ax, own)
        _scale(ax, own, panel)
        drawing.counted_axis(ax, "block", start=1)
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
    values = finite(rows)
    if panel == "pre-ln":
        drawing.value_axis(ax, values)
    else:
        drawing.value_axis(ax, values, log_from=np.inf)
        ax.set_ylim(0, 1.25 * max(values))


def _post(table: pd.DataFrame) -> Iterator[Finding]:
    levels = pick(table, quantity="level")
    if levels.empty:
        return
    room, expected = limit("GL609", "post"), float(pick(table, panel=SUMMARY, quantity=_LEMMA)["low"].iloc[0])
    least, most = expected - room, expected + room
    worst = farthest(levels, (levels["value"] - expected).abs())
    yield GROWTH.held(
        levels,
        f"the Post-LN stream has the second moment {number(expected)} before each block's last norm, at {len(levels)} "
        f"depths; farthest off in networks of {worst['x']:.0f} blocks, with {number(worst['value'])}{span(worst)}",
        least=least,
        most=most,
        told=worst,
        subject="Post-LN",
        unit="second moment",
        expected=expected,
        expected_from="Lemma 2 at this network's FFN: 1 + v",
        threshold=f"Post-LN: {least:g} to {most:g}, mean over the blocks, at every depth",
        details=_by_group(levels),
    )


def _pre(table: pd.DataFrame) -> Iterator[Finding]:
    beyond = pick(table, quantity="beyond the range")
    if beyond.empty:
        return
    most, worst = 1 + limit("GL609", "pre"), farthest(beyond, beyond["value"])
    off = f"{percent(worst['value'] - 1)} beyond" if worst["value"] > 1 else f"{percent(1 - worst['value'])} inside"
    depths = listed(str(group).split()[0] for group in beyond["group"])
    yield GROWTH.held(
        beyond,
        f"the Pre-LN stream stays within Lemma 2's range in every block of networks of {depths} blocks; nearest to its "
        f"end, after block {worst['x']:.0f} of {worst['group'].split()[0]}, the mean is {off} it",
        most=most,
        told=worst,
        subject="Pre-LN",
        expected="at most 1",
        expected_from="Lemma 2: 1 + v·l to 1 + (1 + v)·l after l blocks",
        threshold=f"Pre-LN: at most {most:g} times beyond an end of the range, in every block",
    )


def _constant(table: pd.DataFrame) -> Iterator[Finding]:
    most = limit("GL610", "most")
    for label, rows in pick(table, quantity="variation of c").groupby("label", sort=False):
        theory = pick(table, label=str(label), quantity="variation of c, theory").set_index("group")["value"]
        status, worst = all_held(rows, most=most, outside="warn"), farthest(rows, rows["value"])
        says = {"pass": "is one constant over the blocks", "warn": "is no constant over the blocks"}
        also = f"; theory gives {percent(theory[worst['group']])}" if worst["group"] in theory else ""
        yield CONSTANT.finding(
            status,
            f"{label} encoders: ‖dL/dW2‖·√q {says.get(status, 'may or may not be constant over the blocks')}: "
            f"beyond the seeds' noise it varies by {percent(worst['value'])}{span(worst, percent)} over "
            f"{worst['x']:.0f} blocks, where it varies most{also}.",
            subject=str(label),
            row=worst,
            threshold=f"at most {most:g} at every depth",
            details=_by_group(rows),
        )


def _by_group(rows: pd.DataFrame) -> dict[str, float]:
    return {row["group"]: float(row["value"]) for _, row in rows.iterrows()}


ANALYSIS = question(
    GROWTH,
    CONSTANT,
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
    plot=_plot,
    judges=(_post, _pre, _constant),
    nothing="No recording holds the stream of an encoder at initialization.",
    kinds=("init",),
    size=(6.7, 2.6),
    reference=f"{XIONG}, Lemmas 1 to 3",
    optional=True,
)
