"""Recordings of the study whose answers are known, because they were written into their tables."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from gradlens.recording import Recording

#: What of the arrangements ends a block with a norm.
_POST = ("post-ln", "deepnorm", "admin", "b2t")
#: Matrices of the FFN.
_MATRICES = ("ffn.w1.weight", "ffn.w2.weight")
#: A batch of eight sequences, as a recording tells of its tokens: two of them are the same one time in a hundred.
TOKENS = {
    "sequences": 8.0, "length": 33.0, "same_within": 0.01, "same_across": 0.01,
    "next_same_within": 0.01, "next_same_across": 0.01,
}  # fmt: skip


def model(arrangement: str, kind: str, blocks: int, **changes: Any) -> dict[str, Any]:
    """The ``model`` entry of a zoo Transformer whose FFN is as wide as its stream (v = 1/2)."""
    known = {
        "family": "transformer", "kind": kind, "arrangement": arrangement, "norm": "layernorm", "blocks": blocks,
        "width": 64, "ffn": 64, "heads": 4, "activation": "relu", "dropout": 0.0, "vocab": 256, "init": "xavier",
    }  # fmt: skip
    return known | changes


def at_init(
    arrangement: str,
    kind: str = "encoder",
    blocks: int = 4,
    *,
    seeds: int = 5,
    second_moment: Callable[[int], float] | None = None,
    gradient: Callable[[str, int], float] | None = None,
    probes: Sequence[Mapping[str, Any]] = (),
    noise: float = 0.01,
    size: Mapping[str, Any] | None = None,
    **meta: Any,
) -> Recording:
    """A recording at initialization.

    Args:
        arrangement: decides where the stream is to be read.
        kind: of the network.
        blocks: of a stack.
        seeds: how many.
        second_moment: of the stream, by blocks applied; by default Lemma 2's, in the middle of its range.
        gradient: norm of both matrices' gradients, by stack and block from 1; by default the law 2/√q.
        probes: rows of that table, each repeated a seed with the noise.
        noise: standard deviation of the logarithm of every number over seeds.
        size: changes to the model's sizes.
        meta: further metadata.
    """
    post, rng = arrangement in _POST, np.random.default_rng(0)
    q = second_moment or ((lambda depth: 1.5 if depth else 1.0) if post else (lambda depth: 1.0 + depth))
    norm = gradient or (lambda stack, block: 2.0 / np.sqrt(q(block)))
    stacks = ("encoder", "decoder") if kind == "encoder-decoder" else ("",)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in ("sites", "params", "activations", "probes")}
    placement = "post_add" if post else "pre_branch"
    paths = {(s, b): f"{s}.blocks.{b}".lstrip(".") for s in stacks for b in range(blocks)}
    for (_, block), path in paths.items():
        rows["sites"].append({"site": path, "kind": "block", "block": block})
        own = {"kind": "norm", "norm": "layernorm", "placement": placement, "block": block}
        rows["sites"].append({"site": f"{path}.ffn_norm", **own})
    for step in range(seeds):
        wobble = lambda value: float(value * np.exp(noise * rng.standard_normal()))  # noqa: E731
        for (stack, block), path in paths.items():
            here, rms = {"step": step}, np.sqrt(wobble(q(block + 1)))
            for name in _MATRICES:
                rows["params"].append({**here, "name": f"{path}.{name}", "grad_norm": wobble(norm(stack, block + 1))})
            rows["activations"].append({**here, "site": path, "tensor": "output", "rms": 1.0 if post else rms})
            if post:
                rows["activations"].append({**here, "site": f"{path}.ffn_norm", "tensor": "input", "rms": rms})
            if block == 0:
                rows["activations"].append({**here, "site": path, "tensor": "input", "rms": 1.0})
        rows["probes"] += [{"site": "", **probe, "step": step, "value": wobble(probe["value"])} for probe in probes]
    task = {"name": "translation", "label_smoothing": 0.1} if kind == "encoder-decoder" else {"name": "lm"}
    facts = {
        "kind": "init", "label": f"{kind}, {arrangement}, {blocks} blocks", "variant": arrangement, "task": task,
        "model": model(arrangement, kind, blocks, **(size or {})), "seeds": list(range(seeds)),
        "tokens": [TOKENS] * (2 if kind == "encoder-decoder" else 1),
    }  # fmt: skip
    frames = {name: pd.DataFrame(table) for name, table in rows.items() if table}
    frames["sites"]["order"] = range(len(frames["sites"]))
    steps = pd.DataFrame({"step": range(seeds), "loss": 5.0})
    return Recording.from_tables(facts | meta, steps=steps, **frames)


def amplified(arrangement: str, blocks: int, value: float, **changes: Any) -> Recording:
    """A decoder with a reading of the probe ``amplification``."""
    rows = [{"probe": "amplification", "name": "amplification", "value": value}]
    return at_init(arrangement, "decoder", blocks, probes=rows, **changes)


def curved(arrangement: str, blocks: int, largest: float, **changes: Any) -> Recording:
    """A decoder with a reading of the probe ``sharpness``."""
    rows = [{"probe": "sharpness", "name": "largest eigenvalue", "value": largest}]
    return at_init(arrangement, "decoder", blocks, probes=rows, **changes)


def concentrated(arrangement: str, share: Callable[[int], float], blocks: int = 4, **changes: Any) -> Recording:
    """An encoder-decoder with readings of the probe ``concentration``: a share beyond 0.1 by block from 1."""
    rows = [
        {"probe": "concentration", "site": f"{stack}.blocks.{block}", "name": f"share beyond {epsilon:g}",
         "value": share(block + 1) * (0.1 / epsilon)}
        for stack in ("encoder", "decoder") for block in range(blocks) for epsilon in (0.1, 0.25, 0.5)
    ]  # fmt: skip
    return at_init(arrangement, "encoder-decoder", blocks, probes=rows, **changes)


def translated(
    arrangement: str = "post-ln",
    warm_up: int = 20,
    seed: int = 0,
    *,
    optimizer: str = "adam",
    lr: float = 1e-3,
    held_out: float = 4.0,
    diverged_at: int | None = None,
    gradient: Callable[[int, int], float] = lambda step, block: 1.0,
    bleu: float = 10.0,
    **meta: Any,
) -> Recording:
    """A translation run of a hundred steps, whose learning rate falls from step 20 on.

    Args:
        arrangement: of the blocks.
        warm_up: its steps.
        seed: also moves the loss, most of it alike for all settings.
        optimizer: its name.
        lr: the highest learning rate.
        held_out: loss at the end.
        diverged_at: the step at which it broke off.
        gradient: norm of both matrices' gradients in the decoder, by step and block from 1.
        bleu: at the end, of seed 0.
        meta: further metadata.
    """
    last = 99 if diverged_at is None else diverged_at
    steps = pd.DataFrame({"step": range(last + 1), "loss": np.linspace(8.0, held_out, 100)[: last + 1] + 0.05 * seed})
    noise = 1.0 + 0.02 * (seed - 1) + 0.001 * np.cos(7 * seed + warm_up + len(arrangement))
    for column, value in (("valid_loss", held_out * noise), ("bleu", bleu + seed / 10)):
        steps[column] = np.where(steps["step"] == 99, value, np.nan)
    if diverged_at is not None:
        steps.loc[steps["step"] == diverged_at, "loss"] = np.nan
    params = pd.DataFrame(
        {"step": step, "name": f"decoder.blocks.{block}.{name}", "grad_norm": gradient(step, block + 1) * noise}
        for step in range(0, last + 1, 5) for block in range(6) for name in _MATRICES
    )  # fmt: skip
    facts = {
        "kind": "training", "label": f"{arrangement}, {optimizer}, {lr:g}, {warm_up}, seed {seed}", "seeds": [seed],
        "variant": arrangement, "status": "complete" if diverged_at is None else "diverged",
        "diverged_at": diverged_at, "task": {"name": "translation", "unit": "nats per piece"},
        "model": model(arrangement, "encoder-decoder", 6),
        "training": {"steps": 100, "lr": lr, "warmup": warm_up, "decay_from": 20, "optimizer": optimizer},
    }  # fmt: skip
    return Recording.from_tables(facts | meta, steps=steps, params=params)


def at_limit(
    arrangement: str,
    optimizer: str,
    factor: float,
    seed: int = 0,
    *,
    by: str = "edge",
    diverged: bool = False,
    end: float = 0.5,
) -> Recording:
    """A run at a multiple of a predicted limit, whose loss ends at a share of that of its first step."""
    steps = pd.DataFrame({"step": range(40), "loss": np.linspace(5.0, 5.0 * end, 40)})
    steps.loc[20:, "loss"] = 5.0 * end
    facts = {
        "kind": "training", "label": f"{arrangement}, {optimizer}, {factor:g} by {by}, seed {seed}", "seeds": [seed],
        "status": "diverged" if diverged else "complete", "task": {"name": "lm"},
        "model": model(arrangement, "decoder", 4), "training": {"steps": 40, "lr": 0.1 * factor, "warmup": 0},
        "limit": {"predicted": 0.1, "by": by, "factor": factor, "optimizer": optimizer, "readings": []},
    }  # fmt: skip
    return Recording.from_tables(facts, steps=steps)


def warm_ups(losses: Mapping[tuple[str, int], float], *, seeds: int = 3, **changes: Any) -> list[Recording]:
    """Runs of every arrangement and warm-up with the held-out loss that is given for it."""
    return [
        translated(arrangement, warm_up, seed, held_out=loss, **changes)
        for (arrangement, warm_up), loss in losses.items()
        for seed in range(seeds)
    ]


def study() -> list[Recording]:
    """A small grid of every part."""
    paper = ("post-ln", "pre-ln")
    return [
        *(concentrated(name, lambda block: 0.1, blocks) for name in paper for blocks in (4, 8)),
        *(at_init(name, "encoder", blocks) for name in paper for blocks in (4, 8)),
        *(amplified(name, blocks, float(blocks)) for name in (*paper, "admin", "peri-ln", "norm-free")
          for blocks in (4, 8)),
        *(curved(name, blocks, float(blocks), size={"width": 32, "ffn": 32}) for name in paper for blocks in (4, 8)),
        *warm_ups({(name, n): 4.0 + 0.02 * (20 - n) for name in paper for n in (0, 5, 20)}),
        *warm_ups({(name, n): 5.0 for name in paper for n in (0, 20)}, optimizer="sgd", lr=0.1),
        translated("post-ln", 0, 3, diverged_at=30),
        *(at_limit(name, optimizer, factor, by=by, diverged=factor > 4) for name in paper
          for optimizer in ("sgd", "adam") for by in ("edge", "trial") for factor in (0.5, 2, 8)),
    ]  # fmt: skip
