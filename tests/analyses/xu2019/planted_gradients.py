"""Runs of the grid whose gradients, losses and factors were written into their tables."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from gradlens.recording import Recording

WIDTH = 65
STEPS = tuple(range(0, 200, 10))


def run(
    task: str = "lm",
    norm: str = "layernorm-simple",
    seed: int = 0,
    *,
    rho2: Callable[[int], float] = lambda step: 1 / (WIDTH - 1),
    steps: Sequence[int] = STEPS,
    loss: Callable[[int], float] = lambda step: 3.0 - 0.01 * step,
    sites: int = 3,
    diverged_at: int | None = None,
    largest: float = 4.0,
    factor: tuple[float, float] = (1.0, 0.1),
    vectors: int = 32,
    **norm_columns: float,
) -> Recording:
    """A training run on the grid that keeps to Theorem 1.

    Args:
        task: its name.
        norm: by its name in the zoo.
        seed: of the run.
        rho2: squared correlation of g and y, by step.
        steps: that were recorded.
        loss: of training, by step; held out it is 0.1 more.
        sites: how many norms.
        diverged_at: the step, where it did; nothing after it was recorded.
        largest: max |y| of AdaNorm.
        factor: mean and deviation of φ.
        vectors: in a row of the norms.
        norm_columns: of the ``norms`` table, to break the theorem.
    """
    there = [step for step in steps if diverged_at is None or step <= diverged_at]
    losses = pd.DataFrame({"step": there, "loss": [loss(s) for s in there], "grad_norm": 1.0})
    losses["valid_loss"] = (losses["loss"] + 0.1).where(losses["step"] % 50 == 0)
    if diverged_at is not None:
        losses.loc[losses.index[-1], "loss"] = np.nan
    names = [] if norm == "none" else [f"norm{k}.normalize" if norm == "adanorm" else f"norm{k}" for k in range(sites)]
    table = pd.DataFrame({"site": names, "kind": "norm", "order": range(len(names)), "width": WIDTH})
    mean_flows, sigma_flows = "detachnorm" not in (norm, norm.removesuffix("-mean")), norm not in (
        "detachnorm", "detachnorm-variance",
    )  # fmt: skip
    rows = [
        {"step": step, "site": site, "call": 0, "rank": 0, "vectors": vectors, "width": WIDTH, "inv_sigma": 0.5,
         "mean_share": 0.1, "recentering": 0.1 * mean_flows, "rescaling": 0.9 * rho2(step) * sigma_flows,
         "mean2_detached": 0.1, "mean2_actual": 1e-16 if mean_flows else 0.1,
         "var_detached": 0.9, "var_actual": 0.9 * (1 - rho2(step) * sigma_flows)} | norm_columns
        for step in there for site in names
    ]  # fmt: skip
    activations = []
    if norm == "adanorm":
        places = [name.replace("normalize", "factor") for name in names]
        more = pd.DataFrame({"site": places, "kind": "module", "order": range(len(names), 2 * len(names))})
        table = pd.concat([table, more], ignore_index=True)
        for step in there:
            for site in places:
                where = {"step": step, "site": site, "call": 0, "rank": 0}
                activations.append(where | {"tensor": "input", "mean": 0.0, "rms": 1.0, "absmax": largest})
                phi = {"mean": factor[0], "rms": float(np.hypot(*factor)), "absmax": 1 + 0.1 * largest}
                activations.append(where | {"tensor": "output"} | phi)
    meta: dict[str, Any] = {
        "kind": "training", "label": f"{task}, {norm}, seed {seed}", "seeds": [seed],
        "model": {"norm": norm, "blocks": 2}, "task": {"name": task, "unit": "nats per byte"},
        "training": {"steps": max(steps) + 1}, "status": "complete" if diverged_at is None else "diverged",
        "diverged_at": diverged_at,
    }  # fmt: skip
    frames = {"norms": pd.DataFrame(rows), "activations": pd.DataFrame(activations)}
    return Recording.from_tables(meta, sites=table, steps=losses, **{k: v for k, v in frames.items() if len(v)})


def grid(**changes: Any) -> list[Recording]:
    """Two tasks, every norm, three seeds of slightly different loss."""
    norms = ("none", "detachnorm", "detachnorm-mean", "detachnorm-variance", "layernorm", "layernorm-simple", "adanorm")
    return [
        run(task, norm, seed, loss=lambda s, seed=seed, k=k: 3.0 - 0.01 * s + 0.05 * seed + 0.03 * k, **changes)
        for task in ("lm", "images") for k, norm in enumerate(norms) for seed in range(3)
    ]  # fmt: skip
