"""The paper's claims about the warm-up, each held against pairs of runs that differ in it alone."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analyses.limits import limit
from analyses.papers.claims import COMPARED, PARTICIPLE, Claim, compare, decided, tally
from analyses.papers.claims import table as tabled
from analyses.papers.findings import BEGINS, explained, farthest, known_ends, plural, signed
from analyses.papers.xiong2020.claimed import CLAIMS
from analyses.papers.xiong2020.claims_figure import plot
from analyses.papers.xiong2020.runs import name_of, warm_up_runs
from analyses.papers.xiong2020.words import PAPER
from analyses.tables import pick
from gradlens.analysis import Analysis, Finding
from gradlens.recording import Recording

_TEXT = ("code", "task", "optimizer", "favoured", "against", "verdict")
#: A row is one comparison, on one task at one optimizer and learning rate. Differences are of held-out losses, in per
#: cent of the loss with the whole warm-up; ``bar``: what they must exceed.
COLUMNS = ("code", "task", "optimizer", "lr", "favoured", "against", "verdict", "bar", *COMPARED)


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
    return row and {**row, "bar": bar}


def _distinct(runs: pd.DataFrame, setting: str) -> pd.DataFrame:
    return runs[runs["setting"] == setting].drop_duplicates("seed", keep="last")


def _judge(table: pd.DataFrame) -> list[Finding]:
    """Return one finding a claim; none where no run was made for any."""
    return [] if table.empty else [_judged(claim, pick(table, code=claim.code)) for claim in CLAIMS]


def _judged(claim: Claim, rows: pd.DataFrame) -> Finding:
    """More than half of the settings must support a claim, more than half contradict it for it to fail."""
    if rows.empty:
        why = "not tested, no two runs share task, optimizer, learning rate and seed as it asks"
        return claim.silent(f"{claim.title}: {why}.")
    told = {v: [_told(row) for _, row in rows[rows["verdict"] == v].iterrows()] for v in PARTICIPLE}
    status = decided(told, half_refutes=False)
    mixed = status == "inconclusive" and told["supports"] and told["contradicts"] and not told["undecided"]
    seeds, bar = rows["n"].max(), float(rows["bar"].iloc[0])
    return claim.finding(
        status,
        f"{'Mixed' if mixed else BEGINS[status]}: {claim.says}: {'; '.join(tally(told, len(rows), 'in setting'))}; "
        f"{seeds:.0f} seed{plural(seeds)} a setting.",
        **known_ends(farthest(rows, -rows["value"]) if rows["value"].notna().all() else None),
        threshold=(
            f"a setting supports where the 95 % interval of the paired difference lies above {signed(bar, 0)} % "
            "of the held-out loss with the whole warm-up, contradicts where it lies below; with a divergence, where "
            "all seeds agree; more than half of the settings must agree"
        ),
        details={name_of(row): _details(row) for _, row in rows.iterrows()},
    )


def _told(row: pd.Series) -> str:
    """Name a setting, with how much lower its favoured loss is, or which runs diverged."""
    if row["diverged"] > 0:
        return f"{name_of(row)}: runs diverged in {row['diverged']:.0f} of {row['n']:.0f} pairs"
    return f"{name_of(row)}: {'+' if row['value'] > 0 else ''}{signed(row['value'], 1)} %"


def _details(row: pd.Series) -> dict[str, Any]:
    return {str(key): None if pd.isna(cell) else cell for key, cell in row.items() if key not in ("code", "bar")}


ANALYSIS = Analysis(
    name="xiong2020_claims",
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
    judge=_judge,
    kinds=("training",),
    size=(6.7, 4.0),
    codes=explained(*CLAIMS),
    reference=PAPER,
    optional=True,
)
