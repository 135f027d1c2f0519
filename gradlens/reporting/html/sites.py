"""What was recorded of every place of the model at every step, for a map that a reader searches."""

from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm, Normalize

from gradlens.recording import Recording
from gradlens.reporting.html.marks import grid

#: What is shown: a table, what names a row of it, the tensor where there are several, a column, and what it is.
SHOWN = (
    ("norms", "site", None, "kept", "kept: share of the gradient that the norm lets through"),
    ("norms", "site", None, "rescaling", "rescaling: share that the derivative of σ removes"),
    ("norms", "site", None, "grad_output_norm", "grad_output: L2 norm of the gradient that arrives at the norm"),
    ("activations", "site", "output", "rms", "rms of a module's output"),
    ("params", "name", None, "grad_norm", "L2 norm of a parameter's gradient"),
    ("params", "name", None, "update_ratio", "a step's change of a parameter over its length"),
)
#: Table to the columns that are read of it.
READS = {
    "norms": ("step", "site", "kept", "rescaling", "grad_output_norm"),
    "activations": ("step", "site", "tensor", "rms"),
    "params": ("step", "name", "grad_norm", "update_ratio"),
}
#: Cells of all maps together; a cell takes about three bytes of the page.
MOST_CELLS = 450_000
#: Columns below which a map is of no use: where there are so many rows that it would have fewer, it is left out.
_FEWEST = 20
#: Values that span more than this factor are coloured by their logarithm.
_DECADE = 10.0
#: Of a value, as many as are told.
_DIGITS = 4


def maps(recordings: Sequence[Recording]) -> tuple[list[dict[str, Any]], int]:
    """Return a map of each quantity of each recording that has any of it, and how many there is no room for.

    Returns:
        Each with ``recording``, ``quantity``, what its columns are (``axis``), ``sites`` from above, first and last
        step of each column (``steps``), and ``grid``, a mark of ``gradlens.reporting.html.marks``. Where all together
        have too many cells, one holds the mean over successive recorded steps.
    """
    found = [(recording, *one) for recording in recordings for one in _tables(recording)]
    kept, rows = [], 0
    for one in found:
        own = len(one[-1].columns)
        if (rows + own) * _FEWEST <= MOST_CELLS:
            kept.append(one)
            rows += own
    most = MOST_CELLS // max(rows, 1)
    return [_map(recording, quantity, table, most) for recording, quantity, table in kept], len(found) - len(kept)


def _tables(recording: Recording) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield each quantity with its values: a row a step, a column a site, in order of the model."""
    order = recording.sites.sort_values("order")["site"].tolist()
    for name, key, tensor, column, about in SHOWN:
        table = recording.table(name)
        table = table if tensor is None else table[table["tensor"] == tensor]
        if column not in table or not table[column].notna().any():
            continue
        wide = table.groupby(["step", key], sort=False)[column].mean().unstack().sort_index()
        places = order if key == "site" else table[key].drop_duplicates().tolist()
        yield about, wide[[place for place in places if place in wide]]


def _map(recording: Recording, quantity: str, table: pd.DataFrame, most: int) -> dict[str, Any]:
    parts = [part for part in np.array_split(np.arange(len(table)), min(most, len(table))) if len(part)]
    starts = [part[0] for part in parts]
    values, counted = np.nan_to_num(table.to_numpy(float), posinf=0, neginf=0), np.isfinite(table.to_numpy(float))
    sums, counts = (np.add.reduceat(of, starts, axis=0) for of in (values, counted.astype(float)))
    means = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan).T
    steps = table.index.to_numpy()
    return {
        "recording": recording.label,
        "quantity": quantity,
        "axis": "seed" if recording.meta.get("kind") == "init" else "step",
        "sites": [str(name) for name in table.columns],
        "steps": [[int(steps[part[0]]), int(steps[part[-1]])] for part in parts],
        "grid": grid(means, (0, len(parts), len(means), 0), matplotlib.colormaps["viridis"], _scale(means), _DIGITS),
    }


def _scale(values: np.ndarray) -> Normalize:
    shown = values[np.isfinite(values)]
    low, high = (float(shown.min()), float(shown.max())) if len(shown) else (0.0, 1.0)
    return (LogNorm if low > 0 and high > _DECADE * low else Normalize)(low, high)
