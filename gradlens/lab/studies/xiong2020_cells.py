"""The cells of the study of Xiong et al. 2020, by the kind of work; how large they are stands in ``xiong2020``."""

from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

from gradlens.lab.runs.limit import Predictor
from gradlens.lab.studies.cell import Cell, Trained, TrainedAtLimit, Untrained

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
_PREDICTORS: tuple[Predictor, ...] = ("edge", "trial")


def _at_initialization(
    group: str, task: str, variants: Sequence[str], blocks: Iterable[int], seconds: float, **settings: Any
) -> list[Cell]:
    """Return a cell for each variant and number of blocks; ``seconds`` is for one block and seed."""
    size, seeds = settings.pop("size"), settings.pop("seeds")
    return [
        Untrained(
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


def encoder_decoders(blocks: Iterable[int], width: int = 256, batch_size: int = 16, length: int = 32) -> list[Cell]:
    """Return the models of Figure 3, at more depths."""
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


def encoders(blocks: Iterable[int], width: int = 256) -> list[Cell]:
    """Return the encoders of Theorem 1, whose matrices are all square."""
    size = {"kind": "encoder", "width": width, "ffn": width}
    return _at_initialization("encoder", "lm", PAIR, blocks, 0.03, size=size, seeds=10, batch_size=8, length=32)


def amplified(variants: Sequence[str], blocks: Iterable[int]) -> list[Cell]:
    """Return what answers how much noise in the weights moves the output, by arrangement and depth."""
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


def curved(blocks: Iterable[int], seeds: int) -> list[Cell]:
    """Return what answers how sharply the loss curves, by depth."""
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


def warm_ups(
    task: str,
    seconds: float,
    *,
    steps: int,
    size: dict[str, Any],
    adam: Sequence[float],
    sgd: Sequence[float] = (),
    short: bool = True,
    seeds: int = 3,
    **training: Any,
) -> list[Cell]:
    """Return the runs of section 3.1: the warm-up a quarter of the steps, an eighth of that, or none.

    All decay from the end of the full one.

    Args:
        task: translation, or the language model in place of their BERT.
        seconds: of one run.
        steps: of one run.
        size: keyword arguments of the model, besides its heads, blocks and dropout.
        adam: learning rates of Adam.
        sgd: those of SGD; Pre-LN takes the last.
        short: whether Post-LN with Adam takes the short warm-up, too.
        seeds: runs of each.
        training: further fields of ``TrainingConfig``.
    """
    full = steps // 4
    runs = (
        *product(PAIR[:1], ("adam",), adam, (0, full // 8, full) if short else (0, full)),
        *product(PAIR[1:], ("adam",), adam, (0, full)),
        *product(PAIR[:1], ("sgd",), sgd, (0, full)),
        *product(PAIR[1:], ("sgd",), sgd[-1:], (0, full)),
    )
    schedule = {"steps": steps, "decay": "inverse-sqrt", "decay_from": full}
    kept = {"every": max(1, steps // 100), "evaluate_every": steps // 4, "checkpoint_every": steps // 4}
    return [
        Trained(
            key=f"warm-up/{task}/{variant}/{optimizer}/lr-{lr:g}/warm-up-{own}",
            label=f"{task}, {variant}, {optimizer}, lr {lr:g}, " + (f"warm-up {own}" if own else "no warm-up"),
            part="warm-up",
            task=task,
            variant=variant,
            size={"heads": 4, "blocks": 6, "dropout": 0.1, **size},
            seconds=seconds,
            training={"lr": lr, "warmup": own, **schedule, **kept, **_OPTIMIZERS[optimizer], **training},
            seeds=seeds,
        )
        for variant, optimizer, lr, own in runs
    ]


def limits(
    variants: Sequence[str], optimizers: Sequence[str], factors: Sequence[float], seeds: int, steps: int = 150
) -> list[Cell]:
    """Return runs at multiples of the largest learning rate that each predictor allows."""
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
        for variant, optimizer, by, factor in product(variants, optimizers, _PREDICTORS, factors)
    ]
