"""The paper's claims about the warm-up, each held against pairs of runs that differ in it alone."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analyses.intervals import Array
from analyses.limits import limit
from analyses.papers.claims import Verdict, ends, paired
from analyses.papers.xiong2020.claims_figure import plot
from analyses.papers.xiong2020.runs import warm_up_runs
from analyses.papers.xiong2020.verdicts import CODES, NAME, judge
from analyses.papers.xiong2020.words import PAPER
from gradlens.analysis import Analysis
from gradlens.recording import Recording

#: A row is one comparison, on one task at one optimizer and learning rate. ``value``, ``low``, ``high``: how much lower
#: the favoured setting's held-out loss is, mean over pairs of seeds in per cent of the loss with the whole warm-up;
#: ``bar``: what it must exceed; ``n``: pairs; ``diverged``, ``favoured_diverged``, ``against_diverged``: pairs of
#: which either, the one, the other diverged.
COLUMNS = (
    "code", "task", "optimizer", "lr", "favoured", "against", "verdict", "bar", "value", "low", "high", "n", "diverged",
    "favoured_diverged", "against_diverged",
)  # fmt: skip
_TEXT = ("code", "task", "optimizer", "favoured", "against", "verdict")


class Compared(NamedTuple):
    """What a claim compares.

    Attributes:
        favoured: arrangement and warm-up of the setting that the claim takes for better, or for no worse.
        against: of the other.
        optimizers: with which it is tested; all where empty.
        better: whether it is to be better by the margin, not only no worse than it.
    """

    favoured: tuple[str, str]
    against: tuple[str, str]
    optimizers: tuple[str, ...]
    better: bool


CLAIMS: dict[str, Compared] = {
    "GL600": Compared(("post-ln", "full"), ("post-ln", "none"), ("adam",), True),
    "GL601": Compared(("post-ln", "full"), ("post-ln", "none"), ("sgd",), True),
    "GL602": Compared(("post-ln", "full"), ("post-ln", "short"), (), True),
    "GL603": Compared(("pre-ln", "none"), ("pre-ln", "full"), (), False),
    "GL604": Compared(("pre-ln", "none"), ("post-ln", "full"), (), False),
}


def compute(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Return every comparison of every claim on each task, optimizer and learning rate that has a pair of runs for it.

    Args:
        recordings: of any kind; runs with and without warm-up that came to an end count (a divergence is one). Those of
            one seed saw the same batches, and started from the same matrices.
    """
    runs = warm_up_runs(recordings)
    runs = runs[runs["ended"].astype(bool)]
    rows = [
        row
        for code, compared in CLAIMS.items()
        for (_, optimizer, _), own in runs.groupby(["task", "optimizer", "lr"])
        if not compared.optimizers or optimizer in compared.optimizers
        for row in _compare(code, compared, own)
    ]
    found = pd.DataFrame(rows, columns=list(COLUMNS))
    return found.astype({column: object if column in _TEXT else float for column in COLUMNS})


def _compare(code: str, compared: Compared, runs: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield the one row of a comparison, nothing where no seed has both."""
    favoured, against = (_setting(runs, *of) for of in (compared.favoured, compared.against))
    whole = favoured if compared.favoured[1] == "full" else against
    scale = next((m for m in (whole["valid_loss"].mean(), runs["valid_loss"].mean()) if np.isfinite(m)), np.nan)
    pairs = paired(favoured, against, "valid_loss", sign=-1, scale=scale)
    if not len(pairs.differences):
        return
    bar = 100.0 * limit(code, "margin") * (1 if compared.better else -1)
    yield {
        "code": code,
        **runs[["task", "optimizer", "lr"]].iloc[0],
        "favoured": ", ".join(compared.favoured),
        "against": ", ".join(compared.against),
        "verdict": verdict(pairs.differences, bar, broke=bool(pairs.diverged.any())),
        "bar": bar,
        **pairs.row(),
    }


def _setting(runs: pd.DataFrame, variant: str, warm_up: str) -> pd.DataFrame:
    own = runs[(runs["variant"] == variant) & (runs["warm_up"] == warm_up)]
    return own.drop_duplicates("seed", keep="last").set_index("seed")[["valid_loss", "diverged"]]


def verdict(differences: Array, bar: float, *, broke: bool = False) -> Verdict:
    """Say what paired differences say of a claim.

    Args:
        differences: of ``Pairs``.
        bar: what they must exceed.
        broke: whether any run diverged.

    Returns:
        The verdict; ``undecided`` for one seed, and where both runs of every pair diverged.
    """
    if len(differences) < 2 or (broke and not differences.any()):
        return "undecided"
    low, high = ends(differences, broke=broke)
    return "supports" if low > bar else "contradicts" if high < bar else "undecided"


ANALYSIS = Analysis(
    name=NAME,
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
    plot=plot,
    judge=judge,
    kinds=("training",),
    size=(6.7, 4.0),
    codes=CODES,
    reference=PAPER,
    optional=True,
)
