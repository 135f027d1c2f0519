"""The settings in which two runs differ, and which places of the one are which of the other."""

from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import pandas as pd

from gradlens.recording import Recording
from gradlens.recording.alignment import Alignment, aligned, parameters

#: What a manifest says of a run that is told otherwise, or is no setting.
_TOLD = frozenset(
    {
        "kind", "label", "variant", "status", "run", "schema_version", "tables", "created_at", "processes", "audit",
        "argv", "frozen", "samples", "damage", "tokens", "diverged_at", "margin", "same_weights",
    }
)  # fmt: skip
_SETTING = ("autocast", "compiled", "checkpointed", "loss_scale")
_LONGEST = 40


def alignments(before: Recording, after: Recording) -> tuple[Alignment, Alignment]:
    """Return which parameters, and which sites, of one run are which of the other."""
    kinds: list[dict[str, Hashable]] = []
    for run in (before, after):
        sites = run.sites.sort_values("order")
        facts = zip(sites["kind"], sites["norm"].fillna(""), sites["width"].fillna(-1), strict=True)
        kinds.append(dict(zip(sites["site"].astype(str), facts, strict=True)))
    return parameters(before, after), aligned(*kinds)


def settings(before: Recording, after: Recording) -> Iterator[tuple[str, str, str]]:
    """Yield name and both values of each setting that differs."""
    one, other = (dict(_flat(_facts(run))) for run in (before, after))
    for name in dict.fromkeys([*one, *other]):
        if one.get(name) != other.get(name):
            yield name, _short(one.get(name)), _short(other.get(name))


def _facts(run: Recording) -> dict[str, Any]:
    """Return what a run says of how it was made."""
    facts = {name: value for name, value in run.meta.items() if name not in _TOLD}
    setting = (run.meta.get("audit") or {}).get("setting") or {}
    facts |= {name: setting.get(name) for name in _SETTING}
    facts["input_dtypes"] = list(setting.get("input_dtypes") or ())
    steps = run.steps.sort_values("step")
    rates: pd.Series[float] = steps["lr"].dropna() if "lr" in steps else pd.Series(dtype=float)
    return {
        **facts,
        "frozen parameters": len(run.meta.get("frozen") or ()),
        "first learning rate": f"{rates.iloc[0]:g}" if len(rates) else None,
        "last recorded step": int(steps["step"].max()),
    }


def _flat(facts: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        elif value not in (None, "", [], ()):
            yield f"{before}{name}", value


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else "–" if value is None else str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
