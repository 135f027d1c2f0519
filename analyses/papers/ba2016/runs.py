"""The recordings of the study: whose they are, and the training runs on digits."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analyses.limits import limit
from analyses.steps import last_value
from gradlens.recording import Recording

BA = "Ba et al. 2016 (1607.06450)"
#: Norms by their names in the study, and how they are printed.
NORMS = {
    "layernorm": "LayerNorm",
    "batch": "BatchNorm",
    "weight": "weight norm",
    "rmsnorm": "RMSNorm",
    "none": "no norm",
}
LOOKS: dict[str, dict[str, Any]] = {
    "layernorm": {"color": "#0072B2", "marker": "o", "linestyle": "-"},
    "batch": {"color": "#D55E00", "marker": "s", "linestyle": "-"},
    "weight": {"color": "#009E73", "marker": "^", "linestyle": "-"},
    "rmsnorm": {"color": "#CC79A7", "marker": "D", "linestyle": "-"},
    "none": {"color": "#6b717a", "marker": "v", "linestyle": (0, (4, 1.5))},
}
COLUMNS = ("recording", "norm", "batch", "setting", "seed", "ended", "diverged", "valid_loss", "accuracy", "learned")


def norm_of(recording: Recording) -> str:
    """Return the norm's name in ``NORMS``; empty of a recording that is not of the study."""
    model = recording.meta.get("model") or {}
    name = str(model.get("other") or model.get("norm") or "")
    return name if model.get("family") in ("mlp", "recurrent") and name in NORMS else ""


def initial(recordings: Sequence[Recording], probe: str) -> list[Recording]:
    """Return those at initialization that hold what a probe read."""
    return [r for r in recordings if r.meta.get("kind") == "init" and norm_of(r) and (r.probes["probe"] == probe).any()]


def digit_runs(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Return the training runs on digits, a row each.

    Args:
        recordings: of any kind.

    Returns:
        ``recording``; ``norm``; ``batch``, its size; ``setting``, the norm; ``seed``; ``ended``; ``diverged``;
        ``valid_loss`` in nats per image and ``accuracy`` on the held-out images; ``learned``: whether it tells digits
        apart. A run that diverged has neither of the last three.
    """
    found = [r for r in recordings if r.meta.get("kind") == "training" and norm_of(r) and r.meta.get("training")]
    return pd.DataFrame([_row(recording) for recording in found], columns=list(COLUMNS))


def _row(recording: Recording) -> dict[str, Any]:
    status, steps = str(recording.meta.get("status")), recording.steps.sort_values("step")
    ends = dict.fromkeys(("valid_loss", "accuracy"), np.nan)
    if status != "diverged":
        ends = {name: last_value(steps, name) for name in ends}
    return {
        "recording": recording,
        "norm": norm_of(recording),
        "batch": int(recording.meta["training"]["batch_size"]),
        "setting": norm_of(recording),
        "seed": int(recording.meta["seeds"][0]),
        "ended": status in ("complete", "diverged"),
        "diverged": status == "diverged",
        "learned": float(ends["accuracy"] >= limit("GL523", "accuracy")),
        **ends,
    }
