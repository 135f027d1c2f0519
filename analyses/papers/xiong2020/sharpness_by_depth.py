"""The largest learning rate that plain gradient descent bears at the start, 2/λ, against depth."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analyses import drawing
from analyses.intervals import log_t_interval
from analyses.limits import limit
from analyses.papers import panels
from analyses.papers.findings import Code, details, farthest, question
from analyses.papers.measured import by_depth, depth, initial, of, readings
from analyses.papers.profiles import MEASURED, depth_axis, over, ratio, scale
from analyses.papers.xiong2020.paper import DEEPER, MORE_PROBED, PAPER, XIONG, of_paper
from analyses.tables import SUMMARY, first, number, pick, span, tidy
from gradlens.analysis import Finding
from gradlens.recording import Recording

_NAME = "xiong2020_sharpness_by_depth"
_PROBE = "sharpness"
_REFERENCE = f"{XIONG}, section 3.4; Cohen et al. 2021 (2103.00065)"
_RATIO = "Pre-LN over Post-LN"
_CAUSES = (
    "Another width, batch or vocabulary: λ is the loss' own, and scales with all of them.",
    "Few seeds: λ is an extreme, and scatters.",
    "At the start the gradient hardly points along the sharpest direction: single steps bear more than 2/λ.",
)
LARGER_STEP = Code(
    code="GL613",
    analysis=_NAME,
    explanation=(
        "Pre-LN bears a larger first step. 2/λ, with λ the largest eigenvalue of the loss' Hessian at initialization, "
        "is the learning rate from which on gradient descent overshoots in the sharpest direction. At each depth "
        "Pre-LN's must be more than twice Post-LN's: the paper's claim that Pre-LN may start at a large learning rate, "
        "in numbers of curvature."
    ),
    expected="larger with Pre-LN",
    expected_from="the paper, in words: Pre-LN may start at a large learning rate",
    causes=_CAUSES,
    remedies=(MORE_PROBED,),
    reference=_REFERENCE,
)
SHRINKING_STEP = Code(
    code="GL614",
    analysis=_NAME,
    explanation=(
        "Post-LN's first step shrinks with depth. From 4 to 32 blocks, 2/λ at initialization falls more than tenfold "
        "with Post-LN; Pre-LN's falls far less. A deeper Post-LN network wants a lower first learning rate, which is "
        "what a warm-up gives it."
    ),
    expected="falls with depth",
    expected_from="the paper, in words: Post-LN wants a small first learning rate",
    causes=_CAUSES,
    remedies=(MORE_PROBED, DEEPER),
    reference=_REFERENCE,
)


def compute(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Return 2/λ at each depth, Pre-LN's over Post-LN's, and the fall from the shallowest to the deepest network.

    Args:
        recordings: of any kind; decoders at initialization that hold the probe's readings count.
    """
    found = of_paper(initial(recordings, "decoder", probe=_PROBE))
    wide = by_depth(found, _limits, PAPER)
    drawn = {"panel": "depth", "quantity": MEASURED, "unit": "1/step"}
    rows = [row for r in found for row in over(_limits(r).to_frame(depth(r)), **of(r), **drawn)]
    return tidy([*rows, *_judged(wide)])


def _limits(recording: Recording) -> pd.Series:
    """Return 2/λ by seed; missing where the largest eigenvalue is not positive."""
    largest = readings(recording, _PROBE, "largest eigenvalue")
    return 2.0 / largest.where(largest > 0)


def _judged(wide: dict[str, pd.DataFrame]) -> Iterator[dict[str, Any]]:
    for name, values in wide.items():
        if values.shape[1] > 1:
            fall = log_t_interval(values.iloc[:, 0] / values.iloc[:, -1])
            fixed = {"panel": SUMMARY, "quantity": "fall", "label": PAPER[name], "variant": name}
            yield {**fixed, "group": f"{values.columns[0]}", "x": values.columns[-1], **fall.row()}
    yield from over(ratio(wide["pre-ln"], wide["post-ln"]), panel=SUMMARY, quantity=_RATIO)


def _plot(table: pd.DataFrame, figure: Figure) -> None:
    """Draw 2/λ over depth."""
    drawn, (left, right) = table[table["panel"] != SUMMARY], figure.subplots(1, 2)
    panels.measurements(left, drawn)
    scale(left, drawn, "1/step", log_from=2)
    left.set_title("2/λ at the start")
    ratios, least = pick(table, panel=SUMMARY, quantity=_RATIO), limit("GL613", "least")
    drawing.measured(right, ratios, {"color": drawing.THEORY, "marker": "D", "linestyle": "-"})
    right.axhline(least, **drawing.DOTTED)
    scale(right, ratios, "ratio", 2.0, log_from=2)
    right.set_title("Pre-LN's over Post-LN's")
    for ax in (left, right):
        depth_axis(ax, drawn["x"], "blocks")
    threshold = drawing.entry(f"threshold: {least:g} times", **drawing.DOTTED)
    drawing.legend(figure, [*panels.entries(drawn), threshold])


def _ratio(table: pd.DataFrame) -> Iterator[Finding]:
    rows = pick(table, quantity=_RATIO)
    if rows.empty:
        return
    least, worst = limit("GL613", "least"), farthest(rows, -rows["value"])
    depths = f"each of {len(rows)} depths" if len(rows) > 1 else f"{worst['x']:.0f} blocks"
    yield LARGER_STEP.held(
        rows,
        f"at {depths}, Pre-LN bears more than {least:g} times Post-LN's first step; least at {worst['x']:.0f} blocks, "
        f"with {number(worst['value'])} times{span(worst)}",
        least=least,
        told=worst,
        threshold=f"more than {least:g} times at every depth",
        details=details(rows),
    )


def _fall(table: pd.DataFrame) -> Iterator[Finding]:
    """The fall is held against a power of depth, so that other depths than 4 and 32 can be judged."""
    row, pre = (first(pick(table, quantity="fall", variant=name)) for name in PAPER)
    if row is None:
        return
    shallow, deep = float(row["group"]), float(row["x"])
    least = limit("GL614", "fall") ** (np.log(deep / shallow) / np.log(limit("GL614", "deeper")))
    also = "" if pre is None else f"; Pre-LN's falls {number(pre['value'])} times{span(pre)}"
    yield SHRINKING_STEP.held(
        row,
        f"from {shallow:.0f} to {deep:.0f} blocks, Post-LN's 2/λ falls more than {least:.2g} times: "
        f"{number(row['value'])} times{span(row)}{also}",
        least=least,
        subject="Post-LN",
        threshold=f"more than {least:.3g} times from {shallow:.0f} to {deep:.0f} blocks",
    )


ANALYSIS = question(
    LARGER_STEP,
    SHRINKING_STEP,
    title="The first step that the curvature allows",
    question="How large a first step does the loss' curvature allow, as networks become deeper?",
    reading=(
        "2 over the largest eigenvalue λ of the loss' Hessian at initialization: the learning rate from which on "
        "gradient descent overshoots along the sharpest direction. Mean over seeds (geometric) in its 95 % interval; "
        "right, the ratio of the two arrangements, pairs of the same seed. The paper says in words that Pre-LN may "
        "start at a large learning rate and has no number for it."
    ),
    needs={},
    compute=compute,
    plot=_plot,
    judges=(_ratio, _fall),
    nothing="No recording holds readings of the probe 'sharpness'.",
    kinds=("init",),
    size=(6.7, 2.7),
    optional=True,
)
