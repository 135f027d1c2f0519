"""Recordings with plausible numbers and small analyses, so that a report can be made without a model."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from gradlens.analysis import Analysis, Comparison, Finding, compare
from gradlens.recording import Recording

BLOCKS = 4
MODEL = {
    "family": "transformer", "kind": "decoder", "norm": "layernorm", "width": 64, "blocks": BLOCKS,
    "ffn": 128, "heads": 4, "activation": "relu", "dropout": 0.0, "vocab": 256, "parameters": 312_832,
}  # fmt: skip
TASK = {
    "name": "lm", "version": "Python 3.11.7", "sha256": "4f" * 32, "unit": "nats per byte",
    "licence": "PSF-2.0", "origin": "source of the Python standard library", "unigram_bits": 4.61,
}  # fmt: skip


def make_recording(
    label: str = "pre-ln, warm-up",
    *,
    kind: str = "training",
    variant: str | None = "pre-ln",
    steps: int = 60,
    status: str = "complete",
    **meta: Any,
) -> Recording:
    """Build a recording of four blocks: gradients fall with depth, the loss with the steps."""
    rng = np.random.default_rng(sum(map(ord, label)))
    block_sites = [f"blocks.{i}" for i in range(BLOCKS)]
    norm_sites = [f"{b}.{n}" for b in block_sites for n in ("attention_norm", "ffn_norm")]
    index = range(steps)
    post = "post" in label
    norms = pd.DataFrame(
        [
            {"step": s, "site": n, "call": 0, "rank": 0, "vectors": 1024, "width": 64,
             "recentering": 1 / 64, "rescaling": 1 / 63 + 0.002 * rng.random(), "nonfinite": 0}
            for s in index for n in norm_sites
        ]
    )  # fmt: skip
    norms["kept"] = 1 - norms["recentering"] - norms["rescaling"]
    rms = lambda i: 1.0 if post else float(np.sqrt(1 + 0.9 * (i + 1)))  # noqa: E731
    activations = pd.DataFrame(
        [
            {"step": s, "site": b, "tensor": "output", "rms": rms(i) * (1 + 0.01 * rng.random())}
            for s in index for i, b in enumerate(block_sites)
        ]
    )  # fmt: skip
    params = pd.DataFrame(
        [
            {"step": s, "name": f"{b}.ffn.w2.weight", "numel": 8192, "nonfinite": 0,
             "grad_norm": (2.0 ** (i if post else -i / 2)) * np.exp(0.05 * rng.normal())}
            for s in index for i, b in enumerate(block_sites)
        ]
    )  # fmt: skip
    loss = 5.5 * np.exp(-np.arange(steps) / 25) + 2 + (0.6 if post else 0) + 0.05 * rng.normal(size=steps)
    table = pd.DataFrame({"step": index, "loss": loss, "lr": 1e-3, "seconds": 0.041})
    if kind == "init":
        table["seed"] = list(index)
    else:
        table["valid_loss"] = np.where(np.arange(steps) % 20 == 19, loss + 0.1, np.nan)
    sites = pd.DataFrame(
        [{"site": s, "kind": "block", "block": i, "order": 10 * i} for i, s in enumerate(block_sites)]
        + [{"site": s, "kind": "norm", "norm": "layernorm", "placement": "post_add" if post else "pre_branch",
            "block": i // 2, "order": 10 * (i // 2) + 1 + i % 2} for i, s in enumerate(norm_sites)]
    )  # fmt: skip
    schedule = None if kind == "init" else ("no warm-up" if "no warm-up" in label else "warm-up")
    facts = {
        "kind": kind, "label": label, "variant": variant, "schedule": schedule, "status": status,
        "model": MODEL | {"arrangement": (variant or "pre-ln").partition("/")[0]}, "task": TASK,
        "seeds": list(index) if kind == "init" else [0],
        "training": None if kind == "init" else {"lr": 1e-3, "warmup": 0 if "no" in label else 20},
        "versions": {"gradlens": "0.1.0", "torch": "2.13.0", "python": "3.11.7"},
        "argv": ["gradlens", "compare", "pre-ln", "post-ln"], "git": None, "cpu": "x86_64",
    }  # fmt: skip
    return Recording.from_tables(
        facts | meta, norms=norms, activations=activations, params=params, steps=table, sites=sites
    )


def loss_table(recordings: Sequence[Recording]) -> pd.DataFrame:
    """One row a step: what the fake analysis draws and judges."""
    columns = ["panel", "label", "x", "value", "unit"]
    frames = [
        pd.DataFrame(
            {
                "panel": "loss",
                "label": r.label,
                "x": r.steps["step"],
                "value": r.steps["loss"],
                "unit": "nats",
            }
        )
        for r in recordings
    ]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)


def plot_losses(table: pd.DataFrame, figure: Figure) -> None:
    axes = figure.add_subplot()
    for label, rows in table.groupby("label", sort=False):
        axes.plot(rows["x"], rows["value"], label=label)
    axes.set_xlabel("step")
    axes.set_ylabel("loss (nats per byte)")
    figure.legend(loc="outside upper left", ncols=1 if table["label"].str.len().max() > 30 else 4)


def judge_losses(table: pd.DataFrame) -> list[Finding]:
    if table.empty:
        return [Finding(code="XX101", status="not applicable", claim="No run was trained", analysis="losses")]
    found = []
    for label, rows in table.groupby("label", sort=False):
        last = float(rows["value"].tail(5).mean())
        bad = last > 2.8
        found.append(
            Finding(
                code="XX101", status="fail" if bad else "pass", analysis="losses", subject=str(label),
                claim=f"{label} ends {'above' if bad else 'below'} the loss limit",
                value=last, low=last - 0.05, high=last + 0.05, unit="nats",
                expected=2.0, expected_from="the same model with warm-up",
                threshold="2.8 nats per byte at the end", sites=("blocks.0.attention_norm",),
                causes=("a learning rate that is too high at the first steps", "few steps (innocent)"),
                remedies=("warm the learning rate up", "move the norms into the branches (Pre-LN)"),
                reference="Xiong et al. 2020, section 4",
            )
        )  # fmt: skip
    return found


def make_analysis(name: str = "losses", **changes: Any) -> Analysis:
    """Build a small analysis of the loss."""
    facts: dict[str, Any] = {
        "title": "The loss while training", "question": "Does every variant train?",
        "reading": "The training loss at each step, one curve a recording. Lower is better.",
        "needs": {"steps": ["loss", "lr"]}, "kinds": ("training", "attached"), "compute": loss_table,
        "plot": plot_losses, "judge": judge_losses, "codes": {"XX101": "The loss at the end."},
        "reference": "Xiong et al. 2020, figure 2",
    }  # fmt: skip
    return Analysis(**{"name": name, **facts, **changes})


@pytest.fixture
def recording() -> Callable[..., Recording]:
    return make_recording


@pytest.fixture
def analysis() -> Callable[..., Analysis]:
    return make_analysis


@pytest.fixture
def six() -> tuple[Recording, ...]:
    """Two variants at initialization, and trained with and without warm-up."""
    init = [make_recording(v, kind="init", variant=v, steps=5) for v in ("pre-ln", "post-ln")]
    runs = [make_recording(f"{v}, {s}", variant=v) for v in ("pre-ln", "post-ln") for s in ("warm-up", "no warm-up")]
    return (*init, *runs)


@pytest.fixture
def comparison(six: tuple[Recording, ...]) -> Comparison:
    return compare(six, [make_analysis(), make_analysis("again", title="The loss again", kinds=("init",))])
