"""The gradient through time, with LayerNorm and without, at several sizes of the weights: GL521 and GL522."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analyses import drawing
from analyses.intervals import log_t_interval
from analyses.papers.ba2016.runs import BA, LOOKS, NORMS, initial, norm_of
from analyses.papers.findings import LARGER, Code, farthest, question
from analyses.tables import SUMMARY, listed, number, pick, span, tidy
from gradlens.analysis import Finding
from gradlens.recording import Recording

_PROBE = "through_time"
_CELLS = {"rnn": "RNN", "lstm": "LSTM", "gru": "GRU"}
_DASHES = {0.5: (0, (1.2, 1.2)), 1.0: "-", 2.0: (0, (4, 1.5))}
_SHARED: dict[str, Any] = {
    "analysis": "ba2016_recurrent",
    "causes": ("Biases, and an eps that is not small beside σ².", "Few steps back, or few seeds."),
    "remedies": (LARGER,),
    "reference": BA,
}
_SIZE = Code(
    code="GL521",
    explanation=(
        "The gradient through time does not depend on the size of the weights, with LayerNorm. What all weights from "
        "states and inputs are multiplied by, a half to two, changes the gradient of the last step's loss at the first "
        "state by a factor, the largest over sizes over the smallest, geometric mean over seeds: with LayerNorm below "
        "{with_norm:g} in each kind of cell, without above {without:g}."
    ),
    unit="times, largest size over smallest",
    expected=1.0,
    expected_from=f"{BA}, section 5.1 and Eq. 4, 20 to 28: invariance to re-scaling of the weight matrices",
    threshold="with LayerNorm below {with_norm:g}, without above {without:g}",
    **_SHARED,
)
_REACH = Code(
    code="GL522",
    explanation=(
        "LayerNorm carries the gradient further back. The gradient at the first state over that at the last, at the "
        "usual size of the weights, with LayerNorm over without, pairs of one seed: above {further:g} in each kind of "
        "cell. The paper says in words that hidden-to-hidden dynamics are more stable, and has no number for it."
    ),
    unit="times without",
    expected="above 1",
    expected_from=f"{BA}, beside Eq. 4, in words",
    threshold="above {further:g} in each kind of cell",
    **_SHARED,
)


def compute(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Return the gradient by steps back, geometric mean over seeds, by cell, norm and size of the weights.

    Args:
        recordings: of any kind; recurrent networks at initialization that hold the probe's readings count.
    """
    rows: list[dict[str, Any]] = []
    ends: dict[tuple[str, str], pd.DataFrame] = {}
    for recording in initial(recordings, _PROBE):
        cell, norm, read = str(recording.meta["model"]["cell"]), norm_of(recording), _read(recording)
        who = {"panel": cell, "label": NORMS[norm], "variant": norm}
        for (scale, back), values in read.groupby(["scale", "back"])["value"]:
            rows.append({**who, "group": f"{scale:g}", "x": back, **log_t_interval(values).row()})
        last = read[read["back"] == read["back"].max()]
        ends[cell, norm] = last.pivot(index="step", columns="scale", values="value")
    for (cell, norm), of in ends.items():
        who = {"panel": SUMMARY, "group": cell, "label": NORMS[norm], "variant": norm}
        rows.append({**who, "quantity": "by size", **log_t_interval(of.max(axis=1) / of.min(axis=1)).row()})
        if norm == "layernorm" and (cell, "none") in ends:
            further = (of[1.0] / ends[cell, "none"][1.0]).dropna()
            rows.append({**who, "quantity": "further", **log_t_interval(further).row()})
    return tidy(rows)


def _read(recording: Recording) -> pd.DataFrame:
    rows = recording.probes[recording.probes["probe"] == _PROBE]
    parts = rows["name"].str.extract(r"^(?P<scale>\S+) x, (?P<back>\d+) back$").astype(float)
    return rows[["step", "value"]].join(parts)


def _plot(table: pd.DataFrame, figure: Figure) -> None:
    """Draw a panel a cell: the gradient at earlier states over that at the last."""
    cells = [cell for cell in _CELLS if (table["panel"] == cell).any()]
    drawn = table[table["panel"] != SUMMARY]
    for ax, cell in zip(figure.subplots(1, len(cells), sharey=True, squeeze=False)[0], cells, strict=True):
        for (norm, scale), line in pick(drawn, panel=cell).groupby(["variant", "group"], sort=False):
            look = {"color": LOOKS[str(norm)]["color"], "linestyle": _DASHES.get(float(str(scale)), "-")}
            ax.plot(line["x"], line["value"], linewidth=1.2, **look)
        ax.set_title(_CELLS[cell])
        ax.set_yscale("log")
        drawing.counted_axis(ax, "steps before the last", most=4)
    figure.axes[0].set_ylabel("gradient over the last state's")
    entries = [
        drawing.entry(NORMS[norm], color=LOOKS[norm]["color"]) for norm in NORMS if (drawn["variant"] == norm).any()
    ]
    entries += [
        drawing.entry(f"weights × {scale:g}", color=drawing.THEORY, linestyle=d) for scale, d in _DASHES.items()
    ]
    drawing.legend(figure, entries, columns=5)


def _by_size(table: pd.DataFrame) -> Iterator[Finding]:
    rows = pick(table, panel=SUMMARY, quantity="by size")
    parts = {norm: pick(rows, variant=norm) for norm in ("layernorm", "none")}
    if any(part.empty for part in parts.values()):
        return
    most, least = _SIZE.limit("with_norm"), _SIZE.limit("without")
    with_norm, without = parts["layernorm"], parts["none"]
    worst = farthest(with_norm, with_norm["value"])
    signs = pd.concat([with_norm.assign(low=with_norm["low"] / most, high=with_norm["high"] / most),
                       without.assign(low=least / without["high"], high=least / without["low"])])  # fmt: skip
    yield _SIZE.held(
        signs,
        f"weights of half to twice their size change the gradient at the first state {number(worst['value'])} times at "
        f"most with LayerNorm, and without {_each(without)}",
        most=1.0,
        told=worst,
    )


def _further(table: pd.DataFrame) -> Iterator[Finding]:
    rows = pick(table, panel=SUMMARY, quantity="further")
    if rows.empty:
        return
    least = _REACH.limit("further")
    worst = farthest(rows, -np.log(rows["value"]))
    says = f"with LayerNorm the gradient at the first state is larger than without: {_each(rows)}{span(worst)}"
    yield _REACH.held(rows, says, least=least, told=worst)


def _each(rows: pd.DataFrame) -> str:
    return listed([f"{_CELLS[row['group']]} {number(row['value'])} times" for _, row in rows.iterrows()])


ANALYSIS = question(
    _SIZE,
    _REACH,
    title="The gradient through time",
    question="How does the gradient go back through the states of recurrent networks, with LayerNorm and without?",
    reading=(
        "The gradient of the last step's loss at each earlier state over that at the last one, at initialization, "
        "geometric mean over seeds; h, of an LSTM h and c together. Dotted and dashed, all weights from states and "
        "inputs are halved and doubled: with LayerNorm the lines lie on one another. The cells are those of the "
        "paper's supplement, at torch's own initialization, on the bytes of the standard library."
    ),
    needs={},
    compute=compute,
    plot=_plot,
    judges=(_by_size, _further),
    nothing="No recording holds readings of the probe 'through_time'.",
    kinds=("init",),
    size=(6.7, 2.6),
    optional=True,
)
