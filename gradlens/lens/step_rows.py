"""From the sums of one step to stored columns; the one place where the device is read."""

from typing import Any

import numpy as np

from gradlens.lens import parameters as parameter_columns
from gradlens.lens.compiling import pull_traced
from gradlens.lens.norm_tap import NormTap
from gradlens.lens.parameters import ParameterReader
from gradlens.lens.statistics import COLUMNS
from gradlens.lens.tap import Tap
from gradlens.lens.taps import ActivationTap
from gradlens.recording.schema import GRADIENT_SQUARES, STORED

_AT = {name: index for index, name in enumerate(COLUMNS)}
#: Columns of the tables that are sums as they are.
_NORM_SUMS = tuple(column.name for column in STORED["norms"] if column.name in _AT)

#: One row of the step: its tap and the number of the call.
_Entry = tuple[Tap, int]


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
    entries, lines, peaks = _pull(taps)
    tables: dict[str, dict[str, Any]] = {}
    norms = [index for index, (tap, _) in enumerate(entries) if isinstance(tap, NormTap)]
    if norms:
        tables["norms"] = _norms(step, [entries[index] for index in norms], lines[norms].T, scale)
    if entries:
        tables["activations"] = _activations(step, entries, lines.T, peaks)
    if parameters is not None and parameters.names:
        tables["params"] = _params(step, parameters, scale)
    return tables


def _pull(taps: list[Tap]) -> tuple[list[_Entry], np.ndarray, np.ndarray]:
    """Copy all sums to the host: the rows, their sums [rows, COLUMNS], and max |input| [rows]."""
    entries, lines, peaks = [], [], []
    sound = {tap for tap in taps if tap.settle()}
    pulled = {buffer: buffer.pull() for buffer in {row.buffer for tap in taps for row in tap.rows}}
    ran = [tap for tap in taps if tap.traced.in_graph]
    traced = dict(zip(ran, zip(*pull_traced([tap.traced for tap in ran]), strict=True), strict=True)) if ran else {}
    for tap in taps:
        for call, row in enumerate(tap.rows):
            if row.used and tap in sound:
                entries.append((tap, call))
                lines.append(pulled[row.buffer][0][row.index])
                peaks.append(pulled[row.buffer][1][row.index])
        if tap in traced:
            its_lines, its_peaks = traced[tap]
            # A call may have run in a compiled graph and outside of one: two rows of one key, which merge exactly.
            for call in np.flatnonzero(its_lines[:, _AT["vectors"]]).tolist():
                entries.append((tap, call))
                lines.append(its_lines[call])
                peaks.append(its_peaks[call])
    for buffer in pulled:
        buffer.forget()
    return entries, np.array(lines).reshape(-1, len(COLUMNS)), np.array(peaks)


def _keys(step: int, entries: list[_Entry], lines: np.ndarray) -> dict[str, Any]:
    count, vectors = len(entries), lines[_AT["vectors"]]
    return {
        "step": np.full(count, step),
        "site": tuple(tap.site.path for tap, _ in entries),
        "call": np.array([call for _, call in entries]),
        "rank": np.full(count, entries[0][0].switch.world.rank),
        "width": (lines[_AT["entries"]] / vectors).round().astype(np.int64),
        "vectors": vectors.astype(np.int64),
    }


def _norms(step: int, entries: list[_Entry], lines: np.ndarray, scale: float) -> dict[str, Any]:
    columns = _keys(step, entries, lines) | {name: lines[_AT[name]] for name in _NORM_SUMS if name != "vectors"}
    if scale != 1.0:
        columns |= {name: columns[name] / scale**2 for name in GRADIENT_SQUARES}
    return columns


def _activations(step: int, entries: list[_Entry], lines: np.ndarray, peaks: np.ndarray) -> dict[str, Any]:
    columns = _keys(step, entries, lines)
    columns["tensor"] = tuple(tap.tensor if isinstance(tap, ActivationTap) else "input" for tap, _ in entries)
    columns["n"] = lines[_AT["n_input"]]
    columns["total"] = lines[_AT["total"]]
    columns["squares"] = lines[_AT["squares"]]
    columns["absmax"] = peaks
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
