"""The few numbers that tell the story, one row a recording: for the terminal and a report's first page."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from gradlens.recording import Recording

#: Column to what it says, in the words of the report.
MEANING = {
    "recording": "its label",
    "measured": "what was recorded: seeds at initialization, or steps of training",
    "parameters": "number of weights",
    "loss": "training loss, mean over the last twentieth of the recorded steps",
    "valid_loss": "last loss on held-out data",
    "gradient_ratio": "L2 norm of the last block's parameter gradients over the first block's; "
    "geometric mean over the seeds, or over the last fifth of the recorded steps",
    "stream_rms": "root mean square of the last block's output, over the same seeds or steps",
    "kept": "share of the gradient that a norm's derivative lets through, mean over norms and those steps",
    "seconds": "median wall time of a step, in seconds",
    "status": "how the recording ended",
}


def summary(recordings: Iterable[Recording]) -> pd.DataFrame:
    """Sum up each recording in one row.

    Args:
        recordings: of any kind; those of a comparison are in ``Comparison.summary``.

    Returns:
        Columns as in ``MEANING``; a number that was not recorded is missing.
    """
    return pd.DataFrame([_row(recording) for recording in recordings], columns=list(MEANING))


def _row(recording: Recording) -> dict[str, Any]:
    steps = recording.steps
    at_init = recording.meta.get("kind") == "init"
    window = steps["step"] if at_init else _last(steps["step"], 5)
    valid = steps["valid_loss"].dropna() if "valid_loss" in steps else pd.Series(dtype=float)
    norms, outputs = recording.norms, _last_block_outputs(recording)
    return {
        "recording": recording.label,
        "measured": _measured(len(steps), at_init),
        "parameters": _parameters(recording),
        "loss": np.nan if at_init else float(steps.loc[steps["step"].isin(_last(steps["step"], 20)), "loss"].mean()),
        "valid_loss": float(valid.iloc[-1]) if len(valid) else np.nan,
        "gradient_ratio": _gradient_ratio(recording, window),
        "stream_rms": float(outputs.loc[outputs["step"].isin(window), "rms"].mean()),
        "kept": float(norms.loc[norms["step"].isin(window), "kept"].mean()),
        "seconds": np.nan if at_init else float(steps["seconds"].median()),
        "status": str(recording.meta.get("status") or "complete"),
    }


def _measured(count: int, at_init: bool) -> str:
    unit = "seed" if at_init else "step"
    return f"{count} {unit}{'' if count == 1 else 's'}"


def _last(steps: "pd.Series[int]", part: int) -> "pd.Series[int]":
    """Return the last of so many equal parts of the recorded steps, at least one step."""
    return steps.sort_values().tail(max(1, len(steps) // part))


def _parameters(recording: Recording) -> float:
    """Return the number of weights: what the model says of itself, else those whose gradient was read."""
    stated = (recording.meta.get("model") or {}).get("parameters")
    if stated is not None:
        return float(stated)
    params = recording.params.drop_duplicates("name")
    return float(params["numel"].sum()) if len(params) else np.nan


def _last_stack(recording: Recording) -> list[str]:
    """Return the sites of the blocks of the stack that ends last (a decoder's), in order."""
    sites = recording.sites
    blocks = sites[sites["kind"] == "block"].sort_values("order")
    if blocks.empty:
        return []
    stack = blocks["site"].str.rpartition(".")[0]
    return list(blocks.loc[stack == stack.iloc[-1], "site"])


def _gradient_ratio(recording: Recording, window: "pd.Series[int]") -> float:
    """Return last over first block, L2 norm of their parameters' gradients, geometric mean over the steps."""
    blocks = _last_stack(recording)
    params = recording.params
    params = params[params["step"].isin(window)]
    if len(blocks) < 2 or params.empty:
        return np.nan
    first, last = (_gradient_norm(params, block) for block in (blocks[0], blocks[-1]))
    ratio = (last / first).replace([np.inf, 0.0], np.nan)
    return float(np.exp(np.log(ratio).mean()))


def _gradient_norm(params: pd.DataFrame, block: str) -> "pd.Series[float]":
    """Return the L2 norm of the gradients of the block's parameters, by step."""
    inside = params[params["name"].str.startswith(f"{block}.")]
    squares = (inside["grad_norm"] ** 2).groupby(inside["step"]).sum(min_count=1)
    return squares.pow(0.5)


def _last_block_outputs(recording: Recording) -> pd.DataFrame:
    activations = recording.activations
    last = _last_stack(recording)[-1:]
    return activations[activations["site"].isin(last) & (activations["tensor"] == "output")]
