"""How gradients and the stream change with depth at initialization, and what theory says."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analyses.advice import known
from analyses.depth import GRADIENT_UNIT, W2, WHOLE, gradient_by_block, stream_by_depth
from analyses.depth_profile.prediction import PREDICTED, Prediction
from analyses.depth_profile.theory import DepthTheory
from analyses.intervals import log_t_interval
from analyses.tables import identity, tidy
from gradlens.recording import Recording


def compute(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Return gradient norms by block and group, stream rms by depth, their theory, and the numbers judged.

    Args:
        recordings: those of kind ``init`` are used; their steps are seeds.
    """
    found = [(r, gradient_by_block(r), stream_by_depth(r)) for r in recordings if r.meta.get("kind") == "init"]
    stacks = [part for _, gradients, _ in found for _, part in gradients.groupby("stack")]
    main = W2 if stacks and all((part["group"] == W2).any() for part in stacks) else WHOLE
    return tidy(row for recording, g, q in found for row in _rows(recording, g, q, main))


def _rows(recording: Recording, gradients: pd.DataFrame, stream: pd.DataFrame, main: str) -> Iterator[dict[str, Any]]:
    theory, prediction = DepthTheory(recording.meta.get("model") or {}), Prediction(recording)
    for stack in dict.fromkeys([*gradients["stack"], *stream["stack"]]):
        here = identity(recording) | {"stack": stack}
        g = gradients[gradients["stack"] == stack]
        q = stream[stream["stack"] == stack].pivot(index="step", columns="depth", values="second_moment")
        profiles = {group: _profile(g, group) for group in dict.fromkeys(g["group"])}
        for group, profile in profiles.items():
            panel = "gradient" if group == main else "groups"
            fixed = here | {"panel": panel, "group": group, "unit": GRADIENT_UNIT}
            yield from _curves(profile, prediction.gradient(stack, group), fixed)
            yield from _ratios(profile, group == main, here | {"panel": "summary", "group": group})
        fixed, rms = here | {"panel": "stream", "group": theory.arrangement}, np.sqrt(q)
        yield from _curves(rms, prediction.stream(stack), fixed)
        yield from ({**fixed, "quantity": "lemma 2", **row} for row in theory.lemma2(stack, list(q.columns)))
        fixed = here | {"panel": "summary", "group": theory.arrangement if theory.applies else ""}
        yield from ({**fixed, **row} for row in theory.stream_summary(stack, q))
        fixed = here | {"panel": "summary"}
        yield from ({**fixed, **row} for row in (*prediction.summary(stack, profiles, rms), *known(recording)))
        predicted = prediction.gradient(stack, main)
        if len(predicted) > 1 and predicted[1] > 0:
            factor = (predicted[len(predicted)] / predicted[1]) ** (1 / (len(predicted) - 1))
            yield {**fixed, "quantity": "predicted factor a block", "group": main, "value": factor}
        if main == W2 and W2 in profiles:
            curve, summary = theory.law(stack, profiles[W2], q)
            fixed = here | {"panel": "gradient", "quantity": "law", "group": W2, "unit": GRADIENT_UNIT}
            yield from ({**fixed, "x": x, "value": value} for x, value in curve.items() if not predicted)
            yield from ({**here, "panel": "summary", "group": W2, **row} for row in summary)


def _curves(
    measured: pd.DataFrame, predicted: Mapping[int, float], fixed: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """Yield what was measured [seeds, places], geometric means with their intervals, and what is predicted there."""
    yield from ({**fixed, "quantity": "measured", "x": x, **log_t_interval(measured[x]).row()} for x in measured)
    yield from ({**fixed, "quantity": PREDICTED, "x": x, "value": value} for x, value in predicted.items())


def _profile(gradients: pd.DataFrame, group: str) -> pd.DataFrame:
    """Return gradient norms [seeds, blocks]; the columns are block numbers from 1."""
    rows = gradients[gradients["group"] == group]
    return rows.pivot(index="step", columns="block", values="grad_norm").rename(columns=lambda block: int(block) + 1)


def _ratios(profile: pd.DataFrame, main: bool, fixed: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Yield the ratio of gradient norms, last block over first; of the main group also the factor a block.

    Where there is no ratio, because the gradient is 0 in the first or the last block, yield of the main group how many
    blocks have none.
    """
    blocks = len(profile.columns)
    if blocks < 2:
        return
    positive = profile.where(profile > 0)
    ratio = log_t_interval(positive.iloc[:, -1] / positive.iloc[:, 0])
    if not ratio.n:
        if main:
            yield {**fixed, "quantity": "blocks without gradient", "value": positive.isna().all().sum(), "n": blocks}
        return
    yield {**fixed, "quantity": "gradient ratio last/first", **ratio.row()}
    if main:
        factor = ratio.mapped(lambda end: end ** (1 / (blocks - 1)))
        yield {**fixed, "quantity": "gradient factor a block", **factor.row()}
