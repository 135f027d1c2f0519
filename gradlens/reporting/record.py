"""The last pages: how it was measured, what was recorded and what was missed, settings and versions."""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from gradlens.recording import Recording
from gradlens.reporting.numbers import ABSENT, number

#: Groups of metadata that are settings, in reading order.
_GROUPS = ("model", "task", "training", "recording", "git", "versions")
#: Metadata that is one value each, shown as the group ``recording``.
_SINGLE = ("seeds", "loss", "every", "watch", "device", "cpu", "threads", "argv")
#: Longer lists are cut in the PDF; ``findings.json`` holds them whole.
_LONGEST = 240
#: From more recordings than these on, those of a kind share a row; more names than these are shortened.
_MOST_ROWS, _MOST_NAMED = 20, 4
#: Numbers of which each is printed with whose it is; of more their range.
_MOST_VALUES = 8

#: Table to the columns that are read of it.
READS = {"norms": ("site", "kept", "mean_share", "nonfinite"), "params": ("name", "grad_norm", "nonfinite")}


def methods(recordings: Sequence[Recording]) -> list[str]:
    """Say in prose how the numbers came about, as far as it applies to these recordings."""
    kinds = {str(r.meta.get("kind")) for r in recordings}
    said = [
        "Hooks read each normalization layer during the ordinary backward pass: the gradient that arrives at "
        "its output and the gradient that leaves at its input, through this layer only. The gradient g is "
        "split into three orthogonal parts: what the derivative of the mean removes (recentering), what the "
        "derivative of the standard deviation removes (rescaling), and the rest (kept). Sums are taken over "
        "all vectors of a batch and merged exactly; shares are formed once, from the merged sums.",
    ]
    if "init" in kinds:
        said.append(
            "At initialization every model is built once per seed and sent one batch forward and backward; "
            "no weight is changed. Norms are averaged over seeds as logarithms; intervals are Student's t."
        )
    if kinds - {"init"}:
        said.append(
            "In training the gradient of each parameter is read at the end of the backward pass, before it "
            "is clipped and before the optimizer changes a weight."
        )
    return said


def recorded(recordings: Iterable[Recording]) -> list[dict[str, Any]]:
    """Count, for each recording, what was found, what answered, and what was missed.

    Returns:
        One dict a recording: label, kind, status, steps, norms found, norms whose gradient was seen, blocks,
        parameters with a gradient, non-finite values, problems (sentences of the lens' own audit).
    """
    return [_recorded(recording) for recording in recordings]


