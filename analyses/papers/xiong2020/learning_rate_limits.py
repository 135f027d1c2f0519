"""Learning rates around the largest stable one, which was predicted in two ways, and how the runs went."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses import drawing
from analyses.limits import limit
from analyses.papers.findings import question
from analyses.papers.measured import ARRANGEMENTS, arrangement
from analyses.papers.profiles import plain_ticks
from analyses.papers.xiong2020.limits_findings import PREDICTORS, judge
from analyses.papers.xiong2020.runs import OPTIMIZERS, optimizer_name
from analyses.steps import end_of_training
from analyses.tables import ABSENT, SUMMARY, pick, tidy
from gradlens.recording import Recording

#: Columns that together name a prediction: arrangement, optimizer, and what predicted.
_KEY = ["variant", "group", "schedule"]
_BY = " or ".join(f"{predictor.words} ({by})" for by, predictor in PREDICTORS.items())


def compute(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Return what became of each run, and which predictions are right.

    Args:
        recordings: of any kind; training runs at a multiple of a predicted limit count, where they came to an end.

    Returns:
        Rows of the panel ``runs``: ``variant``, ``group`` (the optimizer), ``schedule`` (what predicted the limit,
        ``edge`` or ``trial``), ``x`` (the multiple), ``value`` (1 where it diverged), ``low`` (the learning rate),
        ``high`` (loss at the end over that of the first step); of the panel ``summary`` a row a prediction, ``value``
        1 where it is right.
    """
    rows = [_run(r) for r in recordings if r.meta.get("limit") and r.meta.get("status") in ("complete", "diverged")]
    runs = pd.DataFrame([row for row in rows if row["variant"] in ARRANGEMENTS])
    return tidy([*runs.to_dict("records"), *(_judged(runs) if len(runs) else ())])  # type: ignore[list-item]


def _run(recording: Recording) -> dict[str, Any]:
    given, steps = recording.meta["limit"], recording.steps.sort_values("step")
    start = float(steps["loss"].iloc[0]) if len(steps) else np.nan
    end = np.nan if recording.meta["status"] == "diverged" else end_of_training(steps) / start
    return {
        "panel": "runs",
        "quantity": "diverged",
        "label": recording.label,
        "variant": arrangement(recording),
        "group": str(given["optimizer"]),
        "schedule": str(given.get("by", "edge")),
        "x": float(given["factor"]),
        "value": float(not end < 1),
        "low": float(given["factor"]) * float(given["predicted"]),
        "high": end,
    }


