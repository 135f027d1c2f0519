"""How much noise in the weights moves the output, against depth and by arrangement (Liu et al. 2020)."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses import drawing
from analyses.intervals import log_t_interval
from analyses.papers.xiong2020 import panels
from analyses.papers.xiong2020.amplification_findings import CODES, NAME, REFERENCE, judge
from analyses.papers.xiong2020.measured import ARRANGEMENTS, arrangement, depth, initial, of, slope
from analyses.tables import ABSENT, SUMMARY, pick, tidy
from gradlens.analysis import Analysis
from gradlens.recording import Recording

_PROBE = "amplification"
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
    wide = {name: _wide([r for r in found if arrangement(r) == name]) for name in ARRANGEMENTS}
    return tidy([*_drawn(found, wide), *_judged(wide)])


def _wide(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Return the readings [seeds, depths] of one arrangement."""
    columns = {}
    for recording in recordings:
        probes = recording.probes
        columns[depth(recording)] = probes[probes["probe"] == _PROBE].groupby("step")["value"].first()
    return pd.DataFrame(columns)


def _drawn(recordings: Sequence[Recording], wide: dict[str, pd.DataFrame]) -> Iterator[dict[str, Any]]:
    for recording in recordings:
        interval = log_t_interval(wide[arrangement(recording)][depth(recording)])
        yield {**of(recording), "panel": "depth", "quantity": panels.MEASURED, "x": depth(recording), **interval.row()}
    for name in _GUIDES:
        depths = np.array(wide[name].columns, dtype=np.float64)
        if len(depths) > 1:
            first = log_t_interval(wide[name].iloc[:, 0]).value
            shape = depths if name == "post-ln" else np.log(depths)
            for x, value in zip(depths, first * shape / shape[0], strict=True):
                yield {"label": name, "variant": name, "panel": "depth", "quantity": "order", "x": x, "value": value}


def _judged(wide: dict[str, pd.DataFrame]) -> Iterator[dict[str, Any]]:
    for name, values in wide.items():
        if values.shape[1] > 1:
            fixed = {"panel": SUMMARY, "label": ARRANGEMENTS[name], "variant": name, "x": values.columns.max()}
            growth = log_t_interval(values.iloc[:, -1] / values.iloc[:, 0])
            yield {**fixed, "quantity": "slope", **slope(values).row()}
            yield {**fixed, "quantity": "deepest/shallowest", "group": f"{values.columns.min()}", **growth.row()}
    for blocks in [blocks for blocks in wide["admin"].columns if blocks in wide["pre-ln"].columns]:
        fixed = {"panel": SUMMARY, "label": ARRANGEMENTS["admin"], "variant": "admin", "x": blocks}
        ratio = log_t_interval(wide["admin"][blocks] / wide["pre-ln"][blocks])
        yield {**fixed, "quantity": "over Pre-LN", **ratio.row()}


def plot(table: pd.DataFrame, figure: Figure) -> None:
    """Draw a line an arrangement over depth, and the orders that Liu et al. derive.

    Args:
        table: of ``compute``.
        figure: an empty one.
    """
    drawn = table[table["panel"] != SUMMARY]
    if drawn.empty:
        drawing.say(figure, "No recording holds readings of the probe 'amplification'.")
        return
    ax = figure.subplots()
    own, keys = pick(drawn, quantity=panels.MEASURED), []
    for name, text in _GUIDES.items():
        guide = pick(drawn, variant=name, quantity="order").sort_values("x")
        if len(guide):
            ax.plot(guide["x"], guide["value"], linestyle=_DASHES[name], **_GUIDE)
            keys.append(drawing.entry(text, linestyle=_DASHES[name], **_GUIDE))
    names = panels.in_order(own["variant"])
    for place, name in enumerate(names):
        _line(ax, pick(own, variant=name).sort_values("x"), name, _APART ** (place - (len(names) - 1) / 2))
    drawing.value_axis(ax, panels.finite(drawn["value"], drawn["low"], drawn["high"]), "squared change / noise²", 2)
    panels.depth_axis(ax, own["x"].tolist(), "blocks")
    ax.set_title("Change of the output under noise in the weights")
    drawing.legend(figure, [*panels.entries(own), *keys], columns=6)


def _line(ax: Axes, rows: pd.DataFrame, name: str, shift: float) -> None:
    """Draw an arrangement with its intervals as strokes: bands of so many would hide each other."""
    x, look = shift * rows["x"], panels.LOOKS[name]
    ax.plot(
        x, rows["value"], markeredgewidth=0, linewidth=1.0, **{k: look[k] for k in ("color", "marker", "linestyle")}
    )
    ax.vlines(x, rows["low"], rows["high"], color=look["color"], linewidth=0.9)


def show(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the amplification by arrangement and depth, and how much it grows.

    Args:
        table: of ``compute``.
    """
    measured = pick(table, panel="depth", quantity=panels.MEASURED)
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


ANALYSIS = Analysis(
    name=NAME,
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
    plot=plot,
    show=show,
    judge=judge,
    kinds=("init",),
    size=(6.7, 3.3),
    codes=CODES,
    reference=REFERENCE,
    optional=True,
)
