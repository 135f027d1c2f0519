"""Fig. 2 of the paper: runs with and without warm-up, and the scores of translation beside the paper's."""

from collections.abc import Iterator, Sequence
from importlib.resources import files
from typing import Any

import pandas as pd

from analyses.intervals import t_interval
from analyses.papers.findings import Code, plural, question
from analyses.papers.xiong2020.paper import PAPER, XIONG
from analyses.papers.xiong2020.runs import OPTIMIZERS, WARM_UPS, optimizer_name, setting_name, warm_up_runs
from analyses.papers.xiong2020.warm_up_figure import plot
from analyses.steps import over_seeds, smoothed
from analyses.tables import ABSENT, SUMMARY, pick, tidy, with_spread
from gradlens.analysis import Finding
from gradlens.recording import Recording

_KEYS = ["task", "variant", "optimizer", "lr", "warm_up"]

DIVERGED = Code(
    code="GL616",
    analysis="xiong2020_warm_up",
    explanation=(
        "Runs that diverged. Of the runs with and without warm-up, each setting of which a seed was stopped as "
        "diverged is named, with the step. A run that diverged is a result: its curve is drawn up to its end, and in "
        "the claims it is worse than any that did not."
    ),
    unit="runs",
    expected="a score",
    expected_from="the paper, Fig. 2; a low one for Post-LN without warm-up",
    threshold="no run that the trainer stopped as diverged",
    reference=XIONG,
)


