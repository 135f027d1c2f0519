"""Recordings whose answers are known, because they were written into their tables."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from gradlens.lens.audit import Audit
from gradlens.recording import Recording

WIDTH = 64
MATRICES = ("attention.query", "attention.key", "attention.value", "attention.out", "ffn.w1", "ffn.w2")


def model(arrangement: str, **changes: Any) -> dict[str, Any]:
    """The ``model`` entry of a zoo Transformer whose FFN is as wide as its stream (v = 1/2)."""
    known = {
        "family": "transformer", "kind": "decoder", "arrangement": arrangement, "norm": "layernorm",
        "blocks": 4, "width": WIDTH, "ffn": WIDTH, "heads": 4, "activation": "relu", "dropout": 0.0,
        "vocab": 256, "parameters": 10,
    }  # fmt: skip
    return known | changes


def sites(stack: str, blocks: int, placement: str) -> pd.DataFrame:
    """Blocks with two norms each and, for Pre-LN, a final norm; in forward order."""
    rows: list[dict[str, Any]] = []
    for block in range(blocks):
        path = f"{stack}.{block}"
        rows.append({"site": path, "kind": "block", "block": block})
        for name in ("attention_norm", "ffn_norm"):
            rows.append({"site": f"{path}.{name}", "kind": "norm", "block": block, "placement": placement})
    if placement == "pre_branch":
        root = stack.rpartition(".")[0]
        rows.append({"site": f"{root}.final_norm".lstrip("."), "kind": "norm", "placement": "final"})
    table = pd.DataFrame(rows).assign(order=range(len(rows)), width=WIDTH)
    table["norm"] = table["kind"].map({"norm": "layernorm"})
    return table


def audit(norms: Sequence[str] = ("a", "b"), **changes: Any) -> dict[str, Any]:
    """What a lens that missed nothing says of itself, with changes to fields of ``Audit``."""
    setting = {
        "compiled": [], "graphs_dropped": False, "checkpointed": [], "autocast": "", "input_dtypes": {"float32": 2},
        "loss_scale": False, "passes": [1, 1], "every": 1, "functional": False, "world": 1,
    }  # fmt: skip
    known = {
        "norms": tuple(norms), "fired": tuple(norms), "steps": 1, "calls": {"most": 1, "sites": {}},
        "gradient": "Parameter gradients: at the end of backward, after reductions, before clipping.",
    } | changes  # fmt: skip
    return Audit(**{**known, "setting": setting | changes.get("setting", {})}).to_dict()


def at_init(
    arrangement: str = "pre-ln",
    *,
    label: str | None = None,
    stacks: Sequence[str] = ("blocks",),
    blocks: int = 4,
    seeds: int = 8,
    second_moment: Callable[[int], float] = lambda depth: 1.0 + depth,
    gradient: Callable[[int], float] = lambda block: 1.0,
    noise: float = 0.01,
    shares: Mapping[str, float] | None = None,
    groups: Sequence[str] = MATRICES,
    **meta: Any,
) -> Recording:
    """A recording at initialization.

    Args:
        arrangement: ``pre-ln`` or ``post-ln``: decides where the stream is to be read.
        label: by default the arrangement.
        stacks: their paths.
        blocks: in each stack.
        seeds: how many.
        second_moment: of the stream, by blocks applied.
        gradient: norm of each matrix' gradient, by block from 1.
        noise: standard deviation of the logarithm of every number over seeds.
        shares: values of columns of the ``norms`` table; by default those of a random gradient.
        groups: the matrices of a block.
        meta: further metadata.
    """
    rng = np.random.default_rng(0)
    placement = "pre_branch" if arrangement == "pre-ln" else "post_add"
    wobble = lambda value: float(value * np.exp(noise * rng.standard_normal()))  # noqa: E731
    rows: dict[str, list[dict[str, Any]]] = {"params": [], "activations": [], "norms": []}
    table = pd.concat([sites(stack, blocks, placement) for stack in stacks]).assign(order=lambda t: range(len(t)))
    for step in range(seeds):
        for stack in stacks:
            for block in range(blocks):
                path = f"{stack}.{block}"
                for group in groups:
                    norm = wobble(gradient(block + 1))
                    rows["params"].append({"step": step, "name": f"{path}.{group}.weight", "grad_norm": norm})
                rows["params"].append({"step": step, "name": f"{path}.ffn_norm.weight", "grad_norm": 1e-3})
                rms = wobble(np.sqrt(second_moment(block + 1)))
                # A Post-LN block hands on what its last norm has normalized: rms 1, not the stream's.
                own = {"output": rms if placement == "pre_branch" else 1.0}
                rows["activations"].append({"site": path, "step": step, "tensor": "output", "rms": own["output"]})
                if placement == "post_add":
                    where = {"site": f"{path}.ffn_norm", "step": step, "tensor": "input"}
                    rows["activations"].append(where | {"rms": rms})
            entering = {"site": f"{stack}.0", "step": step, "tensor": "input", "rms": 1.0}
            rows["activations"].append(entering)
        for site in table.loc[table["kind"] == "norm", "site"]:
            removed = {"recentering": wobble(1 / WIDTH), "rescaling": wobble(1 / WIDTH)} | dict(shares or {})
            kept = 1.0 - removed["recentering"] - removed["rescaling"]
            numbers = {"width": WIDTH, "kept": kept, "inv_sigma": 1.0} | removed
            rows["norms"].append({"step": step, "site": site, "call": 0, "rank": 0} | numbers)
    facts = {
        "kind": "init",
        "label": label or arrangement,
        "variant": arrangement,
        "model": model(arrangement),
    }
    steps = pd.DataFrame({"step": range(seeds), "loss": 1.0, "seed": range(seeds)})
    frames = {name: pd.DataFrame(lines) for name, lines in rows.items()}
    return Recording.from_tables(facts | meta, sites=table, steps=steps, **frames)


def training(
    loss: Sequence[float] | np.ndarray[Any, Any],
    *,
    variant: str = "pre-ln",
    schedule: str | None = "warm-up",
    grad_norm: Sequence[float] | np.ndarray[Any, Any] | None = None,
    balance: float = 1.0,
    kept: Callable[[int], float] = lambda step: 0.97,
    blocks: int = 4,
    nonfinite: Mapping[int, int] | None = None,
    nan_from: int | None = None,
    placement: str = "pre_branch",
    **meta: Any,
) -> Recording:
    """A recording of training.

    Args:
        loss: one value a step.
        variant: name of the variant.
        schedule: ``warm-up``, ``no warm-up`` or None.
        grad_norm: of the whole model, a value a step; by default 1 at every step.
        balance: the last block's gradient norm over the first block's.
        kept: share that every norm keeps, by step; what it removes is re-scaling.
        blocks: of the one stack.
        nonfinite: step to the entries of the gradient that are no numbers.
        nan_from: the step from which on the loss that is missing was passed, and is NaN.
        placement: of the blocks' norms.
        meta: further metadata.
    """
    steps = len(loss)
    table = pd.DataFrame({"step": range(steps), "loss": loss, "grad_norm": 1.0 if grad_norm is None else grad_norm})
    table["nan_loss"] = nan_from is not None and (table["step"] >= nan_from)
    params = pd.DataFrame(
        {"step": step, "name": f"blocks.{b}.ffn.w2.weight", "grad_norm": balance ** (b / (blocks - 1)),
         "nonfinite": (nonfinite or {}).get(step, 0)}
        for step in range(steps) for b in range(blocks)
    )  # fmt: skip
    places = sites("blocks", blocks, placement)
    norms = pd.DataFrame(
        {"step": step, "site": site, "call": 0, "rank": 0, "width": WIDTH, "recentering": 0.0,
         "rescaling": 1 - kept(step), "kept": kept(step), "inv_sigma": 1.0}
        for step in range(steps) for site in places.loc[places["kind"] == "norm", "site"]
    )  # fmt: skip
    label = f"{variant}, {schedule}" if schedule else variant
    facts = {
        "kind": "training", "label": label, "variant": variant, "schedule": schedule, "seeds": [0],
        "status": "complete", "training": {"lr": 1e-3, "warmup": 10 if schedule == "warm-up" else 0},
        "task": {"unit": "nats per byte", "unigram_bits": 4.0},
    }  # fmt: skip
    return Recording.from_tables(facts | meta, sites=places, steps=table, params=params, norms=norms)
