"""From the sums of one step to stored columns; the one place where the device is read."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np

from gradlens.lens import first_tokens
from gradlens.lens import parameters as parameter_columns
from gradlens.lens.compiling import Added, pull_traced
from gradlens.lens.moment_buffer import Call, came, finite_peak
from gradlens.lens.observations import Broken, Shown
from gradlens.lens.parameters import ParameterReader
from gradlens.lens.passes import Counted
from gradlens.lens.statistics import COLUMNS, GRAD_OUTPUT
from gradlens.lens.taps import ActivationTap, NormTap, Tap
from gradlens.recording.schema import GRADIENT_SQUARES, NORM_SUMS, names

_AT = {name: index for index, name in enumerate(COLUMNS)}
#: Columns that count the vectors that came, and those that are finite.
_FINITE = ("vectors", "n_input", "n_grad_output", "n_grad_input")
#: Columns of the table ``norms`` that are sums as they are, each with its place.
_NORM_SUMS = tuple((name, _AT[name]) for phase in NORM_SUMS for name in names(phase))


@dataclass(frozen=True)
class _Entry:
    """One row of the step.

    Attributes:
        tap: of the site.
        call: the number of the call.
        order: when the call began.
        returned: when its gradient came; infinite where none did.
        gradients: how many gradients came to one call of it.
    """

    tap: Tap
    call: int
    order: float
    returned: float
    gradients: int


def step_tables(
    step: int,
    taps: list[Tap],
    parameters: ParameterReader | None,
    scale: float,
    counted: Counted,
    added: list[Added],
) -> tuple[dict[str, dict[str, Any]], Shown]:
    """Read every buffer once, clear it, and lay the step out as stored columns.

    Args:
        step: the step's number.
        taps: all taps of the lens.
        parameters: the parameter reader, if parameters are watched.
        scale: the loss scale, divided out of every gradient.
        counted: the passes that count.
        added: what compiled graphs have added in the step.

    Returns:
        Table name to columns, a table without rows being left out; and what they show.
    """
    entries, sums, peaks, tokens = _pull(taps, counted, added)
    tables: dict[str, dict[str, Any]] = {}
    norms = [index for index, entry in enumerate(entries) if isinstance(entry.tap, NormTap)]
    if norms:
        tables["norms"] = _norms(step, [entries[index] for index in norms], sums[norms].T, scale)
    if entries:
        tables["activations"] = _activations(step, entries, sums.T, peaks)
    over_tokens = [index for index in norms if tokens[index, 0] and _is_over_tokens(entries[index].tap)]
    if over_tokens:
        tables["tokens"] = _tokens(step, [entries[index] for index in over_tokens], tokens[over_tokens].T, scale)
    if parameters is not None and parameters.names:
        tables["params"] = _params(step, parameters, scale)
    broken = _first_broken(entries, sums, peaks) or _broken_parameter(tables.get("params"))
    return tables, Shown(broken, any(entry.gradients > 1 for entry in entries))


def _first_broken(entries: list[_Entry], sums: np.ndarray, peaks: np.ndarray) -> Broken | None:
    """Name the first output, in forward order, that was not finite; if all were, the first gradient, in backward order.

    What comes into a norm or a block is what came out of some module before it.
    """
    vectors, n_input, n_output, n_grad = (sums[:, _AT[name]] for name in _FINITE)
    norm = np.array([isinstance(entry.tap, NormTap) for entry in entries], dtype=bool)
    outputs = ~np.isfinite(peaks) | (~norm & (n_input < vectors))
    gradients = norm & ((n_input < vectors) | ((n_grad < n_output) & (n_grad > 0)))
    # What ran in a graph has its place in the order of tracing, which is none beside what did not.
    mixed = len({entry.tap.traced.in_graph for entry in entries}) > 1
    if outputs.any():
        own = itertools.compress(entries, outputs)
        first = min(own, key=lambda entry: entry.tap.site.order if mixed else entry.order)
        return Broken(first.tap.site.path, _tensor(first))
    if gradients.any():
        own = itertools.compress(entries, gradients)
        first = min(own, key=lambda entry: -entry.tap.site.order if mixed else entry.returned)
        return Broken(first.tap.site.path, "gradient")
    return None


def _broken_parameter(params: Mapping[str, Any] | None) -> Broken | None:
    """Name the last parameter whose gradient is not finite: backward comes to it first."""
    broken = [] if params is None else list(itertools.compress(params["name"], params["nonfinite"]))
    return Broken(broken[-1], "parameter") if broken else None


def _pull(
    taps: list[Tap], counted: Counted, added: list[Added]
) -> tuple[list[_Entry], np.ndarray, np.ndarray, np.ndarray]:
    """Copy all sums to the host: the rows, their sums [rows, COLUMNS], max |input| [rows], and sums over tokens."""
    found = [one for buffer in taps[0].state.buffers.values() for one in buffer.pull(counted.counts)] if taps else []
    calls = _numbered({call: None for one in found for call in one.calls}, counted)
    traced = pull_traced([one for one in added if one.number in (-1, *counted.numbers)])
    came_to = (zip(one.calls, one.passes[:, 1].tolist(), strict=True) for one in found)
    gradients = Counter(call for pairs in came_to for call, number in pairs if number in counted.numbers)
    entries: list[_Entry] = []
    #: Call, or tap and number inside a graph, to its row.
    rows: dict[Any, int] = {}
    for tap in taps:
        if not tap.settle() or tap.silent:
            continue
        for number, same in enumerate(calls.get(tap, ())):
            rows |= dict.fromkeys(same, len(entries))
            returned = [call.returned for call in same if call.returned is not None]
            most = max(gradients[call] for call in same)
            entries.append(_Entry(tap, number, min(call.order for call in same), min(returned, default=inf), most))
        # A call may have run in a compiled graph and outside of one: two rows of one key, which merge exactly.
        for number in np.flatnonzero(traced[tap.traced][0][:, _AT["vectors"]]).tolist() if tap.traced in traced else ():
            rows[tap, number] = len(entries)
            entries.append(_Entry(tap, number, tap.traced.order, -tap.traced.order, 1))
    sums, peaks = np.zeros((len(entries), len(COLUMNS))), np.zeros(len(entries))
    tokens = np.zeros((len(entries), len(first_tokens.SUMS)))
    for one in found:
        row = np.array([rows.get(call, -1) for call in one.calls])
        low, high = one.extremes.T
        # A row may stand there twice: two micro-batches whose graphs were both gone through.
        np.add.at(sums, row[row >= 0], np.where(came(one.passes, counted.numbers), one.sums, 0.0)[row >= 0])
        np.maximum.at(peaks, row[row >= 0], finite_peak(np.maximum(high, -low))[row >= 0])
        if one.tokens is not None:
            there = (row >= 0) & np.isin(one.passes[:, GRAD_OUTPUT], counted.numbers)
            np.add.at(tokens, row[there], one.tokens[there])
    for tap in taps:
        for number, its_sums in enumerate(traced[tap.traced][0]) if tap.traced in traced else ():
            if (tap, number) in rows:
                sums[rows[tap, number]], peaks[rows[tap, number]] = its_sums, traced[tap.traced][1][number]
    return entries, sums, peaks, tokens


def _numbered(calls: Iterable[Call], counted: Counted) -> dict[Tap, list[list[Call]]]:
    """Number the calls of each tap that count: those of a further micro-batch go with the same calls of the one before.

    Returns:
        Tap to its calls, by number.
    """
    numbers: Counter[tuple[Tap, int]] = Counter()
    found: dict[Tap, list[list[Call]]] = defaultdict(list)
    for call in sorted(calls, key=lambda call: call.order):
        if counted.counts(call.forward):
            key = call.tap, counted.before(call.forward)
            number, numbers[key] = numbers[key], numbers[key] + 1
            if number == len(found[call.tap]):
                found[call.tap].append([])
            found[call.tap][number].append(call)
    return found


def _keys(step: int, entries: list[_Entry], sums: np.ndarray) -> dict[str, Any]:
    count, vectors = len(entries), sums[_AT["vectors"]]
    return {
        "step": np.full(count, step),
        "site": tuple(entry.tap.site.path for entry in entries),
        "call": np.array([entry.call for entry in entries]),
        "rank": np.full(count, entries[0].tap.state.world.rank),
        "width": (sums[_AT["entries"]] / vectors).round().astype(np.int64),
        "vectors": vectors.astype(np.int64),
    }


def _norms(step: int, entries: list[_Entry], sums: np.ndarray, scale: float) -> dict[str, Any]:
    columns = _keys(step, entries, sums) | {name: sums[at] for name, at in _NORM_SUMS}
    if scale != 1.0:
        columns |= {name: columns[name] / scale**2 for name in GRADIENT_SQUARES}
    return columns


def _is_over_tokens(tap: Tap) -> bool:
    return isinstance(tap, NormTap) and tap.kind.layout in first_tokens.LAYOUTS


def _tokens(step: int, entries: list[_Entry], sums: np.ndarray, scale: float) -> dict[str, Any]:
    columns = {
        "step": np.full(len(entries), step),
        "site": tuple(entry.tap.site.path for entry in entries),
        "call": np.array([entry.call for entry in entries]),
        "rank": np.full(len(entries), entries[0].tap.state.world.rank),
        **dict(zip(first_tokens.SUMS, sums, strict=True)),
    }
    columns |= {name: columns[name].astype(np.int64) for name in ("first_vectors", "rest_vectors")}
    return columns | {name: columns[name] / scale**2 for name in ("first_energy", "rest_energy")}


def _activations(step: int, entries: list[_Entry], sums: np.ndarray, peaks: np.ndarray) -> dict[str, Any]:
    columns = _keys(step, entries, sums)
    columns["tensor"] = tuple(map(_tensor, entries))
    columns["n"] = sums[_AT["n_input"]]
    columns["total"] = sums[_AT["total"]]
    columns["squares"] = sums[_AT["squares"]]
    columns["absmax"] = peaks
    return columns


def _tensor(entry: _Entry) -> str:
    """Return which tensor of its site a row is of."""
    return entry.tap.tensor if isinstance(entry.tap, ActivationTap) else "input"


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
    columns["grad_weight"] /= scale
    return columns
