"""Xiong et al. 2020: where the norm stands, gradients at initialization, and the learning-rate warm-up.

Three parts. ``initialization`` measures models that are not trained: the 6-6 to 14-14 encoder-decoder of their
Figure 3 and deeper ones, the encoder their theorem is about, and how the output answers to noise in the weights, and
the loss to curvature, by arrangement and depth. ``warm-up`` is their section 3.1: translation with Adam and SGD, the
warm-up whole, an eighth of it, or none, with one and the same decay, lr sqrt(warm-up / step), so that only the warm-up
differs; the same of a language model, in place of their BERT. ``limits`` goes on from there: runs at multiples
of the largest stable learning rate that is predicted for each at its initialization, once from the edge of stability
and once by trials of a few steps.

From the paper: 6 + 6 blocks, 4 heads, dropout and label smoothing 0.1, Xavier's initialization, Adam's betas, two
learning rates of which one is twice the other, a full warm-up of a quarter of the steps and a short one of an eighth
of that, and Adam's on translation, 5e-4 and 1e-3. Ours: the data (see the tasks), widths, steps and batches, so that
two cores suffice, and the other learning rates. ``paper`` has the paper's.
"""

from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

from gradlens.studies.cell import Cell, Measured, Trained, TrainedAtLimit
from gradlens.studies.study import Budget, Study
from gradlens.training.limit import Prediction

PAIR = ("post-ln", "pre-ln")
ARRANGEMENTS = (
    *PAIR, "peri-ln", "deepnorm", "admin", "layernorm-scaling", "mix-ln", "b2t", "sub-ln", "norm-free",
)  # fmt: skip
#: Fields of ``TrainingConfig``; Adam's betas are those of the paper by default.
_OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adam": {"optimizer": "adam"},
    "sgd": {"optimizer": "sgd"},
    "momentum": {"optimizer": "sgd", "momentum": 0.9},
}
_PREDICTIONS: tuple[Prediction, ...] = ("edge", "trial")


def _at_initialization(
    group: str, task: str, variants: Sequence[str], blocks: Iterable[int], seconds: float, **settings: Any
) -> list[Cell]:
    """Return a cell for each variant and number of blocks; ``seconds`` is for one block and seed."""
    size, seeds = settings.pop("size"), settings.pop("seeds")
    return [
        Measured(
            key=f"initialization/{group}/{variant}/{count}",
            label=f"{group}, {variant}, {count} blocks",
            part="initialization",
            task=task,
            variant=variant,
            size={"heads": 4, "blocks": count, **size},
            seconds=seconds * count * seeds,
            seeds=seeds,
            **settings,
        )
        for variant, count in product(variants, blocks)
    ]


def _encoder_decoders(blocks: Iterable[int], width: int = 256, batch_size: int = 16, length: int = 32) -> list[Cell]:
    """Figure 3; the gradient of the last block by depth needs no depth between, the growth by block does."""
    return _at_initialization(
        "encoder-decoder",
        "translation",
        PAIR,
        blocks,
        0.2,
        size={"width": width, "dropout": 0.1},
        seeds=10,
        batch_size=batch_size,
        length=length,
        probes=("concentration",),
    )


def _encoders(blocks: Iterable[int], width: int = 256) -> list[Cell]:
    """Theorem 1, whose matrices are all square."""
    size = {"kind": "encoder", "width": width, "ffn": width}
    return _at_initialization("encoder", "lm", PAIR, blocks, 0.03, size=size, seeds=10, batch_size=8, length=32)


def _amplified(variants: Sequence[str], blocks: Iterable[int]) -> list[Cell]:
    return _at_initialization(
        "arrangements",
        "lm",
        variants,
        blocks,
        0.1,
        size={"width": 256},
        seeds=5,
        batch_size=8,
        length=32,
        probes=("amplification",),
    )


def _curved(blocks: Iterable[int], seeds: int) -> list[Cell]:
    return _at_initialization(
        "sharpness",
        "lm",
        PAIR,
        blocks,
        0.25,
        size={"width": 64},
        seeds=seeds,
        batch_size=8,
        length=32,
        probes=("sharpness",),
    )


