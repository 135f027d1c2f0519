"""The figure of ``final_loss``."""

import pandas as pd
from matplotlib.figure import Figure

from analyses import drawing
from analyses.tables import pick


def plot(table: pd.DataFrame, figure: Figure) -> None:
    """Draw a line a run, and compute nothing.

    Args:
        table: of ``compute``.
        figure: an empty one.
    """
    drawn = pick(table, panel="loss")
    if drawn.empty:
        drawing.say(figure, "No recording of training holds a loss.")
        return
    ax = figure.subplots()
    for label, own in drawn.groupby("label", sort=False):
        ax.plot(own["x"], own["value"], label=label)
    ax.set(xlabel="step", ylabel="loss")
    ax.legend()
