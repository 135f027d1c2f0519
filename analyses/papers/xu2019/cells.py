"""The cells of the reproduction: the seeds of one task and norm, whose mean is drawn; what did not end stands alone."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analyses.intervals import log_t_interval, t_interval
from analyses.papers.xu2019.runs import NORMS, Run
from analyses.steps import at_the_end

#: Norms through whose mean, or whose σ, no gradient flows; ``none`` has neither.
MEAN_IS_CUT = ("detachnorm", "detachnorm-mean")
SIGMA_IS_CUT = ("detachnorm", "detachnorm-variance")


def cells(found: Sequence[Run]) -> Iterator[tuple[dict[str, str], list[Run]]]:
    """Yield the columns that name a cell, and its runs.

    The complete seeds of a task and norm are one cell, by the paper's name of the norm. A mean over seeds would jump
    where one of them ends early: every such run is a cell of its own, by its label.

    Args:
        found: of ``runs.grid``.
    """
    together: dict[tuple[str, str, str], list[Run]] = {}
    for run in found:
        together.setdefault((run.task, run.norm, run.ending and run.recording.label), []).append(run)
    for (task, norm, alone), members in together.items():
        yield named(task, norm, alone, members[0].ending), members


def named(task: str, norm: str, label: str = "", ending: str = "") -> dict[str, str]:
    """Return the columns of a row that say whose number it is; the task stands in the column ``schedule``."""
    return {"label": label or NORMS[norm], "variant": norm, "schedule": task, "stack": ending}


def last_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the last recorded steps.

    Args:
        table: with the column ``step``.
    """
    steps = sorted(table["step"].unique())
    return table[table["step"].isin(at_the_end(pd.Series(steps, index=steps)))]


def places(run: Run, sites: Iterable[str]) -> dict[str, int]:
    """Return each site's place among the given ones in forward order, from 1."""
    order = run.recording.sites.set_index("site")["order"].sort_values()
    return {str(site): k + 1 for k, site in enumerate(order[order.index.isin(set(sites))].index)}


def over_seeds(
    series: Sequence[pd.Series], fixed: Mapping[str, Any], *, geometric: bool = False
) -> list[dict[str, Any]]:
    """Return a row an x: the mean over seeds, and from two seeds on their range in ``low`` and ``high``.

    What is drawn of three seeds is their range: a t-interval of so few would hide the curves. What is judged has one.

    Args:
        series: a seed each, by x.
        fixed: the columns that all rows share.
        geometric: whether to average logarithms, for what is drawn on a log axis.
    """
    if not series:
        return []
    wide = pd.concat(list(series), axis=1).sort_index()
    interval = log_t_interval if geometric else t_interval
    rows = []
    for x, values in zip(wide.index, wide.to_numpy(dtype="float64"), strict=True):
        known = values[np.isfinite(values)]
        if known.size:
            ends = {"low": known.min(), "high": known.max()} if known.size > 1 else {}
            rows.append({**fixed, "x": x, **interval(known).row(), **ends})
    return rows
