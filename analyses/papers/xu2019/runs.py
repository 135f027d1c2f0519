"""The runs of the reproduction: which task, which norm, which seed, and how each ended."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pandas as pd

from analyses.papers.xu2019.metrics import METRICS
from gradlens.recording import Recording

#: Norms of the paper in the order of its table, by their names in ``gradlens.lab.norms.NORMS``, and what it calls them.
NORMS = {
    "none": "w/o Norm",
    "detachnorm": "DetachNorm",
    "detachnorm-mean": "Detach mean only",
    "detachnorm-variance": "Detach variance only",
    "layernorm": "LayerNorm",
    "layernorm-simple": "LayerNorm-simple",
    "adanorm": "AdaNorm",
}
#: How a run ended that the trainer stopped as diverged.
BROKE_OFF = "diverged"


class Run(NamedTuple):
    """One recording of the grid; ``ending`` is empty where it came to its end, else ``BROKE_OFF`` or another status."""

    recording: Recording
    task: str
    norm: str
    seed: int
    ending: str
    diverged_at: float

    @property
    def unit(self) -> str:
        """Unit of the task's loss."""
        return str((self.recording.meta.get("task") or {}).get("unit") or "loss")


def grid(recordings: Sequence[Recording]) -> list[Run]:
    """Return the runs of the paper's norms, by task, norm and seed; recordings of anything else are left out.

    Args:
        recordings: of any kind.
    """
    found = [run for recording in recordings if (run := _run(recording)) is not None]
    tasks, norms = in_order([run.task for run in found], METRICS), list(NORMS)
    return sorted(found, key=lambda run: (tasks.index(run.task), norms.index(run.norm), run.seed))


def in_order(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return the names, each once: the known ones first and in their order."""
    there = list(dict.fromkeys(names))
    first = [name for name in known if name in there]
    return first + [name for name in there if name not in first]


def _run(recording: Recording) -> Run | None:
    """Return the run, or None where the recording does not say what a run of the grid says."""
    meta = recording.meta
    task, model, training = (meta.get(key) or {} for key in ("task", "model", "training"))
    if not (training.get("steps") and meta.get("seeds") and model.get("norm") in NORMS):
        return None
    status, at = str(meta.get("status")), meta.get("diverged_at")
    ending = "" if status == "complete" else status
    return Run(recording, str(task.get("name") or ""), str(model["norm"]), int(meta["seeds"][0]), ending, _step(at))


def _step(diverged_at: Any) -> float:
    return float("nan") if diverged_at is None or pd.isna(diverged_at) else float(diverged_at)
