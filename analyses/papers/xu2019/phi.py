"""AdaNorm's factor φ(y) = C(1 − k y): its mean and deviation, and whether it stays positive."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses import drawing
from analyses.limits import limit
from analyses.papers.findings import Code, question
from analyses.papers.profiles import curve
from analyses.papers.xu2019 import panels
from analyses.papers.xu2019.cells import last_rows, places
from analyses.papers.xu2019.metrics import METRICS
from analyses.papers.xu2019.runs import Run, grid, in_order
from analyses.tables import SUMMARY, number, percent, pick, tidy
from gradlens.analysis import Finding
from gradlens.recording import Recording

#: The zoo's AdaNorm takes the slope of the paper and the scale of the authors' example.
SCALE, SLOPE = 1.0, 0.1
MOMENTS = Code(
    code="GL511",
    analysis="xu2019_phi",
    explanation=(
        "Mean and deviation of φ. AdaNorm weighs y by φ(y) = C(1 − k y), where y has mean 0 and variance 1: φ has the "
        "mean C, as the paper asks of it, and the standard deviation kC, whatever the input. Both are exact up to "
        "rounding and eps, with C = 1 and k = 1/10 here."
    ),
    expected=0.0,
    expected_from="y has mean 0 and variance 1, and φ is linear in it",
    causes=("Inputs whose variance is near eps, or 0: there y has less than unit variance.", "Another C or k."),
    remedies=("Look at 1/σ of the norm named: eps caps it.",),
    reference="Xu et al. 2019 (1911.07013), AdaNorm",
)
POSITIVE = Code(
    code="GL512",
    analysis="xu2019_phi",
    explanation=(
        "Whether φ is positive. The paper asks for φ > 0 and argues with Chebyshev's inequality: at most k² = 1 % of "
        "the entries are 1/k = 10 or more from the mean. That is no promise for every entry. Where max |y| stays below "
        "10 in all recorded rows, φ was positive throughout; above, an entry may have been weighed by a negative φ. No "
        "entry can be above √(H − 1), so that norms of up to 101 features are safe."
    ),
    unit="σ",
    expected=f"below {1 / SLOPE:g}",
    expected_from="φ = C(1 − k y) > 0 where y < 1/k; by Chebyshev in more than 99 % of the entries",
    threshold=f"below 1/k = {1 / SLOPE:g}",
    causes=(
        "Sparse or heavy-tailed inputs: single entries many σ from the mean; Chebyshev allows 1 % of them.",
        "A y below −1/k counts too, where φ is large and not negative; of a row only the largest |y| is known.",
    ),
    remedies=("A smaller k; where φ is negative the entry's gradient changes its sign.",),
    reference="Xu et al. 2019 (1911.07013), AdaNorm",
)
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
        yield from curve(series.dropna(), **fixed)
    for moment in _DASHES:
        fixed = {**who, "panel": _MOMENTS, "quantity": moment, "n": len(own)}
        yield from curve(rows.groupby("step")[moment].mean().dropna(), **fixed)
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
    """Draw max |y| over training and by depth under 1/k, and the moments of φ on C and kC; a line a task."""
    drawn = table[table["panel"] != SUMMARY]
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


def judge(table: pd.DataFrame) -> list[Finding]:
    """Return whether φ is what the paper says, over all tasks, and whether it stays positive, a task each."""
    summary = pick(table, panel=SUMMARY)
    if summary.empty:
        return [MOMENTS.silent("No recording holds AdaNorm's factor φ.")]
    return [*_moments(summary), *_positive(summary)]


def _moments(summary: pd.DataFrame) -> Iterator[Finding]:
    """GL511: a fact about every row, so there is no interval."""
    means, deviations = pick(summary, quantity="φ: mean off"), pick(summary, quantity="φ: deviation off")
    if means.empty or deviations.empty:
        return
    room, wide = limit("GL511", "mean"), limit("GL511", "deviation")
    wrong = pd.concat([means[means["value"] > room], deviations[deviations["value"] > wide]])
    verdict = "does not keep" if len(wrong) else "keeps"
    yield MOMENTS.finding(
        "fail" if len(wrong) else "pass",
        f"AdaNorm's φ {verdict} the mean C = {SCALE:g} and the deviation kC = {SLOPE * SCALE:g} in all "
        f"{means['n'].sum():.0f} rows: at worst off by {means['value'].max():.1g} and "
        f"{deviations['value'].max():.1g} of them.",
        subject=str(wrong["label"].iloc[0]) if len(wrong) else "",
        value=float(max(means["value"].max(), deviations["value"].max())),
        threshold=f"mean within {room:g} of C, deviation within {wide:g} of kC",
        sites=tuple(dict.fromkeys(wrong["group"])),
        steps=tuple(dict.fromkeys(int(step) for step in wrong["x"])),
    )


def _positive(summary: pd.DataFrame) -> Iterator[Finding]:
    """GL512: a fact about every row, so there is no interval."""
    for task in summary["schedule"].unique():
        rows = pick(summary, schedule=task)
        found = pick(rows, quantity="largest |y|")
        if found.empty:
            continue
        worst = found.iloc[0]
        most, possible = 1.0 / SLOPE, pick(rows, quantity="largest |y| there can be")["value"]
        cannot = len(possible) and float(possible.iloc[0]) < most
        claim = f"{panels.named(str(task))}: the largest |y| is {number(worst['value'])}"
        if worst["value"] >= most:
            over, sure = (_share(rows, what) for what in ("|y| over 1/k", "negative φ"))
            claim += f"; |y| reaches 1/k in {percent(over)} of the {worst['n']:.0f} rows, with a y above 0 (and so a "
            claim += f"negative φ) for certain in {percent(sure)}"
        elif cannot:
            claim += f", and cannot be above √(H − 1) = {number(float(possible.iloc[0]))}: φ is positive in every entry"
        else:
            claim += ", so that φ is positive in every recorded entry"
        yield POSITIVE.finding(
            "warn" if worst["value"] >= most else "pass",
            f"{claim} (at worst {worst['label']}, {worst['group']}, step {worst['x']:.0f}).",
            subject=panels.named(str(task)),
            value=float(worst["value"]),
            sites=(str(worst["group"]),),
            steps=(int(worst["x"]),),
        )


def _share(rows: pd.DataFrame, what: str) -> float:
    """Return the share of a task's rows with something."""
    return float(pick(rows, quantity=f"share of rows with {what}")["value"].iloc[0])


ANALYSIS = question(
    MOMENTS,
    POSITIVE,
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
    nothing="No recording holds AdaNorm's factor φ.",
    optional=True,
)
