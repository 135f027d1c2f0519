"""How much noise in the weights moves the output, against depth and by arrangement (Liu et al. 2020)."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses import drawing
from analyses.intervals import log_t_interval
from analyses.limits import limit
from analyses.papers import panels
from analyses.papers.findings import Code, farthest, question, signed
from analyses.papers.measured import ARRANGEMENTS, arrangement, by_depth, depth, initial, of, readings
from analyses.papers.profiles import MEASURED, curve, depth_axis, over, ratio, scale, slope
from analyses.papers.xiong2020.paper import MORE_PROBED
from analyses.tables import ABSENT, SUMMARY, first, number, pick, span, tidy
from gradlens.analysis import Finding
from gradlens.recording import Recording

_PROBE = "amplification"
_LIU = "Liu et al. 2020 (2004.08249), Theorem 2"
AMPLIFIED = Code(
    code="GL612",
    analysis="xiong2020_amplification_by_depth",
    explanation=(
        "Depth amplifies noise in Post-LN. Moving the matrices of all blocks by a small share of their size changes "
        "the output of a Post-LN network by an amount that grows like the number of blocks, of a Pre-LN network like "
        "its logarithm; Admin, Post-LN with a scaled skip path, behaves as Pre-LN. Liu et al. take this, and not the "
        "size of gradients, for the reason why Post-LN needs a warm-up."
    ),
    causes=(
        "Attention whose tokens become alike with depth: the growth is then faster than its order.",
        "Noise that is not small: the change is no longer in proportion to it.",
    ),
    remedies=(MORE_PROBED,),
    reference=_LIU,
)
#: Arrangement to the name of its order in the number of blocks N, and how that is drawn.
_GUIDES = {"post-ln": "order N", "pre-ln": "order log N"}
_DASHES = {"post-ln": (0, (5, 2)), "pre-ln": (0, (1.5, 1.5))}
_GUIDE: dict[str, Any] = {"color": drawing.THEORY, "linewidth": 0.9, "zorder": 1.5}
#: Neighbouring arrangements stand so much apart at one depth, as a factor.
_APART = 1.012


def compute(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Return the amplification at each depth, its growth, and Admin's over Pre-LN's.

    Args:
        recordings: of any kind; decoders at initialization that hold the probe's readings count.
    """
    found = initial(recordings, "decoder", probe=_PROBE)
    wide = by_depth(found, partial(readings, probe=_PROBE))
    return tidy([*_drawn(found, wide), *_judged(wide)])


def _drawn(recordings: Sequence[Recording], wide: dict[str, pd.DataFrame]) -> Iterator[dict[str, Any]]:
    for recording in recordings:
        readings = wide[arrangement(recording)][[depth(recording)]]
        yield from over(readings, **of(recording), panel="depth", quantity=MEASURED)
    for name in _GUIDES:
        depths = np.array(wide[name].columns, dtype=np.float64)
        if len(depths) > 1:
            shape = depths if name == "post-ln" else np.log(depths)
            order = log_t_interval(wide[name].iloc[:, 0]).value * shape / shape[0]
            yield from curve(pd.Series(order, depths), label=name, variant=name, panel="depth", quantity="order")


def _judged(wide: dict[str, pd.DataFrame]) -> Iterator[dict[str, Any]]:
    for name, values in wide.items():
        if values.shape[1] > 1:
            fixed = {"panel": SUMMARY, "label": ARRANGEMENTS[name], "variant": name, "x": values.columns.max()}
            growth = log_t_interval(values.iloc[:, -1] / values.iloc[:, 0])
            yield {**fixed, "quantity": "slope", **slope(values).row()}
            yield {**fixed, "quantity": "deepest/shallowest", "group": f"{values.columns.min()}", **growth.row()}
    fixed = {"panel": SUMMARY, "label": ARRANGEMENTS["admin"], "variant": "admin"}
    yield from over(ratio(wide["admin"], wide["pre-ln"]), **fixed, quantity="over Pre-LN")


def _plot(table: pd.DataFrame, figure: Figure) -> None:
    """Draw a line an arrangement over depth, and the orders that Liu et al. derive."""
    ax, drawn = figure.subplots(), table[table["panel"] != SUMMARY]
    own, keys = pick(drawn, quantity=MEASURED), []
    for name, text in _GUIDES.items():
        guide = pick(drawn, variant=name, quantity="order").sort_values("x")
        if len(guide):
            ax.plot(guide["x"], guide["value"], linestyle=_DASHES[name], **_GUIDE)
            keys.append(drawing.entry(text, linestyle=_DASHES[name], **_GUIDE))
    names = panels.in_order(own["variant"])
    for place, name in enumerate(names):
        _line(ax, pick(own, variant=name).sort_values("x"), name, _APART ** (place - (len(names) - 1) / 2))
    scale(ax, drawn, "squared change / noise²", log_from=2)
    depth_axis(ax, own["x"], "blocks")
    ax.set_title("Change of the output under noise in the weights")
    drawing.legend(figure, [*panels.entries(own), *keys], columns=6)


