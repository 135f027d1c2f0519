"""Training and held-out loss of every norm on every task, and the runs that diverged."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses import drawing
from analyses.papers.findings import Code, question
from analyses.papers.run_curves import crosses_inside
from analyses.papers.xu2019 import panels
from analyses.papers.xu2019.cells import cells, named
from analyses.papers.xu2019.metrics import METRICS
from analyses.papers.xu2019.runs import BROKE_OFF, NORMS, Run, grid, in_order
from analyses.steps import over_seeds, smoothed
from analyses.tables import SUMMARY, pick, tidy
from gradlens.analysis import Finding
from gradlens.recording import Recording

DIVERGED = Code(
    code="GL507",
    analysis="xu2019_curves",
    explanation=(
        "Runs that diverged. The paper's table holds the word Diverge where w/o Norm and DetachNorm were trained on "
        "En-De with 12 layers, and a score in every other cell. Each task and norm of which a seed was stopped as "
        "diverged is named, with the step. A run that diverged is a result: its curve is drawn up to its end, and it "
        "counts in no mean."
    ),
    threshold="no run that the trainer stopped as diverged",
    reference="Xu et al. 2019 (1911.07013), the tables of results",
)
#: Column of the figure to the column of ``steps`` that it shows.
_PANELS = {"training": "loss", "held-out": "valid_loss"}
_ROW_HEIGHT, _HEIGHT_OF_LEGEND = 1.55, 0.5
#: The vertical axis begins where the slowest norm is after this share of training, as the paper's figures do.
_SHOWN_FROM = 0.2
_DIVERGE_IN_PAPER = ("none", "detachnorm")


def compute(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Return both losses of every task and norm over steps, means over seeds, and how many seeds diverged.

    Args:
        recordings: of the grid; others are left out.
    """
    found = grid(recordings)
    return tidy([*_curves(found), *_endings(found)])


def _curves(found: Sequence[Run]) -> Iterator[dict[str, Any]]:
    for who, members in cells(found):
        for panel in _PANELS:
            fixed = {**who, "panel": panel, "quantity": "loss", "unit": members[0].unit}
            yield from over_seeds([_losses(run, panel) for run in members], fixed)


def _losses(run: Run, panel: str) -> pd.Series:
    """Return the finite losses of a run by step; those of training smoothed, each seed by itself."""
    steps = run.recording.steps.set_index("step")
    if _PANELS[panel] not in steps:
        return pd.Series(dtype="float64")
    losses = steps[_PANELS[panel]].astype("float64")
    finite = losses[np.isfinite(losses)]
    return smoothed(finite) if panel == "training" else finite


def _endings(found: Sequence[Run]) -> Iterator[dict[str, Any]]:
    """Yield for each task and norm how many seeds there are, how many diverged and when the first did."""
    frame = pd.DataFrame([run[1:] for run in found], columns=list(Run._fields[1:]))
    for (task, norm), rows in frame.groupby(["task", "norm"], sort=False):
        broke = rows[rows["ending"] == BROKE_OFF]
        fixed = {**named(str(task), str(norm)), "panel": SUMMARY, "n": len(rows)}
        yield {**fixed, "quantity": "diverged", "value": len(broke), "x": broke["diverged_at"].min()}
        early = (rows["ending"] != "") & (rows["ending"] != BROKE_OFF)
        yield {**fixed, "quantity": "not at their end", "value": early.sum()}


def plot(table: pd.DataFrame, figure: Figure) -> None:
    """Draw a row a task, training beside held-out loss.

    The figure's height is set to its rows.
    """
    drawn = table[table["panel"] != SUMMARY]
    tasks = in_order(drawn["schedule"], METRICS)
    figure.set_size_inches(figure.get_figwidth(), _ROW_HEIGHT * len(tasks) + _HEIGHT_OF_LEGEND + 0.15)
    axes = figure.subplots(len(tasks), len(_PANELS), squeeze=False)
    for row, task in zip(axes, tasks, strict=True):
        for ax, panel in zip(row, _PANELS, strict=True):
            rows = pick(drawn, schedule=task, panel=panel)
            panels.lines(ax, rows)
            _limit(ax, rows)
            ax.set_title(f"{panels.named(task)}, {panel} loss")
        row[0].set_ylabel(pick(drawn, schedule=task)["unit"].iloc[0])
        last = pick(drawn, schedule=task)["x"].max()
        for ax in row:
            ax.set_xlim(-0.03 * max(last, 1.0), 1.03 * max(last, 1.0))
        panels.steps_axis(list(row), last=task == tasks[-1])
    drawing.legend(figure, panels.entries(drawn))


