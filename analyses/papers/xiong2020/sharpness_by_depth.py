"""The largest learning rate that plain gradient descent bears at the start, 2/λ, against depth."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analyses import drawing
from analyses.intervals import log_t_interval
from analyses.limits import held_against, limit
from analyses.papers.claims import BEGINS
from analyses.papers.xiong2020 import panels
from analyses.papers.xiong2020.measured import PAPER, arrangement, depth, initial, of, of_paper
from analyses.papers.xiong2020.words import MORE_PROBED, all_held, ends, farthest
from analyses.papers.xiong2020.words import PAPER as XIONG
from analyses.tables import SUMMARY, first, number, pick, span, tidy
from gradlens.analysis import Analysis, Finding
from gradlens.recording import Recording

_NAME = "xiong2020_sharpness_by_depth"
_PROBE = "sharpness"
_REFERENCE = f"{XIONG}, section 3.4; Cohen et al. 2021 (2103.00065)"

CODES = {
    "GL613": (
        "Pre-LN bears a larger first step. 2/λ, with λ the largest eigenvalue of the loss' Hessian at initialization, "
        "is the learning rate from which on gradient descent overshoots in the sharpest direction. At each depth "
        "Pre-LN's must be more than twice Post-LN's: the paper's claim that Pre-LN may start at a large learning rate, "
        "in numbers of curvature."
    ),
    "GL614": (
        "Post-LN's first step shrinks with depth. From 4 to 32 blocks, 2/λ at initialization falls more than tenfold "
        "with Post-LN; Pre-LN's falls far less. A deeper Post-LN network wants a lower first learning rate, which is "
        "what a warm-up gives it."
    ),
}


def compute(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Return 2/λ at each depth, Pre-LN's over Post-LN's, and the fall from the shallowest to the deepest network.

    Args:
        recordings: of any kind; decoders at initialization that hold the probe's readings count.
    """
    found = of_paper(initial(recordings, "decoder", probe=_PROBE))
    wide = {name: pd.DataFrame({depth(r): _limits(r) for r in found if arrangement(r) == name}) for name in PAPER}
    return tidy([*_drawn(found), *_judged(wide)])


def _limits(recording: Recording) -> pd.Series:
    """Return 2/λ by seed; missing where the largest eigenvalue is not positive."""
    probes = recording.probes
    largest = probes[(probes["probe"] == _PROBE) & (probes["name"] == "largest eigenvalue")].set_index("step")["value"]
    return 2.0 / largest.where(largest > 0)


def _drawn(recordings: Sequence[Recording]) -> Iterator[dict[str, Any]]:
    for recording in recordings:
        interval = log_t_interval(_limits(recording))
        fixed = {**of(recording), "panel": "depth", "quantity": panels.MEASURED, "unit": "1/step"}
        yield {**fixed, "x": depth(recording), **interval.row()}


def _judged(wide: dict[str, pd.DataFrame]) -> Iterator[dict[str, Any]]:
    for name, values in wide.items():
        if values.shape[1] > 1:
            fall = log_t_interval(values.iloc[:, 0] / values.iloc[:, -1])
            fixed = {"panel": SUMMARY, "quantity": "fall", "label": PAPER[name], "variant": name}
            yield {**fixed, "group": f"{values.columns[0]}", "x": values.columns[-1], **fall.row()}
    for blocks in [blocks for blocks in wide["pre-ln"].columns if blocks in wide["post-ln"].columns]:
        ratio = log_t_interval(wide["pre-ln"][blocks] / wide["post-ln"][blocks])
        yield {"panel": SUMMARY, "quantity": "Pre-LN over Post-LN", "x": blocks, **ratio.row()}


