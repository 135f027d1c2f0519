"""Two implementations of one model, on the same weights and the same batch: the first place at which they differ."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from analyses.limits import limit
from analyses.tables import identity
from gradlens.recording import Recording

#: The probe whose rows hold the differences, in the order of the pass.
PROBE = "same_weights"
_SHOWN = 10


def rows(recordings: Sequence[Recording]) -> Iterator[dict[str, Any]]:
    """Yield what two implementations show: those of ``gradlens compare A B --same-weights``.

    Args:
        recordings: the second of a pair holds the differences.
    """
    for run in recordings:
        told = run.meta.get("same_weights")
        if told and "first" in told:
            for row in _rows(run, told):
                yield {"panel": "summary", **identity(run), **row}


def _rows(run: Recording, told: dict[str, Any]) -> Iterator[dict[str, Any]]:
    probes = run.probes
    found = probes[probes["probe"] == PROBE].reset_index(drop=True)
    precision = "own" if found["unit"].str.endswith("own").any() else "float64"
    tolerance, common = limit("GL323", precision), told["mapped"] / max(1, told["weights"])
    yield {"quantity": "implementations", "stack": str(told["first"]), "unit": precision, "value": common,
           "low": tolerance, "n": len(found)}  # fmt: skip
    for change in ("removed", "added"):
        for name in told[change]:
            yield {"quantity": f"weights {change}", "group": str(name)}
    for one, other in told["renamed"].items():
        yield {"quantity": "weights renamed", "group": str(one), "stack": str(other)}
    if found.empty or common < limit("GL323", "common"):
        return
    yield {"quantity": "largest difference", "value": found["value"].max()}
    room = np.where(found["name"].str.startswith("output"), 1.0, limit("GL323", "gradients"))
    beyond = found[found["value"] > tolerance * room]
    for index, row in beyond.head(_SHOWN).iterrows():
        yield {"quantity": "differs", "group": row["site"], "stack": row["name"], "value": row["value"], "x": index,
               "n": len(beyond)}  # fmt: skip
    if len(beyond) and beyond.index[0] > 0:
        last = found.loc[beyond.index[0] - 1]
        yield {"quantity": "agreed before", "group": last["site"], "stack": last["name"], "value": last["value"]}
