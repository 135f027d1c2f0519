"""The few numbers that tell the story, one row a recording: for the terminal and a report's first page."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from gradlens.analysis import ending
from gradlens.recording import Recording
from gradlens.recording.derive import repeated

#: Column to what it says, in the words of the report.
MEANING = {
    "recording": "its label",
    "measured": "what was recorded: seeds at initialization, or steps of training",
    "parameters": "number of weights",
    "loss": "training loss, mean over the end of training: " + ending.MEANING.rstrip("."),
    "valid_loss": "last loss on held-out data",
    "gradient_ratio": "L2 norm of the last block's parameter gradients over the first block's; "
    "geometric mean over the seeds, or over the end of training",
    "stream_rms": "root mean square of what the last block hands on (in Post-LN its last norm has just reset it), over "
    "the seeds, or the end of training",
    "kept": "share of the gradient that a norm's derivative lets through, mean over norms and the seeds, or the end of "
    "training",
    "seconds": "median wall time of a step, in seconds",
    "status": "how the recording ended",
}

#: Table to the columns that are read of it.
READS = {
    "norms": ("step", "site", "kept"),
    "activations": ("step", "site", "tensor", "rms"),
    "params": ("step", "name", "numel", "grad_norm"),
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
    valid = steps["valid_loss"].dropna() if "valid_loss" in steps else pd.Series(dtype=float)
    outputs = _last_block_outputs(recording)
    return {
        "recording": recording.label,
        "measured": _measured(len(steps), at_init),
        "parameters": _parameters(recording),
        "loss": np.nan if at_init else float(_closing(steps.set_index("step")["loss"], at_init).mean()),
        "valid_loss": float(valid.iloc[-1]) if len(valid) else np.nan,
        "gradient_ratio": _gradient_ratio(recording, at_init),
        "stream_rms": float(_closing(outputs.groupby("step")["rms"].mean(), at_init).mean()),
        "kept": float(_closing(_kept(recording.norms), at_init).mean()),
        "seconds": np.nan if at_init else float(steps["seconds"].median()),
        "status": str(recording.meta.get("status") or "complete"),
    }


def _kept(norms: pd.DataFrame) -> "pd.Series[float]":
    """Return the mean over norms by step; several calls of a shared norm count as one."""
    keys = ["step", "site"]
    sites = norms.groupby(keys)["kept"].mean() if repeated(norms, keys) else norms.set_index("step")["kept"]
    return sites.groupby("step").mean()


def _measured(count: int, at_init: bool) -> str:
    unit = "seed" if at_init else "step"
    return f"{count} {unit}{'' if count == 1 else 's'}"


def _closing(series: "pd.Series[float]", at_init: bool) -> "pd.Series[float]":
    """Return the finite values of a series by step at the end of training; all where steps are seeds."""
    finite = series[np.isfinite(series)]
    return finite if at_init else ending.at_the_end(finite)


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


def _gradient_ratio(recording: Recording, at_init: bool) -> float:
    """Return last over first block, L2 norm of their parameters' gradients, geometric mean over the steps."""
    blocks = _last_stack(recording)
    params = recording.params
    if len(blocks) < 2 or params.empty:
        return np.nan
    first, last = (_gradient_norm(params, block) for block in (blocks[0], blocks[-1]))
    ratio = (last / first).where((first > 0) & (last > 0))
    return float(np.exp(np.log(_closing(ratio, at_init)).mean()))


def _gradient_norm(params: pd.DataFrame, block: str) -> "pd.Series[float]":
    """Return the L2 norm of the gradients of the block's parameters, by step."""
    inside = params[params["name"].str.startswith(f"{block}.")]
    squares = (inside["grad_norm"] ** 2).groupby(inside["step"]).sum(min_count=1)
    return squares.pow(0.5)


def _last_block_outputs(recording: Recording) -> pd.DataFrame:
    activations = recording.activations
    last = _last_stack(recording)[-1:]
    return activations[activations["site"].isin(last) & (activations["tensor"] == "output")]
