"""Xu et al. 2019: seven norms on translation, language modelling, sentences, images and parsing.

From the paper: the norms, Pre-LN in the Transformers, 12 layers for language modelling (and 6 + 6 for translation), 4
for sentences, 3 for the CNN, Adam's betas, label smoothing, matrices as torch initializes them (their
``--init-method km``), and for translation the learning rate, its warm-up and decay. Ours: the data (see each task), and
in the budgets ``small`` and ``medium`` widths, steps and learning rates, so that two cores suffice. In ``paper`` the
hyper-parameters of all tasks but translation are ours too: they were not published with the paper's code.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from gradlens.lab.studies.cell import WATCH, Cell, Trained
from gradlens.lab.studies.study import Budget, Study

#: The norms under study, in the order of the paper's table.
NORMS = (
    "none",
    "detachnorm",
    "detachnorm-mean",
    "detachnorm-variance",
    "layernorm",
    "layernorm-simple",
    "adanorm",
)
#: What the lens records besides norms, blocks and parameters.
_ALSO = {"adanorm": (r"(^|\.)factor$",)}

#: The sizes of a Transformer that is trained on two cores.
_NARROW = {"width": 64, "heads": 4, "init": "torch"}


class Setting(NamedTuple):
    """How one task is trained in one budget; the same for every norm.

    Attributes:
        arrangement: of the model.
        size: keyword arguments of the model.
        training: fields of ``TrainingConfig``, without seed and device.
        seconds: of one run, as in ``Cell``.
    """

    arrangement: str
    size: Mapping[str, Any]
    training: Mapping[str, Any]
    seconds: float


def cells(settings: Mapping[str, Setting], seeds: int, norms: tuple[str, ...] = NORMS) -> tuple[Cell, ...]:
    """Return one cell for each norm on each task.

    Args:
        settings: task to how it is trained.
        seeds: runs of each.
        norms: some of the study's.
    """
    return tuple(_cell(task, norm, setting, seeds) for task, setting in settings.items() for norm in norms)


def _cell(task: str, norm: str, setting: Setting, seeds: int) -> Cell:
    variant = setting.arrangement if norm == "layernorm" else f"{setting.arrangement}/{norm}"
    return Trained(
        key=f"{task}/{norm}",
        label=f"{task}, {variant}",
        part=task,
        task=task,
        variant=variant,
        size=setting.size,
        watch=(*WATCH, *_ALSO.get(norm, ())),
        seconds=setting.seconds,
        training=setting.training,
        seeds=seeds,
    )


def _setting(
    arrangement: str, size: dict[str, Any], seconds: float, *, steps: int, evaluations: int = 10, **training: Any
) -> Setting:
    """Return a setting that evaluates so many times, and records some 100 steps."""
    every = {"evaluate_every": max(1, steps // evaluations), "every": max(1, steps // 100)}
    fixed = {"decay": "linear", "checkpoint_every": max(1, steps // 4)}
    return Setting(arrangement, size, {"steps": steps, **every, **fixed, **training}, seconds)


def _translation(size: dict[str, Any], seconds: float, **training: Any) -> Setting:
    """Compared by the held-out loss: BLEU of few pairs after few steps says little, and is shown beside it."""
    return _setting("pre-ln", size, seconds, evaluations=4, **training)


def _all_pairs(setting: Setting) -> dict[str, Setting]:
    return dict.fromkeys(("translation", "translation-de-en", "translation-en-vi"), setting)


_SMALL = {
    **_all_pairs(
        _translation(
            {**_NARROW, "blocks": 3}, 12, steps=80, batch_size=8, length=48, lr=3e-3, warmup=20, evaluation_batches=2
        )
    ),
    "lm": _setting("pre-ln", {**_NARROW, "blocks": 6}, 8, steps=200, batch_size=8, length=64, lr=3e-3, warmup=40),
    "sentences": _setting(
        "pre-ln", {**_NARROW, "blocks": 4}, 7, steps=240, batch_size=16, length=64, lr=3e-3, warmup=40, evaluations=5
    ),
    "images": _setting("plain", {"blocks": 3}, 3, steps=150, batch_size=32, lr=1e-3, evaluations=5),
    "parsing": _setting("plain", {"width": 200}, 8, steps=120, batch_size=16, length=64, lr=2e-3, evaluations=3),
}
_MEDIUM = {
    **_all_pairs(
        _translation(
            {**_NARROW, "blocks": 6},
            75,
            steps=1000,
            batch_size=8,
            length=48,
            lr=2e-3,
            warmup=150,
            evaluation_batches=8,
        )
    ),
    "lm": _setting("pre-ln", {**_NARROW, "blocks": 12}, 65, steps=1300, batch_size=12, length=64, lr=2e-3, warmup=150),
    "sentences": _setting(
        "pre-ln", {**_NARROW, "blocks": 4}, 35, steps=1000, batch_size=32, length=64, lr=3e-3, warmup=100
    ),
    "images": _setting("plain", {"blocks": 3}, 12, steps=800, batch_size=32, lr=1e-3),
    "parsing": _setting("plain", {"width": 200}, 30, steps=600, batch_size=16, length=64, lr=2e-3, evaluations=6),
}
_PAPER = {
    **_all_pairs(
        _translation(
            {"width": 512, "heads": 4, "ffn": 1024, "blocks": 6, "dropout": 0.3, "init": "torch"},
            90_000,
            steps=90_000,
            batch_size=32,
            length=128,
            accumulation=2,
            lr=1.5e-3,
            warmup=8000,
            decay="inverse-sqrt",
            weight_decay=1e-4,
            evaluation_batches=60,
        )
    ),
    "lm": _setting(
        "pre-ln",
        {"width": 512, "heads": 8, "blocks": 12, "dropout": 0.1, "init": "torch"},
        40_000,
        steps=40_000,
        batch_size=32,
        length=512,
        lr=2.5e-4,
        warmup=1000,
        evaluation_batches=32,
    ),
    "sentences": _setting(
        "pre-ln",
        {"width": 256, "heads": 4, "blocks": 4, "init": "torch"},
        2000,
        steps=4000,
        batch_size=32,
        length=64,
        lr=1e-3,
        warmup=400,
    ),
    "images": _setting("plain", {"blocks": 3}, 150, steps=8000, batch_size=32, lr=1e-3),
    "parsing": _setting("plain", {"width": 200}, 400, steps=20_000, batch_size=16, length=64, lr=1e-3, evaluations=10),
}

STUDY = Study(
    name="xu2019",
    title="Understanding and Improving Layer Normalization",
    reference="Xu, Sun, Zhang, Zhao, Lin 2019 (1911.07013)",
    part="task",
    parts=("translation", "lm", "sentences", "images", "parsing"),
    budgets={
        "small": Budget(about="a look at every part, some minutes on two cores", cells=cells(_SMALL, seeds=2)),
        "medium": Budget(
            about="every claim with five seeds, one to two hours on two cores", cells=cells(_MEDIUM, seeds=5)
        ),
        "paper": Budget(
            about="the paper's sizes as far as known; days on one accelerator", cells=cells(_PAPER, seeds=5)
        ),
    },
)