def _judged(runs: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield a row a prediction that was tried on both sides."""
    below, above = limit("GL615", "below"), limit("GL615", "above")
    for key, own in runs.groupby(_KEY, sort=False):
        safe, over = own[own["x"] <= below], own[own["x"] >= above]
        if len(safe) and len(over):
            right = not safe["value"].any() and over["value"].all()
            fixed = {"panel": SUMMARY, "quantity": "right", **dict(zip(_KEY, key, strict=True))}
            yield {**fixed, "value": float(right), "n": len(safe) + len(over)}


def plot(table: pd.DataFrame, figure: Figure) -> None:
    """Draw a row a prediction: each multiple with how many runs trained and how many diverged.

    The figure's height is set to its rows.
    """
    runs = pick(table, panel="runs")
    if runs.empty:
        drawing.say(figure, "No run was trained at a multiple of a predicted learning rate.")
        return
    tried = _tried(runs)
    figure.set_size_inches(figure.get_figwidth(), 0.95 + 0.2 * len(tried))
    ax = figure.subplots()
    for place, key in enumerate(tried):
        own = pick(runs, **key)
        for x in own["x"].unique():
            _runs(ax, x, place, own.loc[own["x"] == x, "value"].tolist())
    ax.axvline(1.0, color=drawing.THEORY, linewidth=0.9)
    factors = sorted(runs["x"].unique())
    ax.set_xscale("log")
    ax.set_xlim(0.6 * min(*factors, 1.0), 1.7 * max(*factors, 1.0))
    plain_ticks(ax, sorted({*factors, 1.0}))
    ax.set_xlabel("learning rate over the predicted limit")
    ax.set_yticks(range(len(tried)), [", ".join(_named(key)) for key in tried])
    ax.set_ylim(len(tried) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    drawing.legend(figure, [drawing.entry(name, **look) for name, look in _LOOKS.items()])


_LOOKS: dict[str, dict[str, Any]] = {
    "trained": {"color": "#0072B2", "marker": "o", "linestyle": "", "markersize": 4.5},
    "diverged": {"color": "#D55E00", "marker": "x", "linestyle": "", "markersize": 4.5, "markeredgewidth": 1.4},
}


def _tried(runs: pd.DataFrame) -> list[dict[str, str]]:
    """Return the values of ``_KEY`` of each prediction, in the order of the rows."""
    there = set(runs[_KEY].itertuples(index=False, name=None))
    optimizers = [*OPTIMIZERS, *sorted(set(runs["group"]) - set(OPTIMIZERS))]
    return [dict(zip(_KEY, key, strict=True)) for key in product(ARRANGEMENTS, optimizers, PREDICTORS) if key in there]


def _named(key: Mapping[str, str]) -> tuple[str, str, str]:
    return ARRANGEMENTS[key["variant"]], optimizer_name(key["group"]), key["schedule"]


def _runs(ax: Axes, x: float, place: int, diverged: Sequence[float]) -> None:
    """Draw the runs at one multiple beside each other."""
    for k, broke in enumerate(sorted(diverged)):
        look = _LOOKS["diverged" if broke else "trained"]
        shift = 1.06 ** (2 * k - (len(diverged) - 1))
        ax.plot([x * shift], [place], **{"markeredgewidth": 0, **look})


def show(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return a row a prediction: the limit, and the loss at the end at each multiple."""
    runs = pick(table, panel="runs")
    if runs.empty:
        return {}
    factors = sorted(runs["x"].unique())
    rows = []
    for key in _tried(runs):
        own = pick(runs, **key)
        predicted = (own["low"] / own["x"]).unique()
        right = pick(table, panel=SUMMARY, **key)["value"]
        rows.append(
            {
                **dict(zip(("arrangement", "optimizer", "prediction"), _named(key), strict=True)),
                "predicted limit": f"{min(predicted):.2g}"
                + (f" to {max(predicted):.2g}" if max(predicted) > 1.05 * min(predicted) else ""),
                **{f"{factor:g} times": _ends(own[own["x"] == factor]) for factor in factors},
                "right": ABSENT if right.empty else "yes" if right.iloc[0] else "no",
            }
        )
    caption = (
        f"The limit of the learning rate as it is predicted by {_BY}, and the training loss at the end over that of "
        "the first step, mean over the seeds that did not diverge, at multiples of the limit."
    )
    return {caption: pd.DataFrame(rows)}


def _ends(runs: pd.DataFrame) -> str:
    if runs.empty:
        return ABSENT
    broke = int(runs["value"].sum())
    trained = runs.loc[runs["value"] == 0, "high"]
    if broke == len(runs):
        return "diverged"
    return f"{trained.mean():.2f}" + (f" ({broke} of {len(runs)} diverged)" if broke else "")


ANALYSIS = question(
    *PREDICTORS.values(),
    title="Learning rates around the predicted limit",
    question="Does a learning rate that is predicted as the largest stable one part the runs that train from others?",
    reading=(
        "A row an arrangement, optimizer and prediction; each mark is a run at a multiple of the largest stable "
        f"learning rate that was predicted for it at its initialization by {_BY}, seeds beside each other. The line is "
        "the prediction: runs left of it should train, runs far right of it diverge. Near it either is possible: "
        "curvature changes in the first steps, and a trial is short."
    ),
    needs={"steps": ("step", "loss")},
    compute=compute,
    plot=plot,
    show=show,
    judge=judge,
    kinds=("training",),
    size=(6.7, 2.8),
    optional=True,
)
