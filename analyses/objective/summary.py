"""The table to read: a row a run (and module that was called)."""

import pandas as pd

from analyses.tables import ABSENT, number, pick

_CAPTION = "What the gradient at the output tells of the loss, and what goes in."
_KINDS = {
    "softmax": "cross-entropy", "twice": "cross-entropy of probabilities", "binary": "binary cross-entropy",
}  # fmt: skip
#: Column to the quantity that stands in it.
_COLUMNS = {
    "weight of a row": "row weight", "labels, nats": "entropy of the labels", "loss, nats": "loss on them",
    "input": "input",
}  # fmt: skip


def show(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return one small table; none where nothing was recorded.

    Args:
        table: of ``compute``.
    """
    told = table[table["quantity"].isin(["kind", *_COLUMNS.values()])]
    rows = []
    for (label, site), own in told.groupby(["label", "stack"], sort=False):
        row = {"recording": str(label), "of": str(site) or "the model itself"}
        kinds = pick(own, quantity="kind")["group"]
        row["loss that fits"] = _KINDS.get(kinds.iloc[0], ABSENT) if len(kinds) else ABSENT
        for column, quantity in _COLUMNS.items():
            values = pick(own, quantity=quantity)["value"]
            row[column] = number(float(values.iloc[0])) if len(values) else ABSENT
        rows.append(row)
    return {_CAPTION: pd.DataFrame(rows)} if rows else {}