def grouped(recordings: Iterable[Recording], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Bring what was recorded into a table that is read: of very many recordings a row a task, network and variant.

    Args:
        recordings: as those of ``recorded``.
        rows: what it returned.

    Returns:
        The rows as texts, with ``recordings``, how many they are of; a number that differs as lowest and highest.
    """
    named = [_kind_of(recording) for recording in recordings]
    apart = [len(set(part)) > 1 for part in zip(*named, strict=True)]
    groups: dict[object, list[Mapping[str, Any]]] = {}
    for names, row in zip(named, rows, strict=True):
        told = [name for name, differs in zip(names, apart, strict=True) if name and differs] or [names[-1]]
        label = ", ".join(told) if names[-1] and len(rows) > _MOST_ROWS else row["label"]
        groups.setdefault((label, row["kind"]), []).append({**row, "label": label})
    return [
        {name: _span([row[name] for row in members]) for name in members[0] if name != "problems"}
        | {"recordings": str(len(members))}
        for members in groups.values()
    ]


def _kind_of(recording: Recording) -> tuple[str, str, str]:
    """Return a recording's task, the kind of its network, and its variant; empty what is not known."""
    model = recording.meta.get("model") or {}
    return _shared("task", recording), str(model.get("kind") or ""), str(recording.meta.get("variant") or "")


def _span(values: Sequence[Any]) -> str:
    """Print a value that all share, else the lowest and the highest, or each that there is."""
    if any(isinstance(value, str) for value in values):
        return ", ".join(dict.fromkeys(map(str, values)))
    return " to ".join(dict.fromkeys(number(value) for value in (min(values), max(values))))


def _recorded(recording: Recording) -> dict[str, Any]:
    sites, norms, params = recording.sites, recording.norms, recording.params
    audit = recording.meta.get("audit") or {}
    return {
        "label": recording.label,
        "kind": str(recording.meta.get("kind") or "unknown"),
        "status": str(recording.meta.get("status") or "complete"),
        "steps": len(recording.steps),
        "norms": int((sites["kind"] == "norm").sum()),
        "norms_seen": int(norms.loc[norms["kept"].notna() | norms["mean_share"].notna(), "site"].nunique()),
        "blocks": int((sites["kind"] == "block").sum()),
        "parameters": int(params.loc[params["grad_norm"].notna(), "name"].nunique()),
        "nonfinite": int(norms["nonfinite"].sum() + params["nonfinite"].sum()),
        "gradient": str(audit.get("gradient") or ""),
        "problems": [str(p) for p in (*(recording.meta.get("damage") or ()), *(audit.get("problems") or ()))],
    }


def settings(recordings: Sequence[Recording]) -> list[dict[str, Any]]:
    """List every setting once, with its value where all recordings agree, else with whose value is which.

    Returns:
        One dict a setting: ``group``, ``name``, ``values`` as a list of ``{"value", "labels"}``; ``labels``
        is empty if all recordings that know the setting have that value.
    """
    rows = []
    for group in _GROUPS:
        records = {r.label: _settings_of(group, r) for r in recordings}
        for name in dict.fromkeys(name for record in records.values() for name in record):
            known = {label: record[name] for label, record in records.items() if name in record}
            rows.append({"group": group, "name": name, "values": _values(name, known, recordings)})
    return rows


def _values(name: str, known: Mapping[str, Any], recordings: Sequence[Recording]) -> list[dict[str, Any]]:
    """Return each value with those whose it is; of many numbers their range."""
    owners: dict[str, list[str]] = {}
    for label, value in known.items():
        owners.setdefault(_setting(value, name), []).append(label)
    if len(owners) > _MOST_VALUES and all(type(value) in (int, float) for value in known.values()):
        low, high = (_setting(end(known.values()), name) for end in (min, max))
        return [{"value": f"{low} to {high}, {len(owners)} values", "labels": []}]
    alone = len(owners) == 1
    return [{"value": v, "labels": [] if alone else whose(labels, recordings)} for v, labels in owners.items()]


def whose(labels: Sequence[str], recordings: Sequence[Recording]) -> list[str]:
    """Name recordings by what they share, where that is shorter than naming each.

    Args:
        labels: of the recordings that are meant.
        recordings: all there are.

    Returns:
        The labels where they are few, else the tasks, norms, arrangements, seeds or pairs of them whose recordings they
        all are, else the first labels and how many more there are.
    """
    if len(labels) <= _MOST_NAMED:
        return list(labels)
    meant = set(labels)
    for keys in (("task",), ("norm",), ("arrangement",), ("seed",), ("task", "norm"), ("task", "seed")):
        groups: dict[str, set[str]] = {}
        for recording in recordings:
            name = ", ".join(_shared(key, recording) for key in keys)
            groups.setdefault(name, set()).add(recording.label)
        named = [name for name, members in groups.items() if name and members <= meant]
        if len(named) <= 2 * _MOST_NAMED and set().union(*(groups[name] for name in named)) == meant:
            return [f"{name} ({len(groups[name])})" for name in named]
    return [*labels[: _MOST_NAMED - 1], f"{len(labels) - _MOST_NAMED + 1} more"]


def _shared(key: str, recording: Recording) -> str:
    meta = recording.meta
    if key == "task":
        return str((meta.get("task") or {}).get("name") or "")
    if key == "arrangement":
        return str((meta.get("model") or {}).get("arrangement") or "")
    if key == "norm":
        return str((meta.get("model") or {}).get("norm") or meta.get("variant") or "")
    return "seed " + ", ".join(map(str, meta.get("seeds") or ()))


def software() -> dict[str, str]:
    """Return the versions of what made the report."""
    return {name: version(name) for name in ("gradlens", "matplotlib", "typst")}


def _settings_of(group: str, recording: Recording) -> Mapping[str, Any]:
    """Return a group of settings as names and values."""
    if group == "recording":
        return {name: recording.meta[name] for name in _SINGLE if recording.meta.get(name) not in (None, [])}
    value = recording.meta.get(group)
    return value if isinstance(value, Mapping) else {}


def _setting(value: Any, name: str = "") -> str:
    """Print a setting as it would be typed: 0.001, not 0.00100."""
    if name == "argv":
        return shlex.join(map(str, value))
    if value is None or isinstance(value, bool):
        return {None: ABSENT, True: "yes", False: "no"}[value]
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, int):
        return number(value)
    if isinstance(value, Mapping):
        text = json.dumps(value, ensure_ascii=False)
    elif isinstance(value, Iterable) and not isinstance(value, str):
        text = ", ".join(_setting(item) for item in value)
    else:
        text = str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
