"""How good trained models are on held-out data: the last value of each metric, and a few answers to be read."""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from analyses.tables import identity, pick
from gradlens.recording import Recording
from gradlens.recording.schema import PUBLIC, names

#: ``part``: score or sample; ``number``: the step of a score, the place of a sample; ``name``: of the metric, or of the
#: text; ``value`` or ``text``.
COLUMNS = ("label", "variant", "schedule", "part", "number", "name", "value", "text")
_OWN = frozenset(names(PUBLIC["steps"]))


def compute(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Return the last value of each metric of each run, and the texts of its samples, a row each.

    Args:
        recordings: of training.
    """
    rows = [identity(r) | row for r in recordings for row in (*_scores(r), *_samples(r))]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    table["text"] = table["text"].astype(object).where(table["text"].notna(), "")
    return table.astype({"number": float, "value": float})


def _scores(recording: Recording) -> Iterator[dict[str, Any]]:
    steps = recording.steps.set_index("step")
    for name in steps.columns.difference(list(_OWN), sort=False):
        known = steps[name].dropna()
        if len(known):
            yield {"part": "score", "number": known.index[-1], "name": str(name), "value": known.iloc[-1]}


def _samples(recording: Recording) -> Iterator[dict[str, Any]]:
    for place, sample in enumerate(recording.meta.get("samples") or ()):
        for name, text in sample.items():
            yield {"part": "sample", "number": place, "name": str(name), "text": str(text)}


def show(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return a table of scores, a row a run, and a table of samples a run.

    Args:
        table: of ``compute``.
    """
    shown = {}
    scores = pick(table, part="score")
    if len(scores):
        wide = scores.pivot(index="label", columns="name", values="value")
        wide = wide.loc[scores["label"].unique(), scores["name"].unique()]
        steps = scores.groupby("label", sort=False)["number"].max() + 1
        rows = wide.reset_index().rename(columns={"label": "recording"})
        rows.insert(1, "after steps", steps.to_numpy())
        shown["Metrics on held-out data at the last evaluation."] = rows.rename_axis(columns=None)
    for label, own in pick(table, part="sample").groupby("label", sort=False):
        texts = own.pivot(index="number", columns="name", values="text")[own["name"].unique()]
        answers = texts.reset_index(drop=True).rename_axis(columns=None)
        shown[f"{label}: its answers to held-out questions."] = answers
    return shown
