"""Learning rates around the largest stable one that was predicted at initialization, and how the runs went."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from analyses import drawing
from analyses.limits import limit
from analyses.papers.xiong2020.measured import ARRANGEMENTS, arrangement
from analyses.papers.xiong2020.runs import OPTIMIZERS, end_of_training, optimizer_name
from analyses.papers.xiong2020.words import BEGINS
from analyses.tables import ABSENT, SUMMARY, pick, tidy
from gradlens.analysis import Analysis, Finding, Status
from gradlens.recording import Recording

_NAME = "xiong2020_learning_rate_limits"
_REFERENCE = "Cohen et al. 2022 (2207.14484); Kalra & Barkeshli 2024 (2406.09405)"

CODES = {
    "GL615": (
        "The learning rate's limit is predicted before the first step. For every arrangement and optimizer the largest "
        "stable learning rate is predicted from the curvature at initialization. A prediction counts as right where "
        "no run at half of it diverges and every run at eight times it does. Diverged is a run that the trainer "
        "stopped as such, or whose training loss at its end is not below that of its first step."
    ),
}


def compute(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Return what became of each run, and which predictions are right.

    Args:
        recordings: of any kind; training runs at a multiple of a predicted limit count, where they came to an end.

    Returns:
        Rows of the panel ``runs``: ``variant``, ``group`` (the optimizer), ``x`` (the multiple), ``value`` (1 where
        it diverged), ``low`` (the learning rate), ``high`` (loss at the end over that of the first step); of the
        panel ``summary`` a row a prediction, ``value`` 1 where it is right.
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
        "x": float(given["factor"]),
        "value": float(not end < 1),
        "low": float(given["factor"]) * float(given["predicted"]),
        "high": end,
    }


def _judged(runs: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield a row a prediction that was tried on both sides."""
    below, above = limit("GL615", "below"), limit("GL615", "above")
    for (variant, optimizer), own in runs.groupby(["variant", "group"], sort=False):
        safe, over = own[own["x"] <= below], own[own["x"] >= above]
        if len(safe) and len(over):
            right = not safe["value"].any() and over["value"].all()
            fixed = {"panel": SUMMARY, "quantity": "right", "variant": variant, "group": optimizer}
            yield {**fixed, "value": float(right), "n": len(safe) + len(over)}


