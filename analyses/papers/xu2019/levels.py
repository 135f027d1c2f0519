"""What ``xu2019_scores`` says: GL500, whether a task is real work at its budget; GL514, whether a norm helps at all."""

from typing import NamedTuple

import pandas as pd

from analyses.limits import limit
from analyses.papers.findings import Code
from analyses.papers.xu2019.metrics import metrics
from analyses.tables import first, listed, percent, pick
from gradlens.analysis import Finding, Status

LEVEL = Code(
    code="GL500",
    analysis="xu2019_scores",
    explanation=(
        "The task is real work. A comparison of norms says something only where the networks have learned the task: "
        "with LayerNorm, the paper's starting point, each task must reach a level that no trivial model reaches. "
        "Below it the norms are compared early in training, which is another question than the paper's."
    ),
    expected_from="a level that a model which has learned the task exceeds, and a trivial one does not",
    causes=("Too few steps for this task: a small budget.", "A network or data set smaller than the paper's."),
    remedies=("Train longer: a larger budget (--budget medium or --budget paper).",),
    reference="Xu et al. 2019 (1911.07013)",
)


NEEDED = Code(
    code="GL514",
    analysis="xu2019_scores",
    explanation=(
        "A norm helps at all. Where a network without any norm scores best, there is little that one norm could do "
        "better than another: the paper's claims are then tested on networks that do not need what they are about."
    ),
    unit="tasks",
    expected="1 of 8",
    expected_from="the paper's table, where that is so on Enwiki8 alone",
    threshold="best without a norm on fewer than half of the tasks",
    causes=(
        "Networks shallower or narrower than the paper's, or trained for fewer steps: they train without a norm.",
        "Learning rates that every variant bears: a norm's worth is a higher one.",
    ),
    remedies=("Train deeper networks for longer (--budget paper).",),
    reference="Xu et al. 2019 (1911.07013)",
)


class _Level(NamedTuple):
    quantity: str
    name: str
    least: bool  # whether the level is to be exceeded, not to be kept below


_LEVELS = {
    "images": _Level("accuracy", "accuracy", True),
    "sentences": _Level("accuracy", "accuracy", True),
    "parsing": _Level("las", "LAS", True),
    "lm": _Level("share of unigram entropy", "the bits per byte, over the entropy of single bytes,", False),
}


def judge(table: pd.DataFrame) -> list[Finding]:
    """Return one finding a task."""
    tasks = list(pick(table, quantity="diverged")["panel"].unique())
    if not tasks:
        return [LEVEL.silent("No run of the paper's grid came to its end.")]
    return [*(_reached(table, task) for task in tasks), _needed(table, tasks)]


def _needed(table: pd.DataFrame, tasks: list[str]) -> Finding:
    """GL514: a fact about the table, by the means that it shows."""
    compared, best = [], []
    for task in tasks:
        metric = metrics(task)[0]
        scores = pick(table, panel=task, quantity=metric.column).dropna(subset="value").set_index("variant")["value"]
        if "none" in scores and len(scores) > 1:
            compared.append(task)
            best += [task] if (metric.sign * scores).idxmax() == "none" else []
    if not compared:
        return NEEDED.silent("No task has runs with a norm and without any.")
    where = f"on {len(best)} of {len(compared)} task{'s' if len(compared) > 1 else ''}"
    return NEEDED.finding(
        "warn" if 2 * len(best) >= len(compared) else "pass",
        f"Of all variants, the one without any norm scores best {where}{f' ({listed(best)})' if best else ''}.",
        value=float(len(best)),
    )


def _reached(table: pd.DataFrame, task: str) -> Finding:
    """GL500: the mean decides, for the level is a rule of thumb; its interval is told."""
    if task not in _LEVELS:
        return LEVEL.silent(f"{task}: no level is set; its norms are compared by their held-out loss.", subject=task)
    own, level = pick(table, panel=task, variant="layernorm"), _LEVELS[task]
    ended = first(pick(own, quantity="diverged"))
    if ended is None:
        return LEVEL.silent(f"{task}: no run with LayerNorm, whose level is asked for.", subject=task)
    bound, row = limit("GL500", task), first(pick(own, quantity=level.quantity))
    word = f"{'at least' if level.least else 'below'} {_amount(bound, level)}"
    status: Status = "warn"
    if row is None or pd.isna(row["value"]):
        seeds = f"{ended['value']:.0f} of {ended['n']:.0f} runs diverged"
        return _finding(task, level, status, f"LayerNorm has no {level.quantity} at the end ({seeds})", word, None)
    reached = row["value"] >= bound if level.least else row["value"] < bound
    some = f"; {ended['value']:.0f} of {ended['n']:.0f} runs diverged" if ended["value"] else ""
    if reached and not some:
        status = "pass"
    claim = (
        f"the task is {'' if reached else 'not yet '}real work: with LayerNorm {level.name} is "
        f"{_amount(row['value'], level)} at the end of training (asked for: {word}){some}"
    )
    return _finding(task, level, status, claim, word, row)


def _amount(value: float, level: _Level) -> str:
    return f"{value:.1f} %" if level.least else percent(value)


def _finding(task: str, level: _Level, status: Status, claim: str, word: str, row: pd.Series | None) -> Finding:
    return LEVEL.finding(
        status,
        f"{task}: {claim}.",
        subject=task,
        row=row,
        unit="%" if level.least else "",
        expected=word,
        threshold=f"{task}: {word}, mean over seeds",
    )
