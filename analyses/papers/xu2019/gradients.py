"""What each norm does to the mean and the variance of the gradient: by depth at the end, and over training."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analyses.intervals import log_t_interval
from analyses.papers.findings import question
from analyses.papers.profiles import curve
from analyses.papers.xu2019 import gradient_findings, gradient_panels
from analyses.papers.xu2019.cells import MEAN_IS_CUT, SIGMA_IS_CUT, cells, last_rows, named, places
from analyses.papers.xu2019.runs import Run, grid
from analyses.steps import over_seeds, smoothed
from analyses.tables import SUMMARY, tidy
from gradlens.analysis.ending import at_the_end
from gradlens.recording import Recording

QUANTITIES = tuple(gradient_panels.COLUMNS)
#: Drawn on log axes, where all is positive.
_GEOMETRIC = ("mean", "recentering", "rho2", "inv_sigma")
_REFERENCE = {"recentering": "reference", "rho2": "reference_rho2"}
#: A mean below this share of the gradient's size is rounding of float32, and its ratio says nothing.
_ROUNDING = 1e-6
#: Norms of which GL510 speaks: both derivatives flow, and no factor stands behind them.
_GROWING = ("layernorm", "layernorm-simple")
_NEEDS = {
    "sites": ("site", "order"),
    "norms": (
        "step", "site", "vectors", "width", "recentering", "rescaling", "mean_share", "inv_sigma",
        "mean2_detached", "var_detached", "mean2_actual", "var_actual",
    ),
}  # fmt: skip


def measured(run: Run) -> pd.DataFrame:
    """Return the quantities of every norm and step of a run; several calls of one norm count alike.

    ``mean`` and ``variance`` compare the gradient behind the norm with what DetachNorm would have sent back:
    √(mean ā² / mean (ḡ/σ)²), and mean D_a / mean (D_g/σ²). Where σ's derivative flows the latter is 1 − ρ² of every
    vector, so that ``rho2`` is the mean of ρ² with weights D_g/σ². Of a derivative that is cut, the share it
    removes is missing.

    Returns:
        ``step``, ``site``, ``place`` (in forward order, from 1), the quantities and what a random g gives.
    """
    rows = run.recording.norms
    scale = rows["mean2_detached"] + rows["var_detached"]
    sound = rows["mean2_detached"] > _ROUNDING**2 * scale
    rows["mean"] = np.sqrt(rows["mean2_actual"] / rows["mean2_detached"].where(sound))
    rows["variance"] = rows["var_actual"] / rows["var_detached"].where(rows["var_detached"] > 0)
    rows["rho2"] = np.nan if run.norm in SIGMA_IS_CUT else 1.0 - rows["variance"]
    if run.norm in MEAN_IS_CUT:
        rows["recentering"] = np.nan
    rows["reference"] = 1.0 / rows["width"]
    rows["reference_rho2"] = 1.0 / (rows["width"] - 1.0)
    columns = [*QUANTITIES, *_REFERENCE.values()]
    finite = rows[columns].replace([np.inf, -np.inf], np.nan)
    table = finite.groupby([rows["step"], rows["site"]], sort=True).mean().reset_index()
    return table.assign(place=table["site"].map(places(run, table["site"])))


def compute_by_depth(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Return the quantities of every norm at the end of training, and Theorem 1's worst violations.

    Args:
        recordings: of the grid; those without a norm are left out.
    """
    found, rows = [run for run in grid(recordings) if len(run.recording.norms)], []
    for who, members in cells(found):
        tables = [measured(run) for run in members]
        ends = [last_rows(table).groupby("site").mean() for table in tables]
        sites = tables[0].drop_duplicates("place").set_index("place")["site"]
        for quantity in QUANTITIES:
            fixed = {**who, "panel": quantity, "quantity": quantity, "unit": gradient_panels.UNITS[quantity]}
            series = [end.set_index("place")[quantity] for end in ends]
            drawn = over_seeds(series, fixed, geometric=quantity in _GEOMETRIC)
            rows += [{**row, "group": sites[row["x"]]} for row in drawn]
        rows += _random(who, {q: ends[0].set_index("place")[c].dropna() for q, c in _REFERENCE.items()})
        rows += [row for run in members for row in theorem(run)]
    return tidy(rows)


def _random(who: dict[str, str], series: dict[str, pd.Series]) -> Iterator[dict[str, Any]]:
    for quantity, values in series.items():
        yield from curve(values, **who, panel=quantity, quantity="random g")


