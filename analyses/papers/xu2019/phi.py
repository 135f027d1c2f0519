"""AdaNorm's factor φ(y) = C(1 − k y): its mean and deviation, and whether it stays positive."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses import drawing
from analyses.papers.xu2019 import panels
from analyses.papers.xu2019.cells import last_rows, places
from analyses.papers.xu2019.metrics import METRICS
from analyses.papers.xu2019.phi_findings import CODES, NAME, REFERENCE, SCALE, SLOPE, judge
from analyses.papers.xu2019.runs import Run, grid, in_order
from analyses.tables import SUMMARY, pick, tidy
from gradlens.analysis import Analysis
from gradlens.recording import Recording

_TIME, _DEPTH, _MOMENTS = "max |y| over training", "max |y| by depth", "φ over training"
#: Relative room of float32 in telling the sign of the entry with the largest |y| by that of φ.
_SIGN_ROOM = 1e-3
_DASHES = {"mean": "-", "deviation": (0, (4, 1.5))}


def compute(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Return max |y| over training and by depth, and mean and deviation of φ, of the runs with AdaNorm.

    Extremes are over all norms and seeds. φ's moments are means over all norms and seeds; what is judged is the worst.

    Args:
        recordings: of the grid; those without AdaNorm are left out.
    """
    tables = [(run, table) for run in grid(recordings) if len(table := factors(run))]
    return tidy(row for task in in_order([run.task for run, _ in tables], METRICS) for row in _rows(task, tables))


def factors(run: Run) -> pd.DataFrame:
    """Return a row a step, norm and call: max |y|, φ's mean and deviation, and whether a φ is certainly negative.

    Args:
        run: of any norm; the table is empty for those without a factor.
    """
    rows = run.recording.activations
    at_factor = rows["site"].astype(str).str.split(".").str[-1] == "factor"
    if run.norm != "adanorm" or not at_factor.any():
        return pd.DataFrame()
    keys = ["step", "site", "call", "rank"]
    y, phi = (pick(rows[at_factor], tensor=which).set_index(keys) for which in ("input", "output"))
    variance = (phi["rms"] ** 2 - phi["mean"] ** 2).clip(lower=0.0)
    table = pd.DataFrame({"largest": y["absmax"], "mean": phi["mean"], "deviation": np.sqrt(variance)})
    # The largest |y| belongs to a positive entry where φ is not as large as a negative one would make it.
    positive = phi["absmax"] < SCALE * (1 + SLOPE * y["absmax"]) * (1 - _SIGN_ROOM)
    table = table.assign(negative=(y["absmax"] > 1 / SLOPE) & positive).reset_index()
    return table.assign(
        place=table["site"].map(places(run, table["site"])), width=_width(run, table), label=run.recording.label
    )


def _width(run: Run, table: pd.DataFrame) -> pd.Series:
    """Return H of the norm that each factor belongs to; missing where it is not recorded."""
    norms = run.recording.norms.drop_duplicates("site").set_index("site")["width"]
    return table["site"].str.replace(r"factor$", "normalize", regex=True).map(norms).astype("float64")


def _rows(task: str, tables: Sequence[tuple[Run, pd.DataFrame]]) -> Iterator[dict[str, Any]]:
    own = [table for run, table in tables if run.task == task]
    rows, who = pd.concat(own, ignore_index=True), {"label": task, "variant": "adanorm", "schedule": task}
    by_depth = pd.concat([last_rows(table) for table in own]).groupby("place")["largest"].max()
    for panel, series in ((_TIME, rows.groupby("step")["largest"].max()), (_DEPTH, by_depth)):
        fixed = {**who, "panel": panel, "quantity": "max |y|", "n": len(own)}
        yield from ({**fixed, "x": x, "value": value} for x, value in series.dropna().items())
    for moment in _DASHES:
        fixed = {**who, "panel": _MOMENTS, "quantity": moment, "n": len(own)}
        series = rows.groupby("step")[moment].mean().dropna()
        yield from ({**fixed, "x": x, "value": value} for x, value in series.items())
    yield from _judged(rows, who)


