"""The training runs of the study: with and without warm-up, and at learning rates around their limit."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analyses.limits import limit
from analyses.papers.measured import arrangement
from analyses.papers.xiong2020.paper import PAPER
from analyses.steps import end_of_training, last_value
from gradlens.recording import Recording

#: Warm-ups by their length: none, some of it, all of it, as long as the learning rate takes to begin to fall.
WARM_UPS = ("none", "short", "full")
#: Optimizers, and how they are printed; in the order of the figures.
OPTIMIZERS = {"adam": "Adam", "sgd": "SGD", "momentum": "SGD with momentum"}
COLUMNS = (
    "recording", "task", "variant", "optimizer", "lr", "warm_up", "warm_up_steps", "seed", "steps", "status", "ended",
    "diverged", "diverged_at", "loss", "valid_loss", "bleu", "learned", "unit",
)  # fmt: skip


def warm_up_runs(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Return the runs with and without warm-up, a row each.

    Args:
        recordings: of any kind; training runs of the paper's arrangements count, but those at a predicted limit.

    Returns:
        ``recording``; ``task``; ``variant``; ``optimizer``; ``lr``, the highest; ``warm_up``, one of ``WARM_UPS``;
        ``warm_up_steps``; ``seed``; ``steps`` as planned; ``status``; ``ended``: whether it came to an end, a
        divergence among them; ``diverged`` and ``diverged_at``; ``loss`` of training, mean over the last tenth of the
        recorded steps; ``valid_loss`` and ``bleu`` at the end. A run that diverged has neither of the three.
        ``learned``: whether it came to know more of its task than a trivial model; missing where nothing tells.
    """
    found = [r for r in recordings if _is_training(r) and "limit" not in r.meta and arrangement(r) in PAPER]
    return pd.DataFrame([_warm_up_run(recording) for recording in found], columns=list(COLUMNS))


def optimizer_name(name: str) -> str:
    """Return how an optimizer is printed."""
    return OPTIMIZERS.get(name, name)


def setting_name(task: str, optimizer: str, lr: float | str) -> str:
    """Return how a setting is printed, such as ``translation, Adam 0.001``."""
    return f"{task}, {optimizer_name(optimizer)} {float(lr):g}"


def name_of(row: pd.Series) -> str:
    """Name the task, optimizer and learning rate of a row."""
    return setting_name(row["task"], row["optimizer"], row["lr"])


def _is_training(recording: Recording) -> bool:
    return recording.meta.get("kind") == "training" and bool(recording.meta.get("training"))


def _warm_up_run(recording: Recording) -> dict[str, Any]:
    meta, training = recording.meta, recording.meta["training"]
    status = str(meta.get("status"))
    steps = recording.steps.sort_values("step")
    ends = {} if status == "diverged" else {name: last_value(steps, name) for name in ("valid_loss", "bleu")}
    return {
        "recording": recording,
        "task": str((meta.get("task") or {}).get("name", "")),
        "variant": arrangement(recording),
        "optimizer": str(training["optimizer"]),
        "lr": float(training["lr"]),
        "warm_up": _warm_up(training),
        "warm_up_steps": int(training["warmup"]),
        "seed": int(meta["seeds"][0]),
        "steps": int(training["steps"]),
        "status": status,
        "ended": status in ("complete", "diverged"),
        "diverged": status == "diverged",
        "diverged_at": np.nan if meta.get("diverged_at") is None else float(meta["diverged_at"]),
        "loss": np.nan if status == "diverged" else end_of_training(steps),
        "unit": str((meta.get("task") or {}).get("unit") or "loss"),
        "learned": _learned(meta.get("task") or {}, ends),
        **ends,
    }


def _learned(task: Mapping[str, Any], ends: Mapping[str, float]) -> float:
    """Return 1 for a run that learned its task, 0 for one that did not (a divergence among them)."""
    if not ends:
        return 0.0
    if np.isfinite(ends["bleu"]):
        return float(ends["bleu"] >= limit("GL600", "bleu"))
    if task.get("unigram_bits"):  # as GL304
        return float(ends["valid_loss"] < limit("GL304", "most") * float(task["unigram_bits"]) * np.log(2))
    return np.nan


def _warm_up(training: Mapping[str, Any]) -> str:
    steps, decays_from = int(training["warmup"]), training.get("decay_from")
    if not steps:
        return "none"
    return "full" if decays_from is None or steps >= int(decays_from) else "short"