def theorem(run: Run) -> Iterator[dict[str, Any]]:
    """Yield the worst violation of each part of Theorem 1 in any row of a run, with its site and step.

    A row holds means over vectors, so only what is linear in those can be tested on it:

    - where μ's derivative flows ā is 0 in every vector, and so is the mean of ā²; where it is cut the mean of ā² is
      that of (ḡ/σ)². Both as amplitudes, over the size of the gradient that DetachNorm would send back;
    - D_a ≤ D_g/σ² in every vector, so also in the mean, with equality where σ's derivative is cut. Over D_g/σ².

    The equality D_a = (1 − ρ²) D_g/σ² is one of single vectors: shares weigh vectors by ‖g‖², variances by D_g/σ².
    It is tested where a row is of one vector, with ρ² = rescaling/(1 − mean_share). (With eps both sides lose
    s²(2 − mean y²), and it still holds.) Rows with a number that is not finite are not judged.
    """
    rows = run.recording.norms
    moments = ["mean2_detached", "mean2_actual", "var_detached", "var_actual"]
    rows = rows[np.isfinite(rows[moments].to_numpy()).all(axis=1)]
    rows = rows[rows["mean2_detached"] + rows["var_detached"] > 0]
    size2 = rows["mean2_detached"] + rows["var_detached"]
    before, after = (np.sqrt(rows[f"mean2_{which}"].clip(lower=0.0)) for which in ("detached", "actual"))
    excess = (rows["var_actual"] - rows["var_detached"]) / rows["var_detached"].where(rows["var_detached"] > 0)
    off = {
        "mean": (after if run.norm not in MEAN_IS_CUT else (after - before).abs()) / np.sqrt(size2),
        "variance": excess.abs() if run.norm in SIGMA_IS_CUT else excess.clip(lower=0.0),
    }
    one = (rows["vectors"] == 1) & (rows["mean_share"] < 1)
    rho2 = rows["rescaling"] / (1.0 - rows["mean_share"].where(one))
    off["correlation"] = (excess + rho2).abs()
    fixed = {**named(run.task, run.norm, run.recording.label, run.ending), "panel": SUMMARY}
    for part, error in off.items():
        error = error.dropna()
        if len(error):
            worst = rows.loc[error.index].iloc[int(error.to_numpy().argmax())]
            where = {"group": worst["site"], "x": worst["step"]}
            yield {**fixed, **where, "quantity": f"theorem 1: {part}", "value": error.max(), "n": len(error)}


def _growth(who: dict[str, str], tables: Sequence[pd.DataFrame]) -> Iterator[dict[str, Any]]:
    """Yield ρ² over that of a random g, mean over norms, at the first recorded step and at the end."""
    times = []
    for table in tables:
        ratio = (table["rho2"] / table["reference_rho2"]).groupby(table["step"]).mean().dropna()
        if len(ratio) > 1:
            times.append((ratio.iloc[0], at_the_end(ratio.iloc[1:]).mean()))
    for k, when in enumerate(("start", "end")):
        fixed = {**who, "panel": SUMMARY, "quantity": f"rho2 over random, {when}"}
        if times:
            yield {**fixed, **log_t_interval([time[k] for time in times]).row()}


def compute_over_training(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Return the quantities over the recorded steps, means over norms and seeds, smoothed.

    Args:
        recordings: of the grid; those without a norm are left out.
    """
    rows: list[dict[str, Any]] = []
    for who, members in cells([run for run in grid(recordings) if len(run.recording.norms)]):
        columns = [*QUANTITIES, *_REFERENCE.values()]
        tables = [measured(run) for run in members]
        means = [table.groupby("step")[columns].mean() for table in tables]
        for quantity in QUANTITIES:
            together = pd.concat([mean[quantity] for mean in means], axis=1)
            series = smoothed(together.mean(axis=1).dropna(), geometric=quantity in _GEOMETRIC)
            fixed = {**who, "panel": quantity, "quantity": quantity, "unit": gradient_panels.UNITS[quantity]}
            rows += [{**fixed, "x": x, "value": value, "n": len(members)} for x, value in series.items()]
        ends = {q: means[0][c].iloc[[0, -1]] for q, c in _REFERENCE.items()}
        rows += _random(who, ends)
        if members[0].norm in _GROWING and not members[0].ending:
            rows += _growth(who, tables)
    return tidy(rows)


_READING = (
    "Mean: √(mean ā²) of the gradient behind the norm over that of g/σ, which DetachNorm sends back; 0 (rounding) "
    "where the derivative of μ flows, 1 where it is cut. Variance: the same of the variance, 1 − ρ² where the "
    "derivative of σ flows, 1 where it is cut. Re-centering: the share of g's energy in its mean, as far as the norm "
    "removes it. ρ²: the squared correlation of g with the normalized value, as far as the norm removes it. Dotted, "
    "what a g without preferred direction gives, 1/H and 1/(H − 1). Values below 10⁻⁶ (of the mean: 10⁻⁹) are "
    "rounding and lie on the lower edge. w/o Norm has no norm to look at."
)
BY_DEPTH = question(
    gradient_findings.THEOREM,
    title="What the derivatives of mean and variance do, by depth",
    question="Does the derivative of the mean re-center gradients, and that of the variance re-scale them?",
    reading=(
        f"A row a task; every norm in forward order at the end of training, mean over seeds in a "
        f"band, their range (encoder left, decoder right of the line). {_READING} Thin, a single "
        "run that did not come to its end, over the last steps it has."
    ),
    needs=_NEEDS,
    compute=compute_by_depth,
    plot=gradient_panels.plot_by_depth,
    judge=gradient_findings.judge_by_depth,
    kinds=("training",),
    size=gradient_panels.SIZE,
    nothing="No recording of the paper's grid holds a norm with a gradient.",
)
OVER_TRAINING = question(
    gradient_findings.GROWTH,
    title="What the derivatives of mean and variance do, over training",
    question="How do the re-centering and the re-scaling of gradients change in training?",
    reading=(
        f"A row a task; the mean over all norms of the model and over seeds, smoothed over 5 % of the recorded steps. "
        f"{_READING} Thin, a single run that did not come to its end, with a cross where it diverged."
    ),
    needs=_NEEDS,
    compute=compute_over_training,
    plot=gradient_panels.plot_over_training,
    judge=gradient_findings.judge_over_training,
    kinds=("training",),
    size=gradient_panels.SIZE,
    nothing="No recording of the paper's grid holds a norm with a gradient.",
)
