"""From the buffers of one step to stored columns; the one place where the device is read."""

from typing import Any

import numpy as np

from gradlens.lens import parameters as parameter_columns
from gradlens.lens.parameters import ParameterReader
from gradlens.lens.rows import COLUMNS, Row
from gradlens.lens.taps import ActivationTap, Tap
from gradlens.recording.schema import STORED

#: Columns that hold a gradient squared: what a loss scale s multiplies by s².
_SQUARED = tuple(c.name for c in STORED["norms"] if c.name.startswith(("energy", "mean2", "var_")))
_NORM_SUMS = tuple(c.name for c in STORED["norms"] if c.name in COLUMNS)
_INDEX = {name: COLUMNS.index(name) for name in COLUMNS}


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
    buffers = {row.buffer for tap in taps for row in tap.rows}
    values = {id(buffer): buffer.pull() for buffer in buffers}
    norms: list[tuple[Tap, int, Row]] = []
    activations: list[tuple[Tap, int, Row, str]] = []
    for tap in taps:
        for call, row in enumerate(tap.rows):
            if row.used:
                if isinstance(tap, ActivationTap):
                    activations.append((tap, call, row, tap.tensor))
                else:
                    norms.append((tap, call, row))
                    activations.append((tap, call, row, "input"))
    tables: dict[str, dict[str, Any]] = {}
    if norms:
        tables["norms"] = _norms(step, norms, _lines(values, [r for _, _, r in norms]), scale)
    if activations:
        tables["activations"] = _activations(
            step, activations, _lines(values, [r for _, _, r, _ in activations])
        )
    if parameters is not None and parameters.names:
        tables["params"] = _params(step, parameters, scale)
    for buffer in buffers:
        buffer.clear_counts()
    return tables


def _lines(values: dict[int, np.ndarray], rows: list[Row]) -> np.ndarray:
    """Gather the rows' lines, [rows, COLUMNS]."""
    return np.stack([values[id(row.buffer)][row.index] for row in rows])


def _keys(step: int, taps: list[Tap], calls: list[int]) -> dict[str, Any]:
    count = len(taps)
    return {
        "step": np.full(count, step),
        "site": [tap.site.path for tap in taps],
        "call": np.array(calls),
        "rank": np.full(count, taps[0].switch.rank),
    }


def _norms(step: int, rows: list[tuple[Tap, int, Row]], lines: np.ndarray, scale: float) -> dict[str, Any]:
    columns = _keys(step, [t for t, _, _ in rows], [c for _, c, _ in rows])
    columns["width"] = np.array([row.width for _, _, row in rows])
    columns["vectors"] = np.array([row.vectors for _, _, row in rows])
    columns |= {name: np.ascontiguousarray(lines[:, _INDEX[name]]) for name in _NORM_SUMS}
    columns["var_detached"] = lines[:, _INDEX["energy_detached"]] / columns["width"] - columns["mean2_detached"]
    columns["var_actual"] = columns["energy_grad_input"] / columns["width"] - columns["mean2_actual"]
    recenters = np.array([row.recenters for _, _, row in rows])
    columns["energy_recentering"] = np.where(recenters, columns["energy_mean"], 0.0)
    if scale != 1.0:
        columns |= {name: columns[name] / scale**2 for name in _SQUARED}
    return columns


def _activations(step: int, rows: list[tuple[Tap, int, Row, str]], lines: np.ndarray) -> dict[str, Any]:
    columns = _keys(step, [t for t, _, _, _ in rows], [c for _, c, _, _ in rows])
    columns["tensor"] = [tensor for _, _, _, tensor in rows]
    columns["width"] = np.array([row.width for _, _, row, _ in rows])
    columns["vectors"] = np.array([row.vectors for _, _, row, _ in rows])
    columns["n"] = np.ascontiguousarray(lines[:, _INDEX["n_input"]])
    for name in ("total", "squares", "absmax"):
        columns[name] = np.ascontiguousarray(lines[:, _INDEX[name]])
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
