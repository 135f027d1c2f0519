"""What ``xu2019_claims`` says of the paper's claims: GL501 to GL506, over all tasks that count."""

from typing import Any, NamedTuple

import pandas as pd

from analyses.limits import limit
from analyses.papers.claims import BEGINS, PARTICIPLE, tally
from analyses.papers.xu2019.runs import NORMS
from analyses.tables import listed, percent, pick
from gradlens.analysis import Finding, Status

_NAME = "xu2019_claims"
_PAPER = "Xu et al. 2019"
_TABLE = f"{_PAPER}, the table of all norms and data sets (read from its poster)"

CODES = {
    "GL501": (
        "Gain and bias do not help. LayerNorm without its gain and bias (LayerNorm-simple) is at least as good as with "
        "them on most tasks: no more than the margin below. Each task is decided by pairs of runs of the same seed, "
        "the claim by the tasks: more than half must support it."
    ),
    "GL502": (
        "Gain and bias over-fit. With them the training loss ends lower and the held-out loss higher than without. A "
        "task supports the claim where both hold; it contradicts it where either is refuted. Short trainings, in which "
        "no model over-fits, cannot show it."
    ),
    "GL503": (
        "The forward normalization is not the point. DetachNorm normalizes as LayerNorm does, but lets no gradient "
        "through mean and standard deviation. The paper finds it no better than no norm at all on most tasks, and "
        "concludes that normalizing the forward pass is not what helps."
    ),
    "GL504": (
        "The derivatives of mean and variance are the point. LayerNorm-simple and DetachNorm compute the same forward "
        "pass; they differ only in the derivatives of mean and variance, which LayerNorm-simple keeps. It must be the "
        "better one on most tasks."
    ),
    "GL505": (
        "The variance's derivative matters more than the mean's, on deeper networks. To detach the mean alone keeps "
        "the derivative of the variance, and must be better than to detach the variance alone. Tasks with shallow "
        "networks are shown, and not counted."
    ),
    "GL506": (
        "AdaNorm at least equals LayerNorm. The paper's own norm, which scales each entry by a function of its own "
        "value through which no gradient flows, is no more than the margin worse than LayerNorm on most tasks."
    ),
}


class Words(NamedTuple):
    """A claim in words: the heading of its panel, what it says of two norms, and what the paper has for it."""

    title: str
    says: str
    expected: str
    expected_from: str
    superior: bool


WORDS = {
    "GL501": Words(
        "Gain and bias do not help",
        "without gain and bias, LayerNorm is at least as good",
        "no worse on most tasks",
        f"{_TABLE}: LayerNorm-simple is at most 0.71 % below LayerNorm on each of the 8 data sets",
        False,
    ),
    "GL502": Words(
        "Gain and bias over-fit",
        "gain and bias make LayerNorm's training loss lower and its held-out loss higher",
        "lower in training, higher on held-out data",
        f"{_PAPER}, the figure of the losses on Enwiki8 (read from its poster)",
        True,
    ),
    "GL503": Words(
        "Forward normalization is not the point",
        "DetachNorm, which only normalizes the forward pass, is no better than no norm",
        "no better on most tasks",
        f"{_TABLE}: DetachNorm is worse than w/o Norm on 5 data sets, better on 2, and both diverge on 1",
        False,
    ),
    "GL504": Words(
        "The derivatives are the point",
        "LayerNorm-simple, which keeps the derivatives of mean and variance, is better than DetachNorm",
        "better on most tasks",
        f"{_TABLE}: LayerNorm-simple is better than DetachNorm on 6 of the 8 data sets",
        True,
    ),
    "GL505": Words(
        "The variance's derivative counts more",
        "on deeper networks it costs more to detach the variance than to detach the mean",
        "better with the mean detached than with the variance detached",
        f"{_PAPER}, stated for its deeper networks; the numbers were not at hand",
        True,
    ),
    "GL506": Words(
        "AdaNorm at least equals LayerNorm",
        "AdaNorm is at least as good as LayerNorm",
        "no worse on most tasks",
        f"{_TABLE}: AdaNorm is at least as good on each of the 8 data sets, and better on 7",
        False,
    ),
}
_CAUSES = (
    "Short training: norms that end alike may still differ in how fast they get there.",
    "Few seeds: the intervals are wide, and with one seed there is none.",
    "Networks that are smaller than the paper's, or as deep as its shallow ones.",
    "The data sets are not the paper's.",
    "A task that is not yet real work (GL500), on which all norms are alike.",
)
_REMEDIES = ("Train more seeds (--seeds).", "Train longer and larger (--budget medium or --budget paper).")