def plot(table: pd.DataFrame, figure: Figure) -> None:
    """Draw 2/λ over depth.

    Args:
        table: of ``compute``.
        figure: an empty one.
    """
    drawn = table[table["panel"] != SUMMARY]
    if drawn.empty:
        drawing.say(figure, "No recording holds readings of the probe 'sharpness'.")
        return
    left, right = figure.subplots(1, 2)
    panels.measurements(left, drawn)
    drawing.value_axis(left, panels.finite(drawn["value"], drawn["low"], drawn["high"]), "1/step", log_from=2)
    panels.depth_axis(left, drawn["x"].tolist(), "blocks")
    left.set_title("2/λ at the start")
    ratio = pick(table, panel=SUMMARY, quantity="Pre-LN over Post-LN")
    look = {"color": drawing.THEORY, "marker": "D", "linestyle": "-"}
    drawing.measured(right, ratio, look)
    right.axhline(limit("GL613", "least"), **drawing.DOTTED)
    drawing.value_axis(right, [*panels.finite(ratio["value"], ratio["low"], ratio["high"]), 2.0], "ratio", log_from=2)
    panels.depth_axis(right, drawn["x"].tolist(), "blocks")
    right.set_title("Pre-LN's over Post-LN's")
    threshold = drawing.entry(f"threshold: {limit('GL613', 'least'):g} times", **drawing.DOTTED)
    drawing.legend(figure, [*panels.entries(drawn), threshold])


def judge(table: pd.DataFrame) -> list[Finding]:
    """Return a finding for the ratio and one for Post-LN's fall.

    Args:
        table: of ``compute``.
    """
    summary = pick(table, panel=SUMMARY)
    return [*_ratio(pick(summary, quantity="Pre-LN over Post-LN")), *_fall(pick(summary, quantity="fall"))]


_CAUSES = (
    "Another width, batch or vocabulary: λ is the loss' own, and scales with all of them.",
    "Few seeds: λ is an extreme, and scatters.",
    "At the start the gradient hardly points along the sharpest direction: single steps bear more than 2/λ.",
)


def _ratio(rows: pd.DataFrame) -> Iterator[Finding]:
    if rows.empty:
        return
    least = limit("GL613", "least")
    status = all_held(rows, least=least, outside="fail")
    worst = farthest(rows, -rows["value"])
    depths = f"each of {len(rows)} depths" if len(rows) > 1 else f"{worst['x']:.0f} blocks"
    yield Finding(
        code="GL613",
        status=status,
        claim=(
            f"{BEGINS[status]}: at {depths}, Pre-LN bears more than {least:g} times Post-LN's first step; least at "
            f"{worst['x']:.0f} blocks, with {number(worst['value'])} times{span(worst)}."
        ),
        analysis=_NAME,
        **ends(worst),
        expected="larger with Pre-LN",
        expected_from="the paper, in words: Pre-LN may start at a large learning rate",
        threshold=f"more than {least:g} times at every depth",
        causes=_CAUSES,
        remedies=(MORE_PROBED,),
        reference=_REFERENCE,
        details={f"{row['x']:.0f} blocks": float(row["value"]) for _, row in rows.iterrows()},
    )


def _fall(rows: pd.DataFrame) -> Iterator[Finding]:
    """The fall is held against a power of depth, so that other depths than 4 and 32 can be judged."""
    row, pre = first(pick(rows, variant="post-ln")), first(pick(rows, variant="pre-ln"))
    if row is None:
        return
    shallow, deep = float(row["group"]), float(row["x"])
    least = limit("GL614", "fall") ** (np.log(deep / shallow) / np.log(limit("GL614", "deeper")))
    status = held_against(row["low"], row["high"], least=least, outside="fail")
    beside = "" if pre is None else f"; Pre-LN's falls {number(pre['value'])} times{span(pre)}"
    yield Finding(
        code="GL614",
        status=status,
        claim=(
            f"{BEGINS[status]}: from {shallow:.0f} to {deep:.0f} blocks, Post-LN's 2/λ falls more than {least:.2g} "
            f"times: {number(row['value'])} times{span(row)}{beside}."
        ),
        analysis=_NAME,
        subject="Post-LN",
        **ends(row),
        expected="falls with depth",
        expected_from="the paper, in words: Post-LN wants a small first learning rate",
        threshold=f"more than {least:.3g} times from {shallow:.0f} to {deep:.0f} blocks",
        causes=_CAUSES,
        remedies=(MORE_PROBED, "Measure deeper networks (--budget medium)."),
        reference=_REFERENCE,
    )


ANALYSIS = Analysis(
    name=_NAME,
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
    plot=plot,
    judge=judge,
    kinds=("init",),
    size=(6.7, 2.7),
    codes=CODES,
    reference=_REFERENCE,
    optional=True,
)