def _line(ax: Axes, rows: pd.DataFrame, name: str, shift: float) -> None:
    """Draw an arrangement with its intervals as strokes: bands of so many would hide each other."""
    x, look = shift * rows["x"], panels.LOOKS[name]
    ax.plot(
        x, rows["value"], markeredgewidth=0, linewidth=1.0, **{k: look[k] for k in ("color", "marker", "linestyle")}
    )
    ax.vlines(x, rows["low"], rows["high"], color=look["color"], linewidth=0.9)


def _show(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the amplification by arrangement and depth, and how much it grows."""
    measured = pick(table, panel="depth", quantity=MEASURED)
    if measured.empty:
        return {}
    depths = sorted(measured["x"].unique())
    rows = []
    for name in panels.in_order(measured["variant"]):
        own = pick(measured, variant=name).set_index("x")["value"]
        cells = {f"{x:.0f} blocks": f"{own[x]:.2f}" if x in own else ABSENT for x in depths}
        growth = pick(table, panel=SUMMARY, variant=name, quantity="deepest/shallowest")["value"]
        last = {"deepest / shallowest": f"{growth.iloc[0]:.1f}" if len(growth) else ABSENT}
        rows.append({"arrangement": ARRANGEMENTS[name], **cells, **last})
    caption = (
        "Mean squared change of the output over the squared share of noise in the weights, geometric mean over seeds."
    )
    return {caption: pd.DataFrame(rows)}


def _post(table: pd.DataFrame) -> Iterator[Finding]:
    row = first(pick(table, variant="post-ln", quantity="slope"))
    if row is None:
        return
    least, most = limit("GL612", "post_least"), limit("GL612", "post_most")
    yield AMPLIFIED.held(
        row,
        "in Post-LN the amplification grows like the number of blocks: like its power "
        f"{signed(row['value'])}{span(row, signed)} up to {row['x']:.0f} blocks",
        least=least,
        most=most,
        subject="Post-LN",
        expected=1.0,
        expected_from=f"{_LIU}: O(N)",
        threshold=f"Post-LN: a power of {least:g} to {most:g}",
    )


def _pre(table: pd.DataFrame) -> Iterator[Finding]:
    """The logarithm is held against the factor between the ends, whatever they are: ln N's is 2.5 from 4 to 32."""
    row = first(pick(table, variant="pre-ln", quantity="deepest/shallowest"))
    if row is None:
        return
    shallow, deep = float(row["group"]), float(row["x"])
    logarithm = float(np.log(deep) / np.log(shallow))
    least, most = (limit("GL612", name) * logarithm for name in ("pre_least", "pre_most"))
    yield AMPLIFIED.held(
        row,
        f"in Pre-LN the amplification grows like the logarithm of the number of blocks: {number(row['value'])} times "
        f"from {shallow:.0f} to {deep:.0f} blocks{span(row)}, where the logarithm grows {number(logarithm)} times",
        least=least,
        most=most,
        subject="Pre-LN",
        expected=logarithm,
        expected_from=f"{_LIU}: O(log N)",
        threshold=f"Pre-LN: {least:.2g} to {most:.2g} times from {shallow:.0f} to {deep:.0f} blocks",
    )


def _admin(table: pd.DataFrame) -> Iterator[Finding]:
    rows, room = pick(table, variant="admin", quantity="over Pre-LN"), limit("GL612", "admin")
    if rows.empty:
        return
    worst = farthest(rows, (rows["value"] - 1).abs())
    yield AMPLIFIED.held(
        rows,
        f"Admin amplifies as Pre-LN does, at {len(rows)} depths; farthest off at {worst['x']:.0f} blocks, with "
        f"{number(worst['value'])} times Pre-LN's{span(worst)}",
        least=1 - room,
        most=1 + room,
        told=worst,
        subject="Admin",
        expected=1.0,
        expected_from=f"{_LIU}: Admin's skip path is scaled to this end",
        threshold=f"Admin: {1 - room:g} to {1 + room:g} times Pre-LN's at every depth",
    )


ANALYSIS = question(
    AMPLIFIED,
    title="How noise in the weights reaches the output",
    question="How much does a small change of the blocks' matrices change the output, as networks become deeper?",
    reading=(
        "The matrices of all blocks are moved by normal noise of a small share of their size, while gains, biases, "
        "embedding and head stay; drawn is the mean squared change of the output over the square of that share, at "
        "initialization, mean over seeds (geometric) in its 95 % interval. An optimizer's step is such a change: where "
        "it grows like the number of blocks N, as Liu et al. derive for Post-LN, a deep network wants a smaller first "
        "step; where it grows like log N, as for Pre-LN, hardly. Grey, both orders from the shallowest network on. "
        "Admin is Post-LN whose skip path is scaled so that it amplifies as little as Pre-LN."
    ),
    needs={},
    compute=compute,
    plot=_plot,
    show=_show,
    judges=(_post, _pre, _admin),
    nothing="No recording holds readings of the probe 'amplification'.",
    kinds=("init",),
    size=(6.7, 3.3),
    optional=True,
)
