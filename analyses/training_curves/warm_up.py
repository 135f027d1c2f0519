"""What the warm-up is worth: the gain of pairs of runs, and GL302."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analyses.advice import PRE_LN, arrange_otherwise
from analyses.intervals import block_bootstrap_interval, t_interval
from analyses.limits import held_against
from analyses.making import Check
from analyses.tables import percent, span
from gradlens.analysis import Finding, Status
from gradlens.analysis.ending import at_the_end, span_of_steps
from gradlens.recording import Recording
from gradlens.recording.manifest import SAID_OF_BLOCKS

CHECK = Check(
    code="GL302",
    analysis="training_curves",
    explanation=(
        "What the warm-up is worth. The loss without it less the loss with it, over the last steps of two runs that "
        "saw the same batches, as a share of the latter. A variant that trains as well without it is robust to the "
        "learning rate at the start; one that does not needs the warm-up. The interval over the steps of one pair "
        "holds for that seed, learning rate and length of training."
    ),
    unit="of the loss with it",
    expected="about 0 for Pre-LN, above 0 for Post-LN",
    expected_from="the paper's Fig. 2 (IWSLT14 De-En)",
    threshold="at most {most:g} of the loss with warm-up",
    causes=(
        "Post-LN: gradients near the output are large at initialization, and Adam's first steps are of full size.",
        "A learning rate so low that nobody needs a warm-up, or so high that it does not help.",
        "One seed: the interval is over steps and knows nothing of other seeds.",
    ),
    reference="Xiong et al. 2020 (2002.04745), Fig. 2",
)


def gains(runs: Sequence[Recording]) -> Iterator[dict[str, Any]]:
    """Yield for each variant the loss without warm-up less that with it, over the latter, at the end.

    Runs are paired that differ in nothing but the warm-up; they saw the same batches. The interval is over pairs where
    there are several, else over the last steps of the one pair (of that seed only).

    Args:
        runs: recordings of training.
    """
    keyed = {(r.meta.get("variant"), _settings(r), r.meta.get("schedule")): r for r in runs}
    pairs: dict[str, list[tuple[Recording, Recording]]] = {}
    for (variant, settings, schedule), without in keyed.items():
        partner = keyed.get((variant, settings, "warm-up"))
        if variant and schedule == "no warm-up" and partner is not None:
            pairs.setdefault(str(variant), []).append((partner, without))
    for variant, found in pairs.items():
        fixed = {"label": variant, "variant": variant, "panel": "summary", "quantity": "warm-up gain"}
        series = [_gain(*pair) for pair in found]
        if any(len(gain) == 0 for gain in series):
            yield {**fixed, "group": "diverged", "value": np.nan, "n": len(found)}
        elif len(found) > 1:
            over_pairs = t_interval([gain.mean() for gain in series])
            yield {**fixed, "group": f"{len(found)} pairs of runs", **over_pairs.row()}
        else:
            over = f"{span_of_steps(series[0])} of one pair"
            yield {**fixed, "group": over, **block_bootstrap_interval(series[0]).row()}


def _settings(run: Recording) -> str:
    """Return seeds and settings of a run but for its warm-up, as text that compares."""
    training = {k: v for k, v in (run.meta.get("training") or {}).items() if k not in ("warmup", "decay_from")}
    # Older recordings do not say what is known of the blocks.
    model = {k: v for k, v in (run.meta.get("model") or {}).items() if k not in SAID_OF_BLOCKS}
    return json.dumps([run.meta.get("seeds"), training, model], sort_keys=True, default=str)


def _gain(with_warmup: Recording, without: Recording) -> pd.Series:
    """Return the paired gain over the last steps; empty where either run did not come to its end."""
    if {with_warmup.meta.get("status"), without.meta.get("status")} != {"complete"}:
        return pd.Series(dtype="float64")
    losses = [r.steps.set_index("step")["loss"] for r in (with_warmup, without)]
    paired = pd.concat(losses, axis=1, keys=["with", "without"]).dropna()
    end = paired.loc[at_the_end(paired["with"]).index]
    return (end["without"] - end["with"]) / end["with"].mean()


def worth(row: pd.Series, runs: pd.DataFrame) -> Finding:
    """Return GL302: what the warm-up is worth to a variant.

    Args:
        row: its warm-up gain.
        runs: the summary of the variant's runs.
    """
    variant = str(row["variant"])
    if row["group"] == "diverged":
        status: Status = "inconclusive"
        claim = f"{variant}: a run with or without warm-up did not come to its end, so there is no gain (GL301)."
    else:
        status = held_against(row["low"], row["high"], most=CHECK.limit("most"))
        fine = "trains better without warm-up" if row["high"] < 0 else "trains as well without warm-up"
        verdict = {"pass": fine, "warn": "needs the warm-up"}.get(status, "may need warm-up")
        claim = f"{variant}: {verdict}: without it the loss ends {_difference(row)}, over {row['group']}."
    remedies = (
        "Keep the warm-up.",
        *arrange_otherwise(runs, PRE_LN),
        "Repeat with other seeds and learning rates.",
    )
    return CHECK.finding(status, claim, variant, row, remedies=remedies)


def _difference(row: pd.Series) -> str:
    """Write a relative difference with its interval: higher, lower, or of no certain sign."""
    if pd.isna(row["low"]) or row["low"] > 0 or row["high"] < 0:
        if row["value"] >= 0:
            return f"{percent(row['value'])} higher{span(row, percent, '')}"
        ends = {"low": -row["high"], "high": -row["low"]}
        return f"{percent(-row['value'])} lower{span(ends, percent, '')}"
    mean, least, most = (percent(row[column]).replace("-", "−") for column in ("value", "low", "high"))
    return f"no different: {mean} (95 % CI {least} to {most})"
