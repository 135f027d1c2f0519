"""The paper's claims about the warm-up, each held against pairs of runs that differ in it alone."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analyses import drawing
from analyses.limits import limit
from analyses.papers import claims_axes
from analyses.papers.claims import COMPARED, HALF, Claim, compare, judged
from analyses.papers.claims import table as tabled
from analyses.papers.findings import question
from analyses.papers.xiong2020.claimed import CLAIMS
from analyses.papers.xiong2020.paper import PAPER as ARRANGEMENTS
from analyses.papers.xiong2020.runs import name_of, warm_up_runs
from gradlens.analysis import Finding
from gradlens.recording import Recording

_SHARED = "task, optimizer, learning rate and seed"
_TEXT = ("code", "task", "optimizer", "favoured", "against", "verdict")
#: A row is one comparison, on one task at one optimizer and learning rate. Differences are of held-out losses, in per
#: cent of the loss with the whole warm-up; ``bar``: what they must exceed; ``learned``: share of the seeds that
#: learned the task, of the arm in which more did.
COLUMNS = ("code", "task", "optimizer", "lr", "favoured", "against", "verdict", "bar", *COMPARED, "learned")


def compute(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Return every comparison of every claim on each task, optimizer and learning rate that has a pair of runs for it.

    Args:
        recordings: of any kind; runs with and without warm-up that came to an end count (a divergence is one). Those of
            one seed saw the same batches, and started from the same matrices.
    """
    runs = warm_up_runs(recordings)
    runs = runs[runs["ended"].astype(bool)].assign(setting=lambda runs: runs["variant"] + ", " + runs["warm_up"])
    rows = [
        {"code": claim.code, "task": task, "optimizer": optimizer, "lr": lr, **row}
        for claim in CLAIMS
        for (task, optimizer, lr), own in runs.groupby(["task", "optimizer", "lr"])
        if optimizer in (claim.compared[0].optimizers or (optimizer,)) and (row := _compare(claim, own))
    ]
    return tabled(rows, _TEXT, COLUMNS)


def _compare(claim: Claim, runs: pd.DataFrame) -> dict[str, Any]:
    (compared,) = claim.compared
    whole = next(name for name in compared[:2] if name.endswith("full"))
    means = (own["valid_loss"].mean() for own in (_distinct(runs, whole), runs))
    scale = next((mean for mean in means if np.isfinite(mean)), np.nan)
    bar = 100.0 * limit(claim.code, "margin") * (1 if compared.better else -1)
    row = compare(compared, runs, "valid_loss", sign=-1, scale=scale, bar=bar, both=False)
    if not row:
        return row
    learned = max(_distinct(runs, setting)["learned"].astype(float).mean() for setting in compared[:2])
    # What two arms that know nothing of the task differ in is not what the claim is about.
    return {**row, "bar": bar, "learned": learned, **({"verdict": "undecided"} if learned < HALF else {})}


def _distinct(runs: pd.DataFrame, setting: str) -> pd.DataFrame:
    return runs[runs["setting"] == setting].drop_duplicates("seed", keep="last")


def _judge(table: pd.DataFrame) -> list[Finding]:
    """Return one finding a claim; none where no run was made for any."""
    return judged(table, CLAIMS, name_of, _SHARED, "the held-out loss with the whole warm-up")


def _plot(table: pd.DataFrame, figure: Figure) -> None:
    """Draw how much lower the favoured setting's held-out loss is.

    The figure's height is set to its rows.
    """
    if table.empty:
        drawing.say(figure, f"No two training runs share {_SHARED} as a claim asks.")
        return
    label = "held-out loss lower by % of that with the whole warm-up"
    claims_axes.stacked(table, figure, CLAIMS, name_of, _setting, label)


def _setting(text: str) -> str:
    variant, _, warm_up = text.partition(", ")
    return f"{ARRANGEMENTS[variant]} with {warm_up.replace('none', 'no')} warm-up"


ANALYSIS = question(
    *CLAIMS,
    title="The paper's claims about the warm-up, tested",
    question="Do the paper's claims about the warm-up hold in these runs?",
    reading=(
        "A panel is a claim, a row a task, optimizer and learning rate: how much lower the held-out loss ends in the "
        "setting that the claim favours, mean over seeds with its 95 % interval, in per cent of the loss with the "
        "whole warm-up. Both runs of a pair saw the same batches from the same start. Right of the dotted line the "
        "claim is supported: a setting that is to be better must be so by a margin, one that is to be no worse may "
        "be worse by one. A pair in which a run diverged has no difference; words say so, and the seeds are "
        "counted."
    ),
    needs={"steps": ("step", "loss")},
    compute=compute,
    plot=_plot,
    judge=_judge,
    kinds=("training",),
    size=(6.7, 4.0),
    optional=True,
)
