"""Fig. 3(c, d) and Theorem 1: the gradient of the last block's output matrix against the number of blocks."""

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
from analyses.papers.findings import Code, details, farthest, plural, question, signed
from analyses.papers.measured import W2, arrangement, depth, gradients, initial, of, profile, streams
from analyses.papers.prediction import predicted
from analyses.papers.profiles import MEASURED, PREDICTED, beside, curve, depth_axis, over, ratio, scale, slope
from analyses.papers.xiong2020.paper import DEEPER, MORE_NETWORKS, PAPER, XIONG, of_paper
from analyses.tables import SUMMARY, first, number, pick, span, tidy
from gradlens.analysis import Finding
from gradlens.recording import Recording

_NAME = "xiong2020_last_block_by_depth"
SLOPES = Code(
    code="GL607",
    analysis=_NAME,
    explanation=(
        "The last block's gradient against depth. Theorem 1: with Post-LN the gradient of the last block's output "
        "matrix does not depend on the number of blocks L, with Pre-LN it falls like 1/√L. Value: the slope of the "
        "logarithm over that of L, least squares, mean over seeds. Pre-LN's slope nears −1/2 from above, for its "
        "stream starts at 1 and grows by about one a block."
    ),
    causes=(
        "Few blocks: 1 + c·L is no power law yet, and Pre-LN's slope is flatter than −1/2.",
        "Branches that are scaled or initialized otherwise than in the paper.",
    ),
    remedies=(MORE_NETWORKS, DEEPER),
    reference=f"{XIONG}, Theorem 1 and Fig. 3(c, d)",
)
LAW = Code(
    code="GL608",
    analysis=_NAME,
    explanation=(
        "Pre-LN's last gradient over Post-LN's. The norm behind the last block divides the gradient by the size of "
        "what it normalizes. The ratio is therefore √(q_Post/q_Pre), with q the second moments of the two streams "
        "where their last norm reads them; measured at every depth, with the streams as measured."
    ),
    expected=1.0,
    expected_from="the law ‖dL/dW2‖ = c/√q, one c for both, with the streams as measured",
    causes=(
        "Dropout, which scales the branches but not the skip.",
        "Few seeds: the ratio of single pairs scatters by some per cent.",
    ),
    remedies=(MORE_NETWORKS,),
    reference=f"{XIONG}, after Theorem 1 and Lemmas 2 and 3",
)
#: Kind of network to the stack whose last block is read.
STACKS = {"encoder-decoder": "decoder", "encoder": ""}
#: The same to its name, and where the order in L comes from.
_WORDS = {
    "encoder-decoder": (
        "the decoder of encoder-decoders",
        "Fig. 3(c, d): about 1.6 at every depth (Post-LN), falling (Pre-LN)",
    ),
    "encoder": ("encoders alone", "Theorem 1"),
}
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
    fixed = {**of(recording), "panel": kind, "group": kind, "unit": "loss/weight"}
    gradient = last[arrangement(recording)][0][[depth(recording)]]
    yield from over(gradient, **fixed, quantity=MEASURED)
    said = predicted(recording).gradients.get((stack, W2))
    if said is not None:
        yield {**fixed, "x": depth(recording), "quantity": PREDICTED, "value": said.iloc[-1]}


def _slope(gradient: pd.DataFrame, fixed: dict[str, str]) -> Iterator[dict[str, Any]]:
    if gradient.shape[1] < 2:
        return
    depths = np.array(gradient.columns, dtype=np.float64)
    yield {**fixed, "quantity": "slope", "x": depths.max(), **slope(gradient).row()}
    start = float(np.exp(np.log(gradient.iloc[:, 0]).mean()))
    power = 0.0 if fixed["variant"] == "post-ln" else -0.5
    bound = pd.Series(start * (depths / depths[0]) ** power, depths)
    yield from curve(bound, **{**fixed, "panel": fixed["group"], "quantity": _BOUND})


