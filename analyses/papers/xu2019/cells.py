"""The cells of the reproduction: the seeds of one task and norm, whose mean is drawn; what did not end stands alone."""

from collections.abc import Iterable, Iterator, Sequence

import pandas as pd

from analyses.papers.xu2019.runs import NORMS, Run
from gradlens.analysis.ending import at_the_end

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
