"""What is said of a recording, against what is wrong with it."""

import math
import re
import warnings
from pathlib import Path
from typing import Any

import pandas as pd

import gradlens
from gradlens.analysis import Finding
from tests.calibration.classic import classic
from tests.calibration.faults import Case
from tests.calibration.recordings import HEALTHY_IS, every_case

#: Codes that tell that a run is not well, and not why.
GENERIC = frozenset({"GL301", "GL303", "GL304", "GL305", "GL306"})
#: How many causes a reader looks at, and sites of one.
LOOKED_AT = 3
#: Recorded steps by which an onset may be off.
ROOM = 3


def judge(name: str, folder: Path) -> dict[str, Any]:
    """Judge the recording ``folder/name``.

    Returns:
        ``name``, ``causes`` (code, status, step, places, symptoms and claim of each), ``classic``, ``loss`` (of the
        first and the last steps, None where not finite); of a fault also ``kind``, ``network``, ``variant``, ``half``,
        ``outcome`` (first, first three, generic, other, silent), ``place`` and ``step`` (whether they are right; None
        where the fault has none).
    """
    recording = gradlens.load(folder / name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        causes = gradlens.compare([recording]).causes
        crossed = classic(recording)
    loss = recording.steps["loss"]
    line: dict[str, Any] = {
        "name": name,
        "causes": [_told(cause.finding) | {"symptoms": [s.code for s in cause.symptoms]} for cause in causes],
        "classic": crossed,
        "loss": [_finite(loss.iloc[:3]), _finite(loss.iloc[-10:])],
    }
    if not name.startswith(HEALTHY_IS):
        line |= against(every_case()[name], [cause.finding for cause in causes])
    return line


def _finite(loss: pd.Series) -> float | None:
    """Return the mean of some steps, or None where it is no finite number."""
    mean = float(loss.mean(skipna=False))
    return mean if math.isfinite(mean) else None


def _told(finding: Finding) -> dict[str, Any]:
    return {
        "code": finding.code,
        "status": finding.status,
        "step": onset(finding),
        "places": list(finding.sites[:LOOKED_AT]),
        "claim": finding.claim,
    }


def against(case: Case, found: list[Finding]) -> dict[str, Any]:
    seen = found[:LOOKED_AT]
    right = next((index for index, finding in enumerate(seen) if finding.code in case.kind.codes), None)
    if right is not None:
        outcome = "first" if right == 0 else "first three"
    elif not found:
        outcome = "silent"
    else:
        outcome = "generic" if all(finding.code in GENERIC for finding in found) else "other"
    named = found[right or 0] if found else None
    places, step = case.planted().places, case.step
    began = None if named is None else onset(named)
    return {
        "kind": case.kind.name,
        "network": case.network,
        "variant": f"{case.severity}, {case.when}",
        "half": case.half,
        "outcome": outcome,
        "place": named is not None and any(names(named, place) for place in places) if places else None,
        "step": None if step is None else began is not None and abs(began - step) <= ROOM,
    }


def onset(finding: Finding) -> int | None:
    """Return the step from which on a finding says that it is so."""
    return finding.onset if finding.onset is not None else min(finding.steps, default=None)


def names(finding: Finding, place: str) -> bool:
    """Whether a finding names a place: it, something in it, or the block that it lies in."""
    told = finding.sites[:LOOKED_AT]
    inside = any(site == place or site.startswith(f"{place}.") for site in told)
    around = any(place.startswith(f"{site}.") and re.search(r"\.\d+$", site) for site in told)
    return inside or around or bool(re.search(rf"(?<![\w.]){re.escape(place)}(?![\w])", finding.claim))