def _slope_of_theory(rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the slope of what theory says at the same depths."""
    curve = {row["x"]: [row["value"]] for row in rows if row["quantity"] == PREDICTED}
    if len(curve) > 1:
        fixed = {name: rows[0][name] for name in ("label", "variant", "group")}
        yield {**fixed, "panel": SUMMARY, "quantity": "slope, theory", "value": slope(pd.DataFrame(curve)).value}


def _ratio(last: dict[str, tuple[pd.DataFrame, pd.DataFrame]], kind: str) -> Iterator[dict[str, Any]]:
    """Yield Pre-LN's gradient over Post-LN's, the law's √(q_Post/q_Pre) through the measured streams, and both' ratio.

    Pairs of one seed have the same weights and the same batch.
    """
    (post, q_post), (pre, q_pre) = last["post-ln"], last["pre-ln"]
    ratios = ratio(pre, post)
    fixed = {"group": kind, "label": kind, "variant": kind}
    for blocks in ratios.columns:
        own = ratios[[blocks]].dropna()
        law = ((q_post[[blocks]] / q_pre[[blocks]]) ** 0.5).reindex(own.index)
        yield from over(own, **fixed, panel="ratio", quantity=MEASURED)
        yield {**fixed, "panel": "ratio", "quantity": "law", "x": blocks, "value": log_t_interval(law).value}
        yield from over(own / law, **fixed, panel=SUMMARY, quantity="ratio over law")


def _plot(table: pd.DataFrame, figure: Figure) -> None:
    """Draw the gradient against depth in both kinds of networks, and the ratio of the arrangements."""
    drawn = table[table["panel"] != SUMMARY]
    titles = {
        "encoder-decoder": "Last decoder block",
        "encoder": "Last block, encoder only",
        "ratio": "Pre-LN / Post-LN",
    }
    for panel, ax in beside(figure, drawn, titles).items():
        own = pick(drawn, panel=panel)
        if panel == "ratio":
            _draw_ratio(ax, own)
        else:
            _draw(ax, own, pick(table, panel=SUMMARY, quantity="slope", group=panel))
        scale(ax, own, log_from=1.5)
        depth_axis(ax, own["x"])
        if panel != "ratio":
            ax.set_ylim(bottom=0.78 * ax.get_ylim()[0])  # room for the slopes
    keys = panels.entries(drawn[drawn["panel"].isin(STACKS)])
    if (drawn["quantity"] == _BOUND).any():
        keys.append(drawing.entry("order of Theorem 1", **_GUIDE))
    if (drawn["quantity"] == "law").any():
        kinds = {kind: look for kind, look in _KINDS.items() if kind in set(drawn["label"])}
        keys += [drawing.entry(f"Pre/Post, {_SHORT[kind]}", **look) for kind, look in kinds.items()]
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
            drawing.measured(ax, pick(own, quantity=MEASURED), look)
            law = pick(own, quantity="law")
            ax.plot(law["x"], law["value"], **_LAW, zorder=5)


def _slopes(table: pd.DataFrame) -> Iterator[Finding]:
    for _, row in pick(table, panel=SUMMARY, quantity="slope").iterrows():
        post, (network, source) = row["variant"] == "post-ln", _WORDS[row["group"]]
        most = limit("GL607", "post") if post else limit("GL607", "pre_most")
        least = -most if post else limit("GL607", "pre_least")
        theory = first(pick(table, variant=row["variant"], group=row["group"], quantity="slope, theory"))
        also = "" if theory is None else f"; theory gives {signed(theory['value'], 3)} for these networks"
        says = "does not depend on the number of blocks" if post else "falls about like 1/√L"
        blocks = pick(table, panel=row["group"], variant=row["variant"], quantity="measured")["x"]
        yield SLOPES.held(
            row,
            f"in {network}, {row['label']}'s gradient of the last W2 {says}: its slope over {blocks.min():.0f} to "
            f"{blocks.max():.0f} blocks is {signed(row['value'], 3)}{span(row, partial(signed, digits=3))}{also}",
            least=least,
            most=most,
            subject=f"{row['label']}, {row['group']}",
            expected=0.0 if post else -0.5,
            expected_from=f"the order in L of {source}",
            threshold=f"{row['label']}: {signed(least)} to {signed(most)}",
        )


def _ratios(table: pd.DataFrame) -> Iterator[Finding]:
    """GL608: every depth is held against the law; the one that is farthest off is told."""
    room = limit("GL608", "room")
    for kind, rows in pick(table, panel=SUMMARY, quantity="ratio over law").groupby("group", sort=False):
        worst = farthest(rows, (rows["value"] - 1).abs())
        yield LAW.held(
            rows,
            f"in {_WORDS[str(kind)][0]}, Pre-LN's last gradient over Post-LN's is √(q Post / q Pre) at {len(rows)} "
            f"depth{plural(len(rows))}; farthest off at {worst['x']:.0f} blocks, where it is "
            f"{number(worst['value'])} times that{span(worst)}",
            least=1 - room,
            most=1 + room,
            told=worst,
            subject=str(kind),
            threshold=f"{1 - room:g} to {1 + room:g} at every depth",
            details=details(rows),
        )


ANALYSIS = question(
    SLOPES,
    LAW,
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
    plot=_plot,
    judges=(_slopes, _ratios),
    nothing="No recording holds the gradients of an encoder-decoder or an encoder.",
    kinds=("init",),
    size=(6.7, 2.9),
    optional=True,
)