def compute(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Return the training loss over steps and the scores at the end of every setting.

    Args:
        recordings: of any kind; training runs count, but those at a predicted limit.

    Returns:
        ``variant``; ``group``, task/optimizer; ``schedule``, the learning rate; ``stack``, the warm-up. Panel
        ``curves``: the loss, mean over the seeds that came to their end, and by itself (with a ``label``) of every run
        that diverged. Panel ``summary``: ``valid_loss``, ``bleu``, ``warm-up steps``, ``steps``, ``diverged`` (value
        of n, ``x`` the first step) and ``unfinished``.
    """
    runs = warm_up_runs(recordings)
    # Settings come in the order of the paper's figure: by task, arrangement, optimizer, learning rate, warm-up.
    places = {
        "task": sorted(set(runs["task"]), key=lambda task: (not task.startswith("translation"), task)),
        "variant": list(PAPER),
        "optimizer": [*OPTIMIZERS, *runs["optimizer"]],
        "warm_up": list(WARM_UPS),
    }
    ordered = runs.sort_values(_KEYS, key=lambda c: c.map(places[str(c.name)].index) if c.name in places else c)
    return tidy(row for key, own in ordered.groupby(_KEYS, sort=False) for row in _setting(key, own))


def _setting(key: Any, runs: pd.DataFrame) -> Iterator[dict[str, Any]]:
    task, variant, optimizer, lr, warm_up = key
    who = {"variant": variant, "group": f"{task}/{optimizer}", "schedule": f"{lr:g}", "stack": warm_up}
    ended = runs[runs["ended"]]
    if len(ended) < len(runs):
        yield {**who, "panel": SUMMARY, "quantity": "unfinished", "value": len(runs) - len(ended), "n": len(runs)}
    if ended.empty:
        return
    broke = ended[ended["diverged"]]
    curves = {**who, "panel": "curves", "quantity": "loss", "unit": runs["unit"].iloc[0]}
    yield from over_seeds([_loss(r) for r in ended.loc[~ended["diverged"], "recording"]], curves)
    for recording in broke["recording"]:
        yield from over_seeds([_loss(recording)], {**curves, "label": recording.label})
    fixed = {**who, "panel": SUMMARY}
    # The seeds that are left when others diverged were picked by how they went: an interval would say too much.
    changes = {"low": None, "high": None} if len(broke) else {}
    for quantity in ("valid_loss", "bleu"):
        yield {**fixed, "quantity": quantity, **t_interval(ended[quantity]).row(), **changes}
    first = broke["diverged_at"].min()
    yield {**fixed, "quantity": "diverged", "value": len(broke), "x": first, "n": len(ended), "unit": "runs"}
    yield {**fixed, "quantity": "warm-up steps", "value": runs["warm_up_steps"].iloc[0]}
    yield {**fixed, "quantity": "steps", "value": runs["steps"].iloc[0]}


def _loss(recording: Recording) -> pd.Series:
    """Return the training loss by step, smoothed; for a run that diverged as far as it is finite."""
    return smoothed(recording.steps.set_index("step")["loss"].dropna())


def published() -> pd.DataFrame:
    """Return the paper's BLEU, a row a setting: variant, optimizer, lr, warm_up, bleu.

    The learning rate is the lower or the higher of two, or ``any`` where it is not known of which the number is.
    """
    with files("analyses").joinpath("papers", "xiong2020", "published.csv").open("r", encoding="utf-8") as file:
        return pd.read_csv(file, dtype=str, keep_default_na=False)


def show(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return a row a setting: our scores, and the paper's."""
    ended = pick(table, panel=SUMMARY, quantity="diverged")
    if ended.empty:
        return {}
    rows = []
    for key, own in table[table["panel"] == SUMMARY].groupby(["variant", "group", "schedule", "stack"], sort=False):
        if pick(own, quantity="diverged").empty:
            continue
        variant, group, lr, warm_up = map(str, key)
        task, optimizer = group.split("/")
        steps, warm = (pick(own, quantity=name)["value"].iloc[0] for name in ("steps", "warm-up steps"))
        rows.append(
            {
                "task": task,
                "steps": f"{steps:.0f}",
                "arrangement": PAPER[variant],
                "optimizer": optimizer_name(optimizer),
                "rate": lr,
                "warm-up": f"{warm_up} ({warm:.0f})" if warm else warm_up,
                "held-out loss": _score(own, "valid_loss", 3),
                "BLEU": _score(own, "bleu", 1),
                "paper's BLEU": _papers(table, key),
            }
        )
    unfinished = int(pick(table, quantity="unfinished")["value"].sum())
    left_out = f" {unfinished} unfinished run{'s are' if unfinished > 1 else ' is'} left out." if unfinished else ""
    seeds = ended["n"].max()
    caption = (
        f"Held-out loss in nats per piece at the end, and in translation BLEU, mean over {seeds:.0f} "
        f"seed{plural(seeds)} and half the width of its 95 % interval (where there is more than one). The "
        "rate is the highest learning rate, the number behind a warm-up its steps. The paper's BLEU is that of its "
        "own data (IWSLT14 De-En), network and length of training, at the lower or the higher of its two learning "
        f"rates, as ours, or at one that is not stated; – where no number of it was at hand.{left_out}"
    )
    return {caption: pd.DataFrame(rows)}


def _score(own: pd.DataFrame, quantity: str, digits: int) -> str:
    row, ended = pick(own, quantity=quantity).iloc[0], pick(own, quantity="diverged").iloc[0]
    broke, of, at = int(ended["value"]), int(ended["n"]), ended["x"]
    if broke == of:
        return "diverged" if pd.isna(at) else f"diverged (step {at:.0f})"
    if pd.isna(row["value"]):
        return ABSENT
    return f"{row['value']:.{digits}f} ({broke} of {of} diverged)" if broke else with_spread(row, digits)


def _papers(table: pd.DataFrame, key: Any) -> str:
    """Return the paper's BLEU at the same place: the lower or the higher of two learning rates."""
    variant, group, lr, warm_up = map(str, key)
    task, optimizer = group.split("/")
    if not task.startswith("translation"):
        return ABSENT
    rates = sorted(float(rate) for rate in pick(table, group=group)["schedule"].unique())
    place = "higher" if len(rates) > 1 and float(lr) == rates[-1] else "lower"
    found = pick(published(), variant=variant, optimizer=optimizer, warm_up=warm_up).set_index("lr")["bleu"]
    if place in found:
        return str(found[place])
    return f"{found['any']} (rate not stated)" if "any" in found else ABSENT


def judge(table: pd.DataFrame) -> list[Finding]:
    """GL616: a finding a setting of which a seed diverged, or one that says that none did."""
    ended = pick(table, panel=SUMMARY, quantity="diverged")
    if ended.empty:
        return []
    broke = ended[ended["value"] > 0]
    if broke.empty:
        claim = f"None of the {ended['n'].sum():.0f} runs with and without warm-up diverged."
        return [DIVERGED.finding("pass", claim, value=0.0)]
    return [_broke(row) for _, row in broke.iterrows()]


def _broke(row: pd.Series) -> Finding:
    task, optimizer = row["group"].split("/")
    setting = f"{PAPER[row['variant']]}, {setting_name(task, optimizer, row['schedule'])}, warm-up {row['stack']}"
    at = f" (the first at step {row['x']:.0f})" if pd.notna(row["x"]) else ""
    return DIVERGED.finding(
        "warn",
        f"{setting}: {row['value']:.0f} of {row['n']:.0f} seeds diverged{at}.",
        value=float(row["value"]),
        causes=("A first learning rate too high for this arrangement.",),
        remedies=("Warm the learning rate up, lower it, or use Pre-LN.",),
    )


ANALYSIS = question(
    DIVERGED,
    title="Training with and without warm-up",
    question="How do Post-LN and Pre-LN learn with the whole warm-up, some of it, and none?",
    reading=(
        "A row an arrangement, a column a task, optimizer and learning rate: the training loss (running mean over 5 % "
        "of the recorded steps), mean over seeds in a band, their range. The learning rate falls alike in all runs of "
        "a column, from the end of the whole warm-up on; only the way up differs. Thin, a run that diverged, with a "
        "cross at its end. The data, the network and the length of training are not the paper's, and so neither is the "
        "level of BLEU: what can be compared is which runs learn."
    ),
    needs={"steps": ("step", "loss")},
    compute=compute,
    plot=plot,
    show=show,
    judge=judge,
    kinds=("training",),
    size=(6.7, 3.4),
    reference=f"{XIONG}, section 3.1 and Fig. 2",
    optional=True,
)