def plot(table: pd.DataFrame, figure: Figure) -> None:
    """Draw a row a prediction: each multiple with how many runs trained and how many diverged.

    Args:
        table: of ``compute``.
        figure: an empty one; its height is set to its rows.
    """
    runs = pick(table, panel="runs")
    if runs.empty:
        drawing.say(figure, "No run was trained at a multiple of a predicted learning rate.")
        return
    pairs = _pairs(runs)
    figure.set_size_inches(figure.get_figwidth(), 0.95 + 0.2 * len(pairs))
    ax = figure.subplots()
    for place, (variant, optimizer) in enumerate(pairs):
        own = pick(runs, variant=variant, group=optimizer)
        for x in own["x"].unique():
            _runs(ax, x, place, own.loc[own["x"] == x, "value"].tolist())
    ax.axvline(1.0, color=drawing.THEORY, linewidth=0.9)
    factors = sorted(runs["x"].unique())
    ax.set_xscale("log")
    ax.set_xlim(0.6 * min(*factors, 1.0), 1.7 * max(*factors, 1.0))
    ax.xaxis.set_major_locator(FixedLocator(sorted({*factors, 1.0})))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.set_xlabel("learning rate over the predicted limit")
    ax.set_yticks(range(len(pairs)), [f"{ARRANGEMENTS[v]}, {optimizer_name(o)}" for v, o in pairs])
    ax.set_ylim(len(pairs) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    drawing.legend(figure, [drawing.entry(name, **look) for name, look in _LOOKS.items()])


_LOOKS: dict[str, dict[str, Any]] = {
    "trained": {"color": "#0072B2", "marker": "o", "linestyle": "", "markersize": 4.5},
    "diverged": {"color": "#D55E00", "marker": "x", "linestyle": "", "markersize": 4.5, "markeredgewidth": 1.4},
}


def _pairs(runs: pd.DataFrame) -> list[tuple[str, str]]:
    there = set(zip(runs["variant"], runs["group"], strict=True))
    optimizers = [*OPTIMIZERS, *sorted({optimizer for _, optimizer in there} - set(OPTIMIZERS))]
    return [(name, optimizer) for name in ARRANGEMENTS for optimizer in optimizers if (name, optimizer) in there]


def _runs(ax: Axes, x: float, place: int, diverged: Sequence[float]) -> None:
    """Draw the runs at one multiple beside each other."""
    for k, broke in enumerate(sorted(diverged)):
        look = _LOOKS["diverged" if broke else "trained"]
        shift = 1.06 ** (2 * k - (len(diverged) - 1))
        ax.plot([x * shift], [place], **{"markeredgewidth": 0, **look})


def show(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return a row a prediction: the limit, and the loss at the end at each multiple.

    Args:
        table: of ``compute``.
    """
    runs = pick(table, panel="runs")
    if runs.empty:
        return {}
    factors = sorted(runs["x"].unique())
    rows = []
    for variant, optimizer in _pairs(runs):
        own = pick(runs, variant=variant, group=optimizer)
        predicted = (own["low"] / own["x"]).unique()
        right = pick(table, panel=SUMMARY, variant=variant, group=optimizer)["value"]
        rows.append(
            {
                "arrangement": ARRANGEMENTS[variant],
                "optimizer": optimizer_name(optimizer),
                "predicted limit": f"{min(predicted):.2g}"
                + (f" to {max(predicted):.2g}" if max(predicted) > 1.05 * min(predicted) else ""),
                **{f"{factor:g} times": _ends(own[own["x"] == factor]) for factor in factors},
                "right": ABSENT if right.empty else "yes" if right.iloc[0] else "no",
            }
        )
    caption = (
        "The predicted limit of the learning rate, and the training loss at the end over that of the first step, mean "
        "over the seeds that did not diverge, at multiples of the limit."
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


def judge(table: pd.DataFrame) -> list[Finding]:
    """GL615: how many predictions are right; a count of runs, so there is no interval.

    Args:
        table: of ``compute``.
    """
    tried = pick(table, panel=SUMMARY)
    if tried.empty:
        return []
    below, above, share = (limit("GL615", name) for name in ("below", "above", "share"))
    right, few = int(tried["value"].sum()), len(tried) < limit("GL615", "pairs")
    runs = pick(table, panel="runs")
    safe, over = runs[runs["x"] <= below]["value"], runs[runs["x"] >= above]["value"]
    status: Status = "inconclusive" if few else "pass" if right >= share * len(tried) else "warn"
    wrong = [f"{ARRANGEMENTS[row['variant']]}, {optimizer_name(row['group'])}"
             for _, row in tried[tried["value"] == 0].iterrows()]  # fmt: skip
    but = f"; not for {'; '.join(wrong)}" if wrong else ""
    return [
        Finding(
            code="GL615",
            status=status,
            claim=(
                f"{'Too few pairs to tell' if few else BEGINS[status]}: for {right} of {len(tried)} pairs of "
                f"arrangement and optimizer no run at {below:g} times the predicted limit diverges and every run at "
                f"{above:g} times does ({int((safe == 0).sum())} of {len(safe)} runs train below, "
                f"{int(over.sum())} of {len(over)} diverge above{but})."
            ),
            analysis=_NAME,
            value=right / len(tried),
            unit="share of pairs",
            expected=1.0,
            expected_from="the curvature at initialization, preconditioned as the optimizer does",
            threshold=f"at least {share:.0%} of {limit('GL615', 'pairs'):g} pairs or more".replace("%", " %"),
            causes=(
                "The loss' curvature changes in the first steps, up or down: the limit at the start is not that later.",
                "Adam's preconditioner at the start is made of a few gradients.",
                "A run far above the limit may leap into a flat region and train on (a catapult).",
            ),
            remedies=("Predict the limit again after some steps; try more seeds.",),
            reference=_REFERENCE,
            details={"trained below": float((safe == 0).mean()), "diverged above": float(over.mean())},
        )
    ]


ANALYSIS = Analysis(
    name=_NAME,
    title="Learning rates around the predicted limit",
    question="Does the learning rate that is predicted as the largest stable one part the runs that train from others?",
    reading=(
        "A row an arrangement and optimizer; each mark is a run at a multiple of the largest stable learning rate that "
        "was predicted for it at its initialization, seeds beside each other. The line is the prediction: runs left of "
        "it should train, runs far right of it diverge. Near it either is possible, for curvature changes in the first "
        "steps."
    ),
    needs={"steps": ("step", "loss")},
    compute=compute,
    plot=plot,
    show=show,
    judge=judge,
    kinds=("training",),
    size=(6.7, 2.8),
    codes=CODES,
    reference=_REFERENCE,
    optional=True,
)
