"""From the buffers of one step to stored columns; the one place where the device is read."""

from typing import Any

import numpy as np

from gradlens.lens import parameters as parameter_columns
from gradlens.lens.parameters import ParameterReader
from gradlens.lens.rows import COLUMNS, Row
from gradlens.lens.taps import ActivationTap, Tap

_AT = {name: index for index, name in enumerate(COLUMNS)}
#: Stored columns that are sums of a line as they are, or times H.
_PLAIN = {
    "n_input": "one",
    "inv_sigma": "inv_sigma",
    "n_grad_output": "grad_output_came",
    "energy_grad_output": "grad_output_norm²",
    "energy_g": "g_norm²",
    "mean2_detached": "g_mean_detached²",
    "n_grad_input": "grad_input_came",
    "energy_grad_input": "grad_input_norm²",
    "energy_kept": "kept_norm²",
    "mean2_actual": "grad_input_mean²",
}
#: Stored columns that hold a gradient squared: what a loss scale s multiplies by s².
_SQUARED = (
    *(name for name in _PLAIN if name.startswith(("energy", "mean2"))),
    "energy_mean",
    "energy_recentering",
    "var_detached",
    "var_actual",
)

#: One row of the step: its tap, the number of the call, the row, and which tensor was measured forward.
_Entry = tuple[Tap, int, Row, str]


def step_tables(
    step: int, taps: list[Tap], parameters: ParameterReader | None, scale: float
) -> dict[str, dict[str, Any]]:
    """Read every buffer once, clear it, and lay the step out as stored columns.

    Args:
        step: the step's number.
        taps: all taps of the lens.
        parameters: the parameter reader, if parameters are watched.
        scale: the loss scale, divided out of every gradient.

    Returns:
        Table name to columns; a table without rows is left out.
    """
    entries: list[_Entry] = [
        (tap, call, row, tap.tensor if isinstance(tap, ActivationTap) else "input")
        for tap in taps
        for call, row in enumerate(tap.rows)
        if row.used
    ]
    values = {buffer: buffer.pull() for buffer in {row.buffer for tap in taps for row in tap.rows}}
    tables: dict[str, dict[str, Any]] = {}
    norms = [entry for entry in entries if not isinstance(entry[0], ActivationTap)]
    if norms:
        tables["norms"] = _norms(step, norms, _lines(values, norms), scale)
    if entries:
        tables["activations"] = _activations(step, entries, _lines(values, entries))
    if parameters is not None and parameters.names:
        tables["params"] = _params(step, parameters, scale)
    for buffer in values:
        buffer.clear_counts()
    return tables


def _lines(values: dict[Any, np.ndarray], entries: list[_Entry]) -> np.ndarray:
    """Gather the rows' lines, [COLUMNS, rows]."""
    return np.stack([values[row.buffer][row.index] for _, _, row, _ in entries], axis=1)


def _keys(step: int, entries: list[_Entry]) -> dict[str, Any]:
    count = len(entries)
    return {
        "step": np.full(count, step),
        "site": tuple(tap.site.path for tap, _, _, _ in entries),
        "call": np.array([call for _, call, _, _ in entries]),
        "rank": np.full(count, entries[0][0].switch.rank),
        "width": np.array([row.width for _, _, row, _ in entries]),
        "vectors": np.array([row.vectors for _, _, row, _ in entries]),
    }


def _norms(step: int, entries: list[_Entry], lines: np.ndarray, scale: float) -> dict[str, Any]:
    columns = _keys(step, entries)
    width = columns["width"]
    columns |= {name: lines[_AT[source]] for name, source in _PLAIN.items()}
    columns["energy_mean"] = lines[_AT["g_mean²"]] * width
    recenters = np.array([row.recenters for _, _, row, _ in entries])
    columns["energy_recentering"] = np.where(recenters, columns["energy_mean"], 0.0)
    columns["var_detached"] = lines[_AT["g_norm_detached²"]] / width - columns["mean2_detached"]
    columns["var_actual"] = columns["energy_grad_input"] / width - columns["mean2_actual"]
    if scale != 1.0:
        columns |= {name: columns[name] / scale**2 for name in _SQUARED}
    return columns


def _activations(step: int, entries: list[_Entry], lines: np.ndarray) -> dict[str, Any]:
    columns = _keys(step, entries)
    rows = [row for _, _, row, _ in entries]
    width, n = columns["width"], lines[_AT["one"]]
    # Σx² = Σ‖x − mean‖² + H·mean² where the mean was taken out; the former is H(σ² − eps) where only σ is known.
    eps, from_sigma = np.array([row.eps for row in rows]), np.array([row.from_sigma for row in rows])
    centered = np.array([row.centered for row in rows])
    squares = np.where(from_sigma, width * np.maximum(lines[_AT["sigma²"]] - n * eps, 0.0), lines[_AT["norm²"]])
    columns["tensor"] = tuple(tensor for _, _, _, tensor in entries)
    columns["n"] = n
    columns["total"] = lines[_AT["mean"]] * width
    columns["squares"] = squares + np.where(centered, width * lines[_AT["mean²"]], 0.0)
    columns["absmax"] = lines[_AT["absmax"]]
    return columns


def _params(step: int, reader: ParameterReader, scale: float) -> dict[str, Any]:
    values = reader.pull()
    columns: dict[str, Any] = {
        "step": np.full(len(reader.names), step),
        "name": reader.names,
        "numel": reader.numel,
    }
    for index, name in enumerate(parameter_columns.COLUMNS):
        columns[name] = np.ascontiguousarray(values[:, index])
    columns["nonfinite"] = columns["nonfinite"].astype(np.int64)
    columns["grad_squares"] /= scale**2
    columns["grad_absmax"] /= scale
    return columns
