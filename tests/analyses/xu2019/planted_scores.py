"""Grids of runs whose scores, and therefore the verdicts on the paper's claims, were written into them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analyses.papers.xu2019.metrics import metrics
from analyses.papers.xu2019.runs import NORMS
from gradlens.recording import Recording

TASKS = ("translation", "lm", "sentences", "images", "parsing")
#: Good scores with LayerNorm, as the tasks record them.
LEVEL = {"translation": 3.0, "lm": 2.0, "sentences": 0.75, "images": 0.98, "parsing": 80.0}
BLOCKS = {"translation": 6, "lm": 12, "sentences": 4, "images": 3, "parsing": 1}
#: Shares of LayerNorm's score by which a seed differs from the mean, in one norm and in all of them.
_OWN, _COMMON = 0.0005, 0.02


def run(
    task: str, norm: str, seed: int = 0, *, better: float = 0.0, train: float = 0.0, held_out: float = 0.0,
    diverged_at: int | None = None, blocks: int | None = None, **meta: Any,
) -> Recording:  # fmt: skip
    """One run of a hundred steps.

    Args:
        task: a name in ``TASKS``.
        norm: a name in ``NORMS``.
        seed: also moves the score, most of it alike for all norms.
        better: than LayerNorm in the score, as a share of LayerNorm's.
        train: lower than LayerNorm's in the training loss, as a share.
        held_out: lower than LayerNorm's in the held-out loss, as a share; of the score where that is the loss.
        diverged_at: the step at which it broke off.
        blocks: of the network; by default the task's.
        meta: further metadata.
    """
    metric, place = metrics(task)[0], list(NORMS).index(norm)
    noise = (_COMMON + _OWN * np.cos(place)) * (seed - 1)
    last = 99 if diverged_at is None else diverged_at
    steps = pd.DataFrame({"step": range(last + 1), "loss": 2.0 * (1 - train + noise / 10)})
    scores = {"valid_loss": 2.5 * (1 - held_out + noise / 10), "bleu": 20.0 + seed}
    if task.startswith("translation"):
        better = better or held_out
    scores[metric.column] = LEVEL.get(task, 3.0) * (1 + metric.sign * (better + noise))
    for column, value in scores.items():
        steps[column] = float("nan")
        steps.loc[steps["step"] == 50, column] = 0.5 * value
        steps.loc[steps["step"] == 99, column] = value
    if diverged_at is not None:
        steps.loc[steps["step"] == diverged_at, "loss"] = float("nan")
    facts = {
        "kind": "training", "label": f"{task}, {norm}, seed {seed}", "seeds": [seed],
        "status": "complete" if diverged_at is None else "diverged", "diverged_at": diverged_at,
        "task": {"name": task, "unit": "nats", **({"unigram_bits": 5.0} if task == "lm" else {})},
        "model": {"norm": norm, "blocks": BLOCKS.get(task, 2) if blocks is None else blocks},
        "training": {"steps": 100},
    }  # fmt: skip
    return Recording.from_tables(facts | meta, steps=steps)


def grid(
    changes: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    tasks: Sequence[str] = TASKS,
    norms: Iterable[str] = NORMS,
    seeds: int = 3,
) -> list[Recording]:
    """A grid on which all norms are alike, but for the changes.

    Args:
        changes: norm, or ``task/norm``, or ``task/norm/seed``, to arguments of ``run``; later ones go before.
        tasks: of the grid.
        norms: of the grid.
        seeds: how many.
    """
    changes = changes or {}
    recordings = []
    for task in tasks:
        for norm in norms:
            for seed in range(seeds):
                own: dict[str, Any] = {}
                for key in (norm, f"{task}/{norm}", f"{task}/{norm}/{seed}"):
                    own |= changes.get(key, {})
                recordings.append(run(task, norm, seed, **own))
    return recordings
