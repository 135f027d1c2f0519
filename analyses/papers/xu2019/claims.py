"""The paper's claims, each held against pairs of runs that differ in the norm alone."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from analyses.intervals import Array
from analyses.limits import limit
from analyses.papers.claims import Verdict, ends, paired
from analyses.papers.xu2019.final_scores import scored
from analyses.papers.xu2019.forest import plot
from analyses.papers.xu2019.metrics import METRICS, metrics
from analyses.papers.xu2019.runs import in_order
from analyses.papers.xu2019.verdicts import CODES, judge
from gradlens.analysis import Analysis
from gradlens.recording import Recording

Kind = Literal["non-inferior", "superior"]

#: A row is one comparison on one task. ``measure``: what is compared; ``favoured``, ``against``: the norm that the
#: claim takes for the better (or no worse) one, and the other; ``value``, ``low``, ``high``: the mean difference in
#: per cent of LayerNorm's, positive for the claim; ``n``: pairs of seeds; ``diverged``, ``favoured_diverged``,
#: ``against_diverged``: pairs of which either, the one, the other diverged; ``verdict``: of the comparison;
#: ``on_task``: of the claim, from all its comparisons; ``counted``: 1 where the task counts for the claim.
COLUMNS = (
    "code", "task", "measure", "favoured", "against", "kind", "blocks", "counted", "verdict", "on_task", "scale",
    "value", "low", "high", "n", "diverged", "favoured_diverged", "against_diverged",
)  # fmt: skip
_TEXT = ("code", "task", "measure", "favoured", "against", "kind", "verdict", "on_task", "scale")
_REFERENCE_NORM = "layernorm"


class Compared(NamedTuple):
    """One comparison of a claim: the favoured norm, the other, what of it, and how much better it is to be."""

    favoured: str
    against: str
    kind: Kind
    measure: str = "score"


CLAIMS: dict[str, tuple[Compared, ...]] = {
    "GL501": (Compared("layernorm-simple", "layernorm", "non-inferior"),),
    "GL502": (
        Compared("layernorm", "layernorm-simple", "superior", "training loss"),
        Compared("layernorm-simple", "layernorm", "superior", "held-out loss"),
    ),
    "GL503": (Compared("none", "detachnorm", "non-inferior"),),
    "GL504": (Compared("layernorm-simple", "detachnorm", "superior"),),
    "GL505": (Compared("detachnorm-mean", "detachnorm-variance", "superior"),),
    "GL506": (Compared("adanorm", "layernorm", "non-inferior"),),
}
_COLUMN = {"score": "score", "training loss": "loss", "held-out loss": "valid_loss"}


def compute(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Return every comparison of every claim on every task that has a pair of runs for it.

    Args:
        recordings: of training; of those that came to an end (a divergence is one), the ones with the same task and
            seed are compared: they saw the same batches, and started from the same matrices.
    """
    table = scored(recordings)
    table = table[table["ended"]]
    tasks = {task: table[table["task"] == task] for task in in_order(table["task"], METRICS)}
    rows = [row for code in CLAIMS for task, runs in tasks.items() for row in _on_task(code, task, runs)]
    found = pd.DataFrame(rows, columns=list(COLUMNS))
    return found.astype({column: object if column in _TEXT else float for column in COLUMNS})


def _on_task(code: str, task: str, runs: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a claim's comparisons, or none where one of them has no pair."""
    rows = [row for compared in CLAIMS[code] for row in _compare(compared, task, runs)]
    if len(rows) < len(CLAIMS[code]):
        return []
    verdicts, blocks = {row["verdict"] for row in rows}, int(runs["blocks"].max())
    on_task = next((v for v in ("contradicts", "undecided") if v in verdicts), "supports")
    counted = code != "GL505" or blocks >= limit("GL505", "deep")
    return [{"code": code, "task": task, "blocks": blocks, "counted": counted, "on_task": on_task, **r} for r in rows]


def _compare(compared: Compared, task: str, runs: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield the one row of a comparison, nothing where no seed has both norms."""
    column, sign = _COLUMN[compared.measure], metrics(task)[0].sign if compared.measure == "score" else -1
    favoured, against = (runs[runs["norm"] == n].set_index("seed") for n in (compared.favoured, compared.against))
    scale, of = _scale(runs, column, (_REFERENCE_NORM, compared.against, compared.favoured))
    pairs = paired(favoured, against, column, sign=sign, scale=scale)
    if len(pairs.differences):
        held = verdict(compared.kind, pairs.differences, broken=bool(pairs.diverged.any()))
        yield {**compared._asdict(), **pairs.row(), "scale": of, "verdict": held}


def _scale(runs: pd.DataFrame, column: str, norms: Sequence[str]) -> tuple[float, str]:
    """Return the mean that differences are a share of, and whose: LayerNorm's where it has one."""
    for norm in norms:
        mean = float(runs.loc[runs["norm"] == norm, column].mean())
        if np.isfinite(mean) and mean:
            return abs(mean), norm
    return np.nan, ""


def verdict(kind: Kind, differences: Array, *, broken: bool = False) -> Verdict:
    """Say what paired differences on one task say of a claim.

    Args:
        kind: ``non-inferior``: supported above minus the margin, contradicted below it. ``superior``: supported above
            0, contradicted at or below it, though not by nothing but pairs of which both diverged.
        differences: of ``Pairs``.
        broken: whether any run diverged.

    Returns:
        The verdict; always ``undecided`` for one seed.
    """
    if len(differences) < 2:
        return "undecided"
    low, high = ends(differences, broke=broken)
    if kind == "non-inferior":
        bar = -100.0 * limit("GL501", "margin")
        return "supports" if low > bar else "contradicts" if high < bar else "undecided"
    if low > 0:
        return "supports"
    return "contradicts" if high <= 0 and (low < 0 or not broken) else "undecided"


ANALYSIS = Analysis(
    name="xu2019_claims",
    title="The paper's claims, tested",
    question="Do the paper's claims about what makes LayerNorm work hold in these runs?",
    reading=(
        "A panel is a claim, a row a task: the difference between two norms trained on the same batches from the same "
        "start, mean over seeds with its 95 % interval, in per cent of LayerNorm's mean score (or loss). Positive "
        "speaks for the claim. Where the claim is that a norm is no worse, the dotted line is how much worse still "
        "counts as equal. An axis that reaches far is logarithmic beyond ±2. A pair in which a run diverged has no "
        "difference; words say so, and the seeds are counted. A claim is reproduced where more than half of the tasks "
        "support it."
    ),
    needs={"steps": ("step", "loss")},
    kinds=("training",),
    compute=compute,
    plot=plot,
    judge=judge,
    size=(6.7, 6.2),
    codes=CODES,
    reference="Xu et al. 2019 (1911.07013)",
)
