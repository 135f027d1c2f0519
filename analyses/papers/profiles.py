"""Numbers over depth, or over anything counted, of several arrangements: their rows, and panels beside each other."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from analyses import drawing
from analyses.intervals import Array, Interval, log_t_interval, t_interval

MEASURED, PREDICTED = "measured", "predicted"
Row = dict[str, Any]


def over(wide: pd.DataFrame, interval: Callable[[Any], Interval] = log_t_interval, /, **fixed: Any) -> Iterator[Row]:
    """Yield a row a place: the mean over seeds with its interval.

    Args:
        wide: numbers [seeds, places]; the columns are the places.
        interval: of one column; by default of the geometric mean.
        fixed: what all rows share.
    """
    yield from ({**fixed, "x": x, **interval(values).row()} for x, values in wide.items())


def curve(values: pd.Series | None, **fixed: Any) -> Iterator[Row]:
    """Yield a row a value by its place, such as theory gives them; nothing where there is no curve."""
    yield from ({**fixed, "x": x, "value": value} for x, value in (() if values is None else values.items()))


def ratio(favoured: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Return one over the other [seeds, places] where both were measured, pairs of the same seed."""
    both = [place for place in favoured.columns if place in other.columns]
    return favoured[both] / other[both]


def slope(values: pd.DataFrame) -> Interval:
    """Return the least-squares slope of log value over log column, mean over rows with its t-interval.

    Args:
        values: positive, [seeds, depths]; the columns are numbers of blocks. A seed that lacks a depth is left out.
    """
    whole = values.dropna()
    if whole.shape[1] < 2 or whole.empty:
        return t_interval([])
    x: Array = np.log(np.array(whole.columns, dtype=np.float64))
    return t_interval(np.polyfit(x, np.log(whole.to_numpy(dtype=np.float64)).T, 1)[0])


def beside(figure: Figure, drawn: pd.DataFrame, titles: Mapping[str, str], **changes: Any) -> dict[str, Axes]:
    """Return axes beside each other, one for each panel that has rows.

    Args:
        figure: an empty one.
        drawn: rows of the panels, at least one.
        titles: panel to its heading, in order.
        changes: options of the axes.
    """
    shown = [panel for panel in titles if (drawn["panel"] == panel).any()]
    axes = dict(zip(shown, figure.subplots(1, len(shown), squeeze=False, **changes)[0], strict=True))
    for panel, ax in axes.items():
        ax.set_title(titles[panel])
    return axes


def scale(ax: Axes, rows: pd.DataFrame, unit: str = "", *also: float, log_from: float = drawing.DECADE) -> None:
    """Scale a vertical axis by the values and intervals of what it shows."""
    drawing.value_axis(ax, [*finite(rows), *also], unit, log_from=log_from)


def depth_axis(ax: Axes, depths: Iterable[float], name: str = "blocks of a stack") -> None:
    """Scale a horizontal axis of depths by decades, with a tick at each that has room."""
    ax.set_xscale("log")
    shown: list[float] = []
    for x in sorted(set(depths), reverse=True):
        if not shown or shown[-1] / x > 1.22:
            shown.append(x)
    plain_ticks(ax, shown)
    ax.set_xlabel(name)


def plain_ticks(ax: Axes, ticks: Sequence[float]) -> None:
    """Put ticks on a logarithmic horizontal axis just there, in plain digits."""
    ax.xaxis.set_major_locator(FixedLocator(list(ticks)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def finite(rows: pd.DataFrame) -> list[float]:
    """Return the numbers that an axis must hold: values and intervals."""
    values = rows[["value", "low", "high"]].to_numpy(dtype=np.float64).ravel(order="F")
    return [float(value) for value in values[np.isfinite(values)]]
