"""The paper's claims, each held against pairs of runs that differ in the norm alone."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analyses.limits import limit
from analyses.papers.claims import COMPARED, PARTICIPLE, Claim, Compared, begins, compare, decided, plain, tally
from analyses.papers.claims import table as tabled
from analyses.papers.findings import plural, question
from analyses.papers.xu2019.claimed import CLAIMS
from analyses.papers.xu2019.final_scores import scored
from analyses.papers.xu2019.forest import plot
from analyses.papers.xu2019.metrics import METRICS, metrics
from analyses.papers.xu2019.runs import NORMS, in_order
from analyses.tables import listed, percent, pick
from gradlens.analysis import Finding
from gradlens.recording import Recording

#: A row is one comparison on one task. ``measure``: what is compared; ``kind``: whether the favoured norm is to be
#: better, or no worse; ``verdict``: of the comparison; ``on_task``: of the claim, from all its comparisons;
#: ``counted``: 1 where the task counts for the claim; ``scale``: the norm whose mean differences are a share of.
COLUMNS = (
    "code", "task", "measure", "favoured", "against", "kind", "blocks", "counted", "verdict", "on_task", "scale",
    *COMPARED,
)  # fmt: skip
_TEXT = ("code", "task", "measure", "favoured", "against", "kind", "verdict", "on_task", "scale")
_REFERENCE_NORM = "layernorm"
_COLUMN = {"score": "score", "training loss": "loss", "held-out loss": "valid_loss"}


def compute(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Return every comparison of every claim on every task that has a pair of runs for it.

    Args:
        recordings: of training; of those that came to an end (a divergence is one), the ones with the same task and
            seed are compared: they saw the same batches, and started from the same matrices.
    """
    runs = scored(recordings)
    runs = runs[runs["ended"]].assign(setting=runs["norm"])
    tasks = {task: runs[runs["task"] == task] for task in in_order(runs["task"], METRICS)}
    rows = [row for claim in CLAIMS for task, own in tasks.items() for row in _on_task(claim, task, own)]
    return tabled(rows, _TEXT, COLUMNS)


def _on_task(claim: Claim, task: str, runs: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a claim's comparisons, or none where one of them has no pair."""
    rows = [row for compared in claim.compared if (row := _compare(compared, task, runs))]
    if len(rows) < len(claim.compared):
        return []
    verdicts, blocks = {row["verdict"] for row in rows}, int(runs["blocks"].max())
    on_task = next((v for v in ("contradicts", "undecided") if v in verdicts), "supports")
    counted = claim.code != "GL505" or blocks >= limit("GL505", "deep")
    fixed = {"code": claim.code, "task": task, "blocks": blocks, "counted": counted, "on_task": on_task}
    return [{**fixed, **row} for row in rows]


def _compare(compared: Compared, task: str, runs: pd.DataFrame) -> dict[str, Any]:
    column, sign = _COLUMN[compared.measure], metrics(task)[0].sign if compared.measure == "score" else -1
    scale, of = _scale(runs, column, (_REFERENCE_NORM, compared.against, compared.favoured))
    row = compare(compared, runs, column, sign=sign, scale=scale, bar=bar(better=compared.better))
    kind = "superior" if compared.better else "non-inferior"
    return row and {**row, "measure": compared.measure, "kind": kind, "scale": of}


def bar(*, better: bool) -> float:
    """Return what differences must exceed, in per cent: a norm that is to be no worse may be so by the margin."""
    return 0.0 if better else -100.0 * limit("GL501", "margin")


def _scale(runs: pd.DataFrame, column: str, norms: Sequence[str]) -> tuple[float, str]:
    """Return the mean that differences are a share of, and whose: LayerNorm's where it has one."""
    for norm in norms:
        mean = float(runs.loc[runs["norm"] == norm, column].mean())
        if np.isfinite(mean) and mean:
            return abs(mean), norm
    return np.nan, ""


def _judge(table: pd.DataFrame) -> list[Finding]:
    """Return one finding a claim."""
    if table.empty:
        claim = "No two runs of the paper's grid share a task and a seed and differ in the norm as a claim asks."
        return [CLAIMS[0].silent(claim)]
    return [_judged(claim, pick(table, code=claim.code)) for claim in CLAIMS]


def _judged(claim: Claim, rows: pd.DataFrame) -> Finding:
    """More than half of the tasks that count must support a claim; it fails where half contradict it."""
    counted = rows[rows["counted"] == 1]
    if counted.empty:
        why = "no task has runs of both norms from one seed"
        if len(rows):
            why = f"no task counts, for none has networks of {limit('GL505', 'deep'):g} blocks or more"
        return claim.silent(f"{claim.title}: not tested, {why}.", details=_details(rows))
    tasks = counted.drop_duplicates("task")
    by_verdict = {v: list(tasks.loc[tasks["on_task"] == v, "task"]) for v in PARTICIPLE}
    status, said = decided(by_verdict, half_refutes=True), ", ".join(tally(by_verdict, len(tasks), "on task"))
    one = counted.iloc[0] if len(counted) == 1 and not pd.isna(counted["low"].iloc[0]) else None
    return claim.finding(
        status,
        f"{begins(status, by_verdict)}: {claim.says}: {said}{_aside(rows, tasks)}.",
        row=one,
        unit="" if one is None else f"% of {NORMS[str(one['scale'])]}'s",
        threshold=_threshold(better=claim.compared[0].better),
        details=_details(rows),
    )


def _aside(rows: pd.DataFrame, tasks: pd.DataFrame) -> str:
    """Say over how many seeds, which tasks do not count, and which runs diverged."""
    least, most = int(tasks["n"].min()), int(tasks["n"].max())
    said = f"; {least if least == most else f'{least} to {most}'} seed{plural(most)} a norm"
    shallow = list(rows.loc[rows["counted"] == 0, "task"].unique())
    if shallow:
        said += f"; not counted, with fewer than {limit('GL505', 'deep'):g} blocks: {listed(shallow)}"
    broken = tasks.loc[tasks["diverged"] > 0, "task"]
    return said + (f"; runs diverged on {listed(list(broken))}" if len(broken) else "")


def _threshold(*, better: bool) -> str:
    margin = percent(limit("GL501", "margin"), 0)
    above = "0" if better else f"−{margin} of LayerNorm's score"
    return (
        f"a task supports where the 95 % interval of the paired difference lies above {above}, contradicts where it "
        "lies below; with a divergence, where all seeds agree; more than half of the tasks must support, and where "
        "half contradict it fails"
    )


def _details(rows: pd.DataFrame) -> dict[str, Any]:
    """Return every comparison under its task, with None for what does not exist."""
    return {
        str(task): {
            "verdict": str(own["on_task"].iloc[0]),
            "counted": bool(own["counted"].iloc[0]),
            "comparisons": [plain(row, "code", "task") for row in own.to_dict("records")],
        }
        for task, own in rows.groupby("task", sort=False)
    }


ANALYSIS = question(
    *CLAIMS,
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
    judge=_judge,
    size=(6.7, 6.2),
)