def _limit(ax: Axes, rows: pd.DataFrame) -> None:
    """Let the axis reach from the least loss to the norms' after a fifth of training, and show where each ends.

    The slowest norm at that time does not count where there are others: one curve would flatten all.
    """
    shown = pick(rows, stack="") if (rows["stack"] == "").any() else rows
    if shown.empty:
        ax.text(0.5, 0.5, "not recorded", transform=ax.transAxes, ha="center", color=drawing.THEORY)
        return
    later = shown[shown["x"] >= _SHOWN_FROM * shown["x"].max()]
    curves = later.sort_values("x").groupby("label")["value"]
    top = max(curves.last().max(), curves.first().nlargest(2).iloc[-1])
    low = later["value"].min()
    room = 0.06 * max(top - low, 1e-3 * abs(top), 1e-12)
    ax.set_ylim(low - room, top + room)
    crosses_inside(ax)


def judge(table: pd.DataFrame) -> list[Finding]:
    """Return a finding for each task and norm with a run that diverged, or one that says that none did."""
    ended = pick(table, panel=SUMMARY, quantity="diverged")
    if ended.empty:
        return [DIVERGED.silent("There is no run of the paper's grid.")]
    broke = ended[ended["value"] > 0]
    if len(broke):
        return [_diverged(row) for _, row in broke.iterrows()]
    early = pick(table, panel=SUMMARY, quantity="not at their end")["value"].sum()
    but = f" ({early:.0f} of them broke off for another reason, or still run)" if early else ""
    return [
        DIVERGED.finding(
            "pass",
            f"None of the {ended['n'].sum():.0f} runs diverged{but}.",
            value=0.0,
            expected="Diverge for w/o Norm and DetachNorm on En-De, a score in every other cell",
            expected_from="the paper's table (En-De: 12 layers)",
        )
    ]


def _diverged(row: pd.Series) -> Finding:
    """GL507: a fact about runs, so there is no interval."""
    task, norm = str(row["schedule"]), str(row["variant"])
    paper = NORMS[norm]
    known = pd.notna(row["x"])
    when = f" (the first at step {row['x']:.0f})" if known else ""
    in_paper = task == "translation" and norm in _DIVERGE_IN_PAPER
    return DIVERGED.finding(
        "warn",
        f"{panels.named(task)}, {paper}: {row['value']:.0f} of {row['n']:.0f} seeds diverged{when}.",
        subject=paper,
        value=float(row["value"]),
        unit="runs",
        expected="Diverge" if in_paper else "a score",
        expected_from="the paper's table, En-De with 12 layers" if in_paper else "the paper's table",
        steps=(int(row["x"]),) if known else (),
        causes=(
            "Without a norm, or with its derivatives cut, the gradient may grow over depth or training.",
            "A learning rate too high for this norm: all norms are given the same.",
        ),
        remedies=("Lower the learning rate or warm up longer, for all norms alike.", "Repeat with other seeds."),
    )


ANALYSIS = question(
    DIVERGED,
    title="Loss curves",
    question="How does the loss of each norm fall in training and on held-out data, and which runs diverge?",
    reading=(
        "A row a task: left the loss of training (running mean over 5 % of the recorded steps), right that of held-out "
        "data. A line a norm, the mean over the seeds that came to their end, in a band, their range; thin, "
        "a single run that did not, with a cross where it diverged. Each vertical axis ends where the "
        "norms (but for the slowest) are after a fifth of the training, so that differences at the end can be seen; "
        "what lies above is cut."
    ),
    needs={"steps": ("step", "loss")},
    compute=compute,
    plot=plot,
    judge=judge,
    nothing="No recording of training holds a loss.",
    kinds=("training",),
    size=(6.7, 5 * _ROW_HEIGHT + _HEIGHT_OF_LEGEND + 0.15),
)
