"""The paper's table of scores beside our own: every task, every norm, over seeds."""

from collections.abc import Iterator, Sequence
from importlib.resources import files
from typing import Any

import pandas as pd

from analyses.intervals import t_interval
from analyses.papers.findings import question
from analyses.papers.xu2019.final_scores import scored
from analyses.papers.xu2019.levels import LEVEL, NEEDED, judge
from analyses.papers.xu2019.metrics import METRICS, Metric, metrics
from analyses.papers.xu2019.runs import NORMS, in_order
from analyses.papers.xu2019.scores_figure import plot
from analyses.tables import ABSENT, pick, tidy, with_spread
from gradlens.recording import Recording

#: Columns of a printed table beside the norm's name, letters that its line holds, and those between two columns.
_ACROSS, _LINE, _GAP = 7, 118, 2.4
#: Letters from which on a cell may take a second line.
_LONG_CELL = 13
_BETTER = {True: "+", False: "−"}
_KIND = {"En-De": "BLEU (+)", "De-En": "BLEU (+)", "En-Vi": "BLEU (+)", "Enwiki8": "BPC (−)", "PTB": "(+)"}


def compute(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Return means over seeds with their intervals: scores, losses, divergences and settings by task and norm.

    Where some seeds diverged the means are of the others, and without an interval.

    Args:
        recordings: of training; those that did not come to an end are counted, and otherwise left out.

    Returns:
        A tidy table: ``panel`` is the task, ``variant`` the norm, ``label`` what the paper calls it, ``quantity`` a
        metric's column, ``valid_loss``, ``loss``, ``share of unigram entropy``, ``diverged`` (value: runs, of n),
        ``diverged at`` (the first step at which one did), ``blocks``, ``steps`` or ``unfinished``.
    """
    table = scored(recordings)
    tasks = in_order(table["task"], METRICS)
    return tidy(row for task in tasks for row in _of_task(task, table[table["task"] == task]))


def _of_task(task: str, runs: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for norm in in_order(runs["norm"], NORMS):
        who = {"panel": task, "variant": norm, "label": NORMS[norm]}
        own = runs[runs["norm"] == norm]
        ended = own[own["ended"]]
        if len(ended) < len(own):
            yield {**who, "quantity": "unfinished", "value": len(own) - len(ended), "n": len(own), "unit": "runs"}
        if len(ended):
            yield from ({**who, **row} for row in _of_norm(task, ended))


def _of_norm(task: str, runs: pd.DataFrame) -> Iterator[dict[str, Any]]:
    unit = str(runs["unit"].iloc[0])
    units = {m.column: unit if m.column == "valid_loss" else m.unit for m in metrics(task)}
    units |= {"valid_loss": unit, "loss": unit}
    diverged = runs[runs["diverged"]]
    # The seeds that are left when others diverged were picked by how they went: an interval would say too much.
    changes = {"low": None, "high": None} if len(diverged) else {}
    for quantity, of in units.items():
        yield {"quantity": quantity, "unit": of, **t_interval(runs[quantity]).row(), **changes}
    share = t_interval(runs["share"])
    if share.n:
        yield {"quantity": "share of unigram entropy", **share.row(), **changes}
    yield {"quantity": "diverged", "value": len(diverged), "n": len(runs), "unit": "runs"}
    if len(diverged):
        yield {"quantity": "diverged at", "value": diverged["diverged_at"].min(), "n": len(diverged), "unit": "step"}
    for quantity in ("blocks", "steps"):
        yield from ({"quantity": quantity, "value": v, "n": len(runs)} for v in sorted(set(runs[quantity])))


def published() -> pd.DataFrame:
    """Return the paper's table, a row a number: column, task (of ours; empty where there is none), norm, value."""
    with files("analyses").joinpath("papers", "xu2019", "published.csv").open("r", encoding="utf-8") as file:
        return pd.read_csv(file, dtype=str, keep_default_na=False)


def show(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return our table, the paper's in the same order of rows, the losses at the end, and the settings."""
    ended = pick(table, quantity="diverged")
    if ended.empty:
        return {}
    tasks, norms = list(ended["panel"].unique()), list(NORMS)
    seeds = f"{_range(ended['n'])} seed{'s' if ended['n'].max() > 1 else ''}"
    unfinished = int(pick(table, quantity="unfinished")["value"].sum())
    what = "; ".join(_metric(task, metric) for task in tasks for metric in metrics(task))
    left_out = f" {unfinished} unfinished run{'s are' if unfinished > 1 else ' is'} left out." if unfinished else ""
    caption = (
        f"Our scores at the end of training: {what}. Mean over {seeds} and half the width of its 95 % interval (where "
        "there is more than one). + higher is better, − lower. A norm that diverged says so, with the first step at "
        f"which it did; where only some seeds diverged, the mean is of the others, and has no interval.{left_out}"
    )
    scores = {
        _head(task, metric): [_score(table, task, norm, metric) for norm in norms]
        for task in tasks
        for metric in metrics(task)
    }
    shown = _split(caption, scores, norms)
    theirs = (
        "The paper's scores, on its own data and with its own networks (read from its poster). Our tasks stand in "
        "for its data sets: translation for En-De (translation-de-en for De-En, translation-en-vi for En-Vi), lm for "
        "Enwiki8, sentences for RT, images for MNIST, parsing for PTB. None stands in for SST5, which is left out "
        "here. – stands where no number of the paper was at hand."
    )
    shown[theirs] = _theirs(norms)
    losses = {task: [_losses(table, task, norm) for norm in norms] for task in tasks}
    units = "; ".join(f"{task}, {pick(table, panel=task, quantity='loss')['unit'].iloc[0]}" for task in tasks)
    shown |= _split(f"Training loss / held-out loss at the end, means over seeds. In {units}.", losses, norms)
    shown["What was trained: blocks of one stack, steps, and seeds a norm."] = _settings(table, tasks)
    return shown


def _split(caption: str, columns: dict[str, list[str]], norms: list[str]) -> dict[str, pd.DataFrame]:
    """Return tables that a page is wide enough for, their columns shared out from the left."""
    names = [NORMS[norm] for norm in norms]
    parts: list[dict[str, list[str]]] = []
    room = 0.0
    for head, cells in columns.items():
        width = _GAP + max(len(head), *(min(len(cell), _LONG_CELL) for cell in cells))
        if width > room or len(parts[-1]) > _ACROSS:
            parts.append({"norm": names})
            room = _LINE - _GAP - max(map(len, names))
        parts[-1][head] = cells
        room -= width
    captions = [caption, *(f"Continued ({k} of {len(parts)}): {caption}" for k in range(2, len(parts) + 1))]
    return {text: pd.DataFrame(part) for text, part in zip(captions, parts, strict=True)}


def _head(task: str, metric: Metric) -> str:
    """Name task, metric and direction as shortly as can be: the columns share one line."""
    first = metric == metrics(task)[0]
    pair = task.removeprefix("translation").removeprefix("-")
    words = (task if first else pair, metric.short, f"({_BETTER[metric.higher]})")
    return " ".join(word for word in words if word)


def _metric(task: str, metric: Metric) -> str:
    unit = f" in {metric.unit}" if metric.unit not in ("", metric.name) else ""
    return f"{task}, {metric.name}{unit}"


def _score(table: pd.DataFrame, task: str, norm: str, metric: Metric) -> str:
    """Write a cell: the mean with half its interval, or that and where the norm diverged."""
    own = pick(table, panel=task, variant=norm)
    ended = pick(own, quantity="diverged")
    if ended.empty:
        return ABSENT
    broken, of = int(ended["value"].iloc[0]), int(ended["n"].iloc[0])
    if broken == of:
        at = pick(own, quantity="diverged at")["value"].iloc[0]
        return "diverged" if pd.isna(at) else f"diverged (step {at:.0f})"
    row = pick(own, quantity=metric.column).iloc[0]
    text = _digits(row["value"], metric.digits)
    if broken:
        return f"{text} ({broken} of {of} diverged)"
    return text if pd.isna(row["low"]) else with_spread(row, metric.digits)


def _losses(table: pd.DataFrame, task: str, norm: str) -> str:
    own = pick(table, panel=task, variant=norm)
    ended = pick(own, quantity="diverged")
    if ended.empty:
        return ABSENT
    if ended["value"].iloc[0] == ended["n"].iloc[0]:
        return "diverged"
    return " / ".join(_digits(pick(own, quantity=q)["value"].iloc[0], 3) for q in ("loss", "valid_loss"))


def _digits(value: float, digits: int) -> str:
    return ABSENT if pd.isna(value) else f"{value:.{digits}f}"


def _theirs(norms: list[str]) -> pd.DataFrame:
    numbers = published()
    numbers = numbers[numbers["task"] != ""]
    cells: dict[str, list[str]] = {"norm": [NORMS[norm] for norm in norms]}
    for column, own in numbers.groupby("column", sort=False):
        by_norm = dict(zip(own["norm"], own["value"], strict=True))
        head = f"{column} {_KIND.get(str(column), '% (+)')}"
        cells[head] = [by_norm.get(norm, ABSENT) for norm in norms]
    return pd.DataFrame(cells)


def _settings(table: pd.DataFrame, tasks: list[str]) -> pd.DataFrame:
    rows = []
    for task in tasks:
        own = pick(table, panel=task)
        values = {name: pick(own, quantity=name)["value"] for name in ("blocks", "steps")}
        seeds = pick(own, quantity="diverged")["n"]
        rows.append({"task": task, **{k: _range(v) for k, v in values.items()}, "seeds": _range(seeds)})
    return pd.DataFrame(rows)


def _range(values: pd.Series) -> str:
    least, most = int(values.min()), int(values.max())
    return f"{least}" if least == most else f"{least} to {most}"


ANALYSIS = question(
    LEVEL,
    NEEDED,
    title="The paper's table, and ours",
    question="How good does each norm become on each task, and how does that compare with the paper's table?",
    reading=(
        "Each panel is a task, each row a norm: the mean over seeds at the end of training and its 95 % interval over "
        "seeds, where there is more than one. A norm that diverged is marked by a cross at the worse edge. The data "
        "sets and networks are not the paper's: what can be compared is which norms are better, not the level. The "
        "paper does not say which score its parser is given; ours is LAS, and the translations are compared by "
        "held-out loss, with BLEU beside it in the table."
    ),
    needs={"steps": ("step", "loss")},
    kinds=("training",),
    compute=compute,
    plot=plot,
    show=show,
    judge=judge,
    size=(6.7, 2.6),
    reference="Xu et al. 2019 (1911.07013), the table of all norms and data sets",
)
