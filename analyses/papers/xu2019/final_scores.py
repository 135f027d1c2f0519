"""The score of every run of the reproduction at the end of training."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analyses.papers.xu2019.metrics import metrics
from analyses.papers.xu2019.runs import BROKE_OFF, Run, grid
from analyses.steps import end_of_training, last_value
from gradlens.recording import Recording

_SCORES = ("score", "bleu", "bits_per_byte", "accuracy", "las", "valid_loss", "loss", "share")
_COLUMNS = ("task", "norm", "seed", "blocks", "steps", "ended", "diverged", "diverged_at", *_SCORES, "unit")


def scored(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Return a row a run of the grid with its scores at the end; of two of one task, norm and seed the later counts.

    Args:
        recordings: of any kind; what is no run of the paper's norms on a task is left out.

    Returns:
        ``task``; ``norm``; ``seed``; ``blocks``, of the model or of its stack; ``steps``, as planned; ``ended``,
        whether the run came to an end, a divergence among them; ``diverged``; ``diverged_at``, the step, missing where
        it did not; ``score``, the task's first metric; every metric by its column's name, all as printed;
        ``valid_loss``; ``loss``, of training, mean over the last tenth of the recorded steps; ``share``, bits per byte
        over the entropy of single bytes; ``unit`` of the loss. A run that diverged has no score, whatever it had
        before.
    """
    table = pd.DataFrame([_row(run) for run in grid(recordings) if run.task], columns=list(_COLUMNS))
    table = table.astype({"ended": bool, "diverged": bool})
    return table.drop_duplicates(["task", "norm", "seed"], keep="last", ignore_index=True)


def _row(run: Run) -> dict[str, Any]:
    model, diverged = run.recording.meta["model"], run.ending == BROKE_OFF
    facts = {
        "task": run.task,
        "norm": run.norm,
        "seed": run.seed,
        "blocks": int(model.get("blocks") or model.get("layers") or 0),
        "steps": int(run.recording.meta["training"]["steps"]),
        "ended": diverged or not run.ending,
        "diverged": diverged,
        "diverged_at": run.diverged_at,
        "unit": run.unit,
    }
    return facts if diverged else facts | _at_the_end(run)


def _at_the_end(run: Run) -> dict[str, float]:
    steps, task = run.recording.steps, run.recording.meta["task"]
    found = {"loss": end_of_training(steps), "valid_loss": last_value(steps, "valid_loss")}
    of_task = metrics(run.task)
    for metric in of_task:
        found[metric.column] = last_value(steps, metric.column) * metric.factor
    found["score"] = found[of_task[0].column]
    if task.get("unigram_bits"):
        found["share"] = found.get("bits_per_byte", np.nan) / float(task["unigram_bits"])
    return found