def _judged(rows: pd.DataFrame, who: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Yield the worst deviations from C and kC, the largest |y|, and how often it is too large."""
    off = {
        "φ: mean off": (rows["mean"] / SCALE - 1.0).abs(),
        "φ: deviation off": (rows["deviation"] / (SLOPE * SCALE) - 1.0).abs(),
        "largest |y|": rows["largest"],
    }
    for quantity, values in off.items():
        values = values.dropna()
        if len(values):
            worst = rows.loc[values.index].iloc[int(values.to_numpy().argmax())]
            place = {"label": worst["label"], "group": worst["site"], "x": worst["step"]}
            yield {**who, **place, "panel": SUMMARY, "quantity": quantity, "value": values.max(), "n": len(values)}
    largest = rows["largest"].dropna()
    fixed = {**who, "panel": SUMMARY, "n": len(largest)}
    yield {**fixed, "quantity": "share of rows with |y| over 1/k", "value": (largest >= 1 / SLOPE).mean()}
    yield {**fixed, "quantity": "share of rows with negative φ", "value": rows["negative"].mean()}
    if rows["width"].notna().any():
        yield {**fixed, "quantity": "largest |y| there can be", "value": float(np.sqrt(rows["width"].max() - 1.0))}


def plot(table: pd.DataFrame, figure: Figure) -> None:
    """Draw max |y| over training and by depth under 1/k, and the moments of φ on C and kC; a line a task.

    Args:
        table: of ``compute``.
        figure: an empty one.
    """
    drawn = table[table["panel"] != SUMMARY]
    if drawn.empty:
        drawing.say(figure, "No recording holds AdaNorm's factor φ.")
        return
    tasks = in_order(drawn["schedule"], METRICS)
    looks = {task: _look(k) for k, task in enumerate(tasks)}
    axes = figure.subplots(1, 3)
    for ax, panel in zip(axes, (_TIME, _DEPTH, _MOMENTS), strict=True):
        rows = pick(drawn, panel=panel)
        for (task, quantity), line in rows.groupby(["schedule", "quantity"], sort=False):
            look = looks[str(task)]
            if panel != _DEPTH and len(line) > 1:
                look = look | {"marker": "", "linestyle": _DASHES.get(str(quantity), "-")}
            drawing.measured(ax, line, look)
        _theory(ax, panel)
        drawing.counted_axis(ax, "norm, in order" if panel == _DEPTH else "step", most=4, start=int(panel == _DEPTH))
    for ax, title in zip(axes, ("Largest |y|", "Largest |y|, end of training", "Factor φ"), strict=True):
        ax.set_title(title)
    axes[0].set_ylabel("|y| (σ of the input)")
    keys = [drawing.entry(panels.named(task), **look) for task, look in looks.items()]
    drawing.legend(figure, [*keys, drawing.entry("theory: 1/k; C, kC", **drawing.DOTTED)])


def _look(k: int) -> drawing.Look:
    return {"color": drawing.PALETTE[k % len(drawing.PALETTE)], "marker": drawing.MARKERS[k % len(drawing.MARKERS)]}


def _theory(ax: Axes, panel: str) -> None:
    for level in (SCALE, SLOPE * SCALE) if panel == _MOMENTS else (1 / SLOPE,):
        ax.axhline(level, **drawing.DOTTED)
    if panel == _MOMENTS:
        ax.set_ylim(0, 1.15 * SCALE)
        for name, level in (("mean, on C", SCALE), ("deviation, on kC", SLOPE * SCALE)):
            ax.annotate(
                name,
                (0.98, level),
                (0, -4 if level == SCALE else 4),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                ha="right",
                va="top" if level == SCALE else "bottom",
                fontsize=6.5,
            )
    else:
        ax.set_ylim(0, max(1.1 / SLOPE, ax.get_ylim()[1]))


ANALYSIS = Analysis(
    name=NAME,
    title="AdaNorm's factor φ",
    question="Has AdaNorm's factor φ the mean and deviation that it is built to have, and does it stay positive?",
    reading=(
        "y is the normalized value and φ = C(1 − k y) the factor it is weighed by, with C = 1 and k = 1/10. Left and "
        "middle, the largest |y| of any entry, over all norms and seeds: above the dotted 1/k = 10, φ can be negative. "
        "Right, mean and standard deviation of φ, mean over norms and seeds, on what theory gives, C and kC."
    ),
    needs={
        "sites": ("site", "order"),
        "activations": ("step", "site", "tensor", "mean", "rms", "absmax"),
        "norms": ("site", "width"),
    },
    compute=compute,
    plot=plot,
    judge=judge,
    kinds=("training",),
    size=(6.7, 2.6),
    codes=CODES,
    reference=REFERENCE,
    optional=True,
)
