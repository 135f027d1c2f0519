"""What ``xiong2020_learning_rate_limits`` says: how often the edge of stability (GL615) or a trial (GL619) is right."""

from dataclasses import dataclass

import pandas as pd

from analyses.limits import limit
from analyses.papers.findings import BEGINS, Code
from analyses.papers.measured import ARRANGEMENTS
from analyses.papers.xiong2020.runs import optimizer_name
from analyses.tables import SUMMARY, pick
from gradlens.analysis import Finding, Status


@dataclass(frozen=True, kw_only=True)
class Predictor(Code):
    """A way to predict the limit; ``words`` is its name in a sentence."""

    words: str
    analysis: str = "xiong2020_learning_rate_limits"
    unit: str = "share of pairs"
    expected: float | str | None = 1.0
    remedies: tuple[str, ...] = ("Predict the limit again after some steps; try more seeds.",)


_RIGHT = (
    "A prediction counts as right where no run at half of it diverges and every run at eight times it does. Diverged "
    "is a run that the trainer stopped as such, or whose training loss at its end is not below that of its first step."
)
#: By its name in a recording. Both are held against the thresholds of GL615.
PREDICTORS = {
    "edge": Predictor(
        code="GL615",
        words="the edge of stability at initialization",
        explanation=(
            "The edge of stability at initialization predicts the learning rate's limit. For every arrangement and "
            "optimizer the largest stable learning rate is predicted from the curvature at initialization, before the "
            f"first step. {_RIGHT}"
        ),
        expected_from="the curvature at initialization, preconditioned as the optimizer does",
        causes=(
            "The loss' curvature changes in the first steps, up or down: the limit at the start is not that later.",
            "Adam's preconditioner at the start is made of a few gradients.",
            "A run far above the limit may leap into a flat region and train on (a catapult).",
        ),
        reference="Cohen et al. 2022 (2207.14484); Kalra & Barkeshli 2024 (2406.09405)",
    ),
    "trial": Predictor(
        code="GL619",
        words="a trial of 20 steps",
        explanation=(
            "A trial of 20 steps predicts the learning rate's limit. For every arrangement and optimizer the largest "
            f"learning rate that 20 steps from the initialization survive is searched by factors of two. {_RIGHT}"
        ),
        expected_from="20 steps on copies of the model from its initialization, at one learning rate after another",
        causes=(
            "A run is longer than a trial, and can diverge after it.",
            "A trial sees a few batches again and again.",
            "A learning rate at which the loss has risen after 20 steps may train in the end.",
        ),
        reference="gradlens.probes.trial",
    ),
}


def judge(table: pd.DataFrame) -> list[Finding]:
    """Return a finding a predictor: how often it is right; a count of runs, so there is no interval."""
    tried = pick(table, panel=SUMMARY)
    return [
        _judged(predictor, own, pick(table, panel="runs", schedule=by))
        for by, predictor in PREDICTORS.items()
        if len(own := pick(tried, schedule=by))
    ]


def _judged(by: Predictor, tried: pd.DataFrame, runs: pd.DataFrame) -> Finding:
    below, above, share, pairs = (limit("GL615", name) for name in ("below", "above", "share", "pairs"))
    right, few = int(tried["value"].sum()), len(tried) < pairs
    safe, over = runs[runs["x"] <= below]["value"], runs[runs["x"] >= above]["value"]
    status: Status = "inconclusive" if few else "pass" if right >= share * len(tried) else "warn"
    wrong = [f"{ARRANGEMENTS[row['variant']]}, {optimizer_name(row['group'])}"
             for _, row in tried[tried["value"] == 0].iterrows()]  # fmt: skip
    but = f"; not for {'; '.join(wrong)}" if wrong else ""
    return by.finding(
        status,
        f"{'Too few pairs to tell' if few else BEGINS[status]}: with the limit predicted by {by.words}, for "
        f"{right} of {len(tried)} pairs of arrangement and optimizer no run at {below:g} times it diverges and "
        f"every run at {above:g} times it does ({int((safe == 0).sum())} of {len(safe)} runs train below, "
        f"{int(over.sum())} of {len(over)} diverge above{but}).",
        value=right / len(tried),
        threshold=f"at least {share:.0%} of {pairs:g} pairs or more".replace("%", " %"),
        details={"trained below": float((safe == 0).mean()), "diverged above": float(over.mean())},
    )