def _warm_ups(
    runs: Iterable[tuple[str, str, float, int]],
    seconds: float,
    *,
    steps: int,
    warmup: int,
    seeds: int,
    size: dict[str, Any],
    task: str = "translation",
    **training: Any,
) -> list[Cell]:
    """Return a cell for each variant, optimizer, learning rate and warm-up; all decay from the full warm-up's end."""
    return [
        Trained(
            key=f"warm-up/{task}/{variant}/{optimizer}/lr-{lr:g}/warm-up-{own}",
            label=f"{task}, {variant}, {optimizer}, lr {lr:g}, " + (f"warm-up {own}" if own else "no warm-up"),
            part="warm-up",
            task=task,
            variant=variant,
            size={"heads": 4, "blocks": 6, "dropout": 0.1, **size},
            seconds=seconds,
            training={
                "steps": steps,
                "lr": lr,
                "warmup": own,
                "decay": "inverse-sqrt",
                "decay_from": warmup,
                "every": max(1, steps // 100),
                "evaluate_every": steps // 4,
                "checkpoint_every": steps // 4,
                **_OPTIMIZERS[optimizer],
                **training,
            },
            seeds=seeds,
        )
        for variant, optimizer, lr, own in runs
    ]


def _limits(
    variants: Sequence[str], optimizers: Sequence[str], factors: Sequence[float], seeds: int, steps: int = 150
) -> list[Cell]:
    return [
        TrainedAtLimit(
            key=f"limits/{variant}/{optimizer}/{by}-x{factor:g}",
            label=f"{variant}, {optimizer}, {factor:g} x the limit by {by}",
            part="limits",
            task="lm",
            variant=variant,
            size={"width": 64, "heads": 4, "blocks": 4},
            seconds=8,
            training={
                "steps": steps,
                "batch_size": 8,
                "length": 64,
                "every": 2,
                "evaluate_every": steps,
                "checkpoint_every": 0,
                **_OPTIMIZERS[optimizer],
            },
            seeds=seeds,
            by=by,
            factor=factor,
        )
        for variant, optimizer, by, factor in product(variants, optimizers, _PREDICTIONS, factors)
    ]


def _compared(
    full: int, short: int, adam: Sequence[float], sgd: Sequence[float] = ()
) -> list[tuple[str, str, float, int]]:
    """Return the paper's runs: Post-LN with Adam and every warm-up; with SGD, and Pre-LN, with and without it."""
    return [
        *product(PAIR[:1], ("adam",), adam, (0, short, full)),
        *product(PAIR[1:], ("adam",), adam, (0, full)),
        *product(PAIR[:1], ("sgd",), sgd, (0, full)),
        *product(PAIR[1:], ("sgd",), sgd[-1:], (0, full)),
    ]


_SMALL = (
    *_encoder_decoders((6, 10, 14)),
    *_encoders((4, 8, 16)),
    *_amplified(("post-ln", "pre-ln", "admin"), (4, 16)),
    *_curved((4, 16), seeds=3),
    *_warm_ups(
        product(PAIR, ("adam",), (1e-3,), (0, 75)),
        25,
        steps=300,
        warmup=75,
        seeds=2,
        size={"width": 64},
        batch_size=8,
        length=48,
        evaluation_batches=2,
    ),
    *_limits(PAIR, ("sgd", "adam"), (0.5, 8), seeds=1),
)
_MEDIUM = (
    *_encoder_decoders((6, 8, 10, 12, 14, 24, 32, 48, 64)),
    *_encoders((4, 8, 16, 32)),
    *_amplified(ARRANGEMENTS, (4, 8, 16, 32)),
    *_curved((4, 8, 16, 32), seeds=20),
    *_warm_ups(
        _compared(200, 25, adam=(5e-4, 1e-3), sgd=(0.7,)),
        120,
        steps=800,
        warmup=200,
        seeds=3,
        size={"width": 128},
        batch_size=8,
        length=48,
    ),
    *_warm_ups(
        _compared(100, 12, adam=(1e-3, 2e-3)),
        30,
        steps=400,
        warmup=100,
        seeds=3,
        size={"width": 96},
        task="lm",
        batch_size=8,
        length=64,
    ),
    *_limits(("pre-ln", "post-ln", "peri-ln"), ("sgd", "momentum", "adam"), (0.5, 2, 8), seeds=2),
)
_PAPER = (
    *_encoder_decoders((6, 8, 10, 12, 14, 24, 32, 48, 64), width=512, batch_size=32, length=128),
    *_encoders((4, 8, 16, 32), width=512),
    *_amplified(ARRANGEMENTS, (4, 8, 16, 32)),
    *_curved((4, 8, 16, 32), seeds=20),
    *_warm_ups(
        _compared(4000, 500, adam=(5e-4, 1e-3), sgd=(1e-3, 5e-3)),
        20_000,
        steps=16_000,
        warmup=4000,
        seeds=3,
        size={"width": 512, "ffn": 1024},
        batch_size=32,
        length=128,
        evaluation_batches=60,
    ),
    *_warm_ups(
        _compared(1000, 125, adam=(1e-3, 2e-3)),
        4000,
        steps=4000,
        warmup=1000,
        seeds=3,
        size={"width": 512},
        task="lm",
        batch_size=32,
        length=128,
    ),
    *_limits(("pre-ln", "post-ln", "peri-ln"), ("sgd", "momentum", "adam"), (0.5, 2, 8), seeds=2),
)

STUDY = Study(
    name="xiong2020",
    title="On Layer Normalization in the Transformer Architecture",
    reference="Xiong et al. 2020 (2002.04745)",
    parts=("initialization", "warm-up", "limits"),
    budgets={
        "small": Budget(about="a look at every part, five minutes on two cores", cells=_SMALL),
        "medium": Budget(about="every claim, an hour and a half on two cores", cells=_MEDIUM),
        "paper": Budget(about="the paper's sizes; days on one accelerator", cells=_PAPER),
    },
)
