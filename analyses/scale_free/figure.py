"""The figure of ``scale_free``, turn and sizes over steps, and its table of weights."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from analyses import drawing
from analyses.scale_free.numbers import SIZES, TABLE, TURN
from analyses.tables import ABSENT, number, pick

SIZE = (6.7, 2.5)
#: Rows of the printed table.
_MOST = 12
_PANELS = {
    TURN: ("Turn of a weight in a step", "‖Δw‖ / ‖w‖"),
    SIZES: ("Gradient and size", "over the first step"),
}
_DASHES = {"equilibrium": (0, (4, 1.5)), "size": (0, (4, 1.5)), "size alone": (0, (1.2, 1.2))}
_READING = {
    TURN: "Turn: what a step changes of a weight over its size, median over the weights without a scale; dashed, the "
    "equilibrium that weight decay and the rate would hold it at.",
    SIZES: "Gradient and size: of the same weights, over those of the first recorded step; solid the gradient's norm, "
    "dashed the weights' size, dotted the gradient that would be if only the size had changed, one over it.",
    TABLE: "Table: the parameters without a scale, those that are called alike but for numbers in one row; the "
    "effective rate is the rate, times 1/(1 − momentum), over the size squared, with AdamW over the size.",
}
_HEADS = {
    "cosine": "|cos(g, w)|",
    "rows": "by rows",
    "ones": "1ᵀg",
    "size": "size",
    "effective rate": "effective rate",
    "turn": "turn a step",
    "equilibrium": "turn in equilibrium",
    "ratio": "‖g‖/‖w‖",
    "ratio in equilibrium": "in equilibrium",
}


def plot(table: pd.DataFrame, figure: Figure) -> None:
    """Draw how far a step turns the weights beside the equilibrium, and their gradient and size over the steps.

    Args:
        table: of ``compute``.
        figure: an empty one.
    """
    panels = [panel for panel in _PANELS if (table["panel"] == panel).any()]
    if not panels:
        drawing.say(figure, "No recording of training holds a weight without a scale.")
        return
    look = drawing.looks(table)
    for ax, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        own, (title, axis) = pick(table, panel=panel), _PANELS[panel]
        for (label, quantity), line in own.groupby(["label", "quantity"], sort=False):
            dashes = _DASHES.get(str(quantity), "-")
            ax.plot(line["x"], line["value"], color=look[str(label)]["color"], linestyle=dashes, linewidth=1.2)
        ax.set_title(title)
        drawing.value_axis(ax, own["value"], axis)
        drawing.counted_axis(ax, "step", most=4)
    drawing.legend(figure, drawing.run_entries(table[table["panel"].isin(panels)], look, marker="", linestyle="-"))


def caption(table: pd.DataFrame) -> str:
    """Return what there is to read of a table's figure; nothing where nothing is drawn or listed.

    Args:
        table: of ``compute``.
    """
    return " ".join(text for panel, text in _READING.items() if (table["panel"] == panel).any())


def show(table: pd.DataFrame) -> Mapping[str, pd.DataFrame]:
    """Return the weights without a scale of each recording.

    Args:
        table: of ``compute``.
    """
    found = {}
    for label, rows in pick(table, panel=TABLE).groupby("label", sort=False):
        lines = []
        groups = list(rows.groupby("group", sort=False))
        for name, own in groups[:_MOST]:
            cosine = pick(own, quantity="cosine")
            values = own.drop_duplicates("quantity").set_index("quantity")["value"].map(number)
            numbers = {head: values.get(quantity, ABSENT) for quantity, head in _HEADS.items()}
            count = f"{own['n'].iloc[0]:.0f}"
            without = cosine["unit"].iloc[0] if len(cosine) else ABSENT
            lines.append({"parameter": name, "how many": count, "without a scale": without, **numbers})
        left = f", the first {_MOST} of {len(groups)} kinds" if len(groups) > _MOST else ""
        found[f"{label}: parameters without a scale{left}."] = _without_gaps(pd.DataFrame(lines))
    return found


def _without_gaps(table: pd.DataFrame) -> pd.DataFrame:
    """Leave out the columns that hold no number."""
    return table.loc[:, ~(table == ABSENT).all()]
