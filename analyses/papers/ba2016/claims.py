"""The paper's claims about batches, as data, held against pairs of runs that differ in the norm alone: GL523, GL524."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analyses import drawing
from analyses.limits import limit
from analyses.papers import claims_axes
from analyses.papers.ba2016.runs import BA, NORMS, digit_runs
from analyses.papers.claims import COMPARED, HALF, Claim, Compared, compare, judged
from analyses.papers.claims import table as tabled
from analyses.papers.findings import LARGER, MORE_SEEDS, question
from gradlens.analysis import Finding
from gradlens.recording import Recording

_claim = partial(
    Claim,
    analysis="ba2016_claims",
    unit="% of BatchNorm's held-out loss",
    expected_from=f"{BA}, section 6.6 and Fig. 6, in words: curves without numbers",
    causes=(
        "Short training: the paper's curves run for many passes over all 60,000 images.",
        "A rate and an optimizer that the paper does not say.",
        "Few seeds: the intervals are wide, and with one seed there is none.",
    ),
    remedies=(MORE_SEEDS, LARGER),
    reference=BA,
)
#: Code to the batch size that it speaks of.
BATCH = {"GL523": 128, "GL524": 4}
CLAIMS = (
    _claim(
        code="GL523",
        title="LayerNorm at least equals BatchNorm in large batches",
        says="in batches of 128, LayerNorm ends no worse than BatchNorm",
        compared=(Compared("layernorm", "batch", False),),
        expected="faster convergence",
        explanation=(
            "LayerNorm at least equals BatchNorm in large batches. On MNIST without an order of pixels, in batches of "
            "128, the held-out loss of LayerNorm ends no worse than BatchNorm's, or by less than the margin. Pairs of "
            "runs of one seed decide, with the same batches and weights at the start; where in fewer than half of the "
            "seeds either arm learned to tell digits apart, nothing is decided."
        ),
    ),
    _claim(
        code="GL524",
        title="LayerNorm does without large batches",
        says="in batches of 4, LayerNorm ends better than BatchNorm",
        compared=(Compared("layernorm", "batch", True),),
        expected="better",
        explanation=(
            "LayerNorm does without large batches. The same in batches of 4, where BatchNorm's mean and variance are "
            "of four cases: LayerNorm's held-out loss ends lower by more than the margin."
        ),
    ),
)
_TEXT = ("code", "batch", "favoured", "against", "verdict")
#: A row is one comparison; differences are of held-out losses, in per cent of BatchNorm's; ``bar``: what they must
#: exceed; ``learned``: share of the seeds that learned the task, of the arm in which more did.
COLUMNS = ("code", "batch", "favoured", "against", "verdict", "bar", *COMPARED, "learned")


def compute(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Return the comparison of every claim.

    Args:
        recordings: of any kind; runs on digits that came to an end count.
    """
    runs = digit_runs(recordings)
    runs = runs[runs["ended"].astype(bool)]
    rows = [{"code": c.code, "batch": str(BATCH[c.code]), **row} for c in CLAIMS if (row := _compare(c, runs))]
    return tabled(rows, _TEXT, COLUMNS)


def _compare(claim: Claim, runs: pd.DataFrame) -> dict[str, Any]:
    (compared,), own = claim.compared, runs[runs["batch"] == BATCH[claim.code]]
    bar = 100.0 * limit(claim.code, "margin") * (1 if compared.better else -1)
    scale = own.loc[own["setting"] == compared.against, "valid_loss"].mean()
    row = compare(compared, own, "valid_loss", sign=-1, scale=scale, bar=bar, both=False)
    if not row:
        return row
    learned = max(own.loc[own["setting"] == setting, "learned"].astype(float).mean() for setting in compared[:2])
    return {**row, "bar": bar, "learned": learned, **({"verdict": "undecided"} if learned < HALF else {})}


def _name(row: pd.Series) -> str:
    return f"batches of {row['batch']}"


def _judge(table: pd.DataFrame) -> list[Finding]:
    return judged(table, CLAIMS, _name, "batch size and seed", "BatchNorm's held-out loss")


def _plot(table: pd.DataFrame, figure: Figure) -> None:
    """Draw how much lower LayerNorm's held-out loss is; the figure's height is set to its rows."""
    if table.empty:
        drawing.say(figure, "No two training runs on digits share batch size and seed.")
        return
    label = "held-out loss lower by % of BatchNorm's"
    claims_axes.stacked(table, figure, CLAIMS, _name, NORMS.__getitem__, label)


ANALYSIS = question(
    *CLAIMS,
    title="The paper's claims about batches, tested",
    question="Does LayerNorm equal BatchNorm in batches of 128, and beat it in batches of 4?",
    reading=(
        "A panel is a claim: how much lower LayerNorm's held-out loss ends than BatchNorm's, mean over seeds with its "
        "95 % interval, in per cent of BatchNorm's. Both runs of a pair saw the same batches from the same start. "
        "Right of the dotted line the claim is supported: what is to be better must be so by a margin, what is to be "
        "no worse may be worse by one."
    ),
    needs={"steps": ("step", "loss")},
    compute=compute,
    plot=_plot,
    judge=_judge,
    kinds=("training",),
    size=(6.7, 2.0),
    optional=True,
)