def judge(table: pd.DataFrame) -> list[Finding]:
    """Return one finding a claim.

    Args:
        table: of ``xu2019_claims.compute``.
    """
    if table.empty:
        claim = "No two runs of the paper's grid share a task and a seed and differ in the norm as a claim asks."
        return [Finding(code="GL501", status="not applicable", claim=claim, analysis=_NAME)]
    return [_judged(code, pick(table, code=code)) for code in WORDS]


def _judged(code: str, rows: pd.DataFrame) -> Finding:
    words, counted = WORDS[code], rows[rows["counted"] == 1]
    if counted.empty:
        why = "no task has runs of both norms from one seed"
        if len(rows):
            why = f"no task counts, for none has networks of {limit('GL505', 'deep'):g} blocks or more"
        return Finding(
            code=code, status="not applicable", claim=f"{words.title}: not tested, {why}.", analysis=_NAME,
            details=_details(rows),
        )  # fmt: skip
    tasks = counted.drop_duplicates("task")
    by_verdict = {v: list(tasks.loc[tasks["on_task"] == v, "task"]) for v in PARTICIPLE}
    half, said = len(tasks) / 2, ", ".join(tally(by_verdict, len(tasks), "on task"))
    status: Status = "inconclusive"
    if len(by_verdict["supports"]) > half:
        status = "pass"
    elif len(by_verdict["contradicts"]) >= half:
        status = "fail"
    one = len(counted) == 1 and not pd.isna(counted["low"].iloc[0])
    value, low, high = (float(counted[c].iloc[0]) if one else None for c in ("value", "low", "high"))
    return Finding(
        code=code,
        status=status,
        claim=f"{BEGINS[status]}: {words.says}: {said}{_aside(rows, tasks)}.",
        analysis=_NAME,
        value=value,
        low=low,
        high=high,
        unit=f"% of {NORMS[str(counted['scale'].iloc[0])]}'s" if one else "",
        expected=words.expected,
        expected_from=words.expected_from,
        threshold=_threshold(words.superior),
        causes=_CAUSES,
        remedies=_REMEDIES,
        reference=f"{_PAPER} (1911.07013)",
        details=_details(rows),
    )


def _aside(rows: pd.DataFrame, tasks: pd.DataFrame) -> str:
    """Say over how many seeds, which tasks do not count, and which runs diverged."""
    least, most = int(tasks["n"].min()), int(tasks["n"].max())
    said = f"; {least if least == most else f'{least} to {most}'} seed{'s' if most > 1 else ''} a norm"
    shallow = list(rows.loc[rows["counted"] == 0, "task"].unique())
    if shallow:
        said += f"; not counted, with fewer than {limit('GL505', 'deep'):g} blocks: {listed(shallow)}"
    broken = tasks.loc[tasks["diverged"] > 0, "task"]
    return said + (f"; runs diverged on {listed(list(broken))}" if len(broken) else "")


def _threshold(superior: bool) -> str:
    margin = percent(limit("GL501", "margin"), 0)
    bar = "0" if superior else f"−{margin} of LayerNorm's score"
    return (
        f"a task supports where the 95 % interval of the paired difference lies above {bar}, contradicts where it lies "
        "below; with a divergence, where all seeds agree; more than half of the tasks must support, and where half "
        "contradict it fails"
    )


def _details(rows: pd.DataFrame) -> dict[str, Any]:
    """Return every comparison under its task, with None for what does not exist."""
    return {
        str(task): {
            "verdict": str(own["on_task"].iloc[0]),
            "counted": bool(own["counted"].iloc[0]),
            "comparisons": [
                {key: None if pd.isna(cell) else cell for key, cell in row.items() if key not in ("code", "task")}
                for row in own.to_dict("records")
            ],
        }
        for task, own in rows.groupby("task", sort=False)
    }
