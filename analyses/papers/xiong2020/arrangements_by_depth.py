"""Stream and gradient of all arrangements block by block, and how far what theory says of them is off."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analyses.intervals import Interval, log_t_interval
from analyses.papers.findings import question
from analyses.papers.measured import (
    ARRANGEMENTS,
    W2,
    arrangement,
    depth,
    gradients,
    initial,
    of,
    profile,
    streams,
    widest,
)
from analyses.papers.prediction import Predicted, predicted
from analyses.papers.profiles import MEASURED, PREDICTED, curve, over
from analyses.papers.xiong2020.arrangements_figure import plot
from analyses.papers.xiong2020.arrangements_findings import FARTHEST, TYPICAL, judge
from analyses.tables import ABSENT, SUMMARY, number, percent, pick, tidy
from gradlens.recording import Recording

#: What is predicted.
KINDS = ("stream", "gradient")
STATISTICS = {"median": 0.5, "95th percentile": 0.95}
_RESAMPLES = 500
#: Networks from which on an interval over them says something.
_LEAST_NETWORKS = 4


def compute(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Return q_l and ‖dL/dW2_l‖ of the deepest decoders, and the relative errors of theory over all networks.

    Args:
        recordings: of any kind; those at initialization count that have the greatest width there is, for the theory
            is one of wide networks.

    Returns:
        Panels ``stream`` and ``gradient``: measured and predicted by block. Panel ``errors``: a row an arrangement,
        ``group`` (what is predicted) and statistic. Panel ``summary``: the statistics over everything, with their
        interval over networks; ``last/first`` and ``last stream`` of the drawn ones; ``not predicted``, the number of
        networks outside of the theory, with the reason as ``label``.
    """
    found = initial(recordings)
    decoders = widest([r for r in found if r in initial(recordings, "decoder")])
    deepest = {arrangement(recording): recording for recording in decoders}  # by depth: the last one stays
    rows = [row for recording in deepest.values() for row in _drawn(recording)]
    return tidy([*rows, *_errors(widest(found))])


def _drawn(recording: Recording) -> Iterator[dict[str, Any]]:
    theory, fixed = predicted(recording), of(recording)
    summary: dict[str, Any] = {**fixed, "panel": SUMMARY, "x": depth(recording)}
    measured = {"stream": streams(recording)[""], "gradient": profile(gradients(recording), "", W2)}
    curves = {"stream": theory.streams.get(""), "gradient": theory.gradients.get(("", W2))}
    for panel in KINDS:
        yield from over(measured[panel], **fixed, panel=panel, quantity=MEASURED)
        yield from curve(curves[panel], **fixed, panel=panel, quantity=PREDICTED)
    q, g = measured["stream"], measured["gradient"]
    yield {**summary, "quantity": "last stream", **log_t_interval(q.iloc[:, -1]).row()}
    yield {**summary, "quantity": "last/first", **log_t_interval(g.iloc[:, -1] / g.iloc[:, 0]).row()}
    stream, gradient = curves["stream"], curves["gradient"]
    if stream is not None and gradient is not None:
        yield {**summary, "quantity": "last stream, theory", "value": stream.iloc[-1]}
        yield {**summary, "quantity": "last/first, theory", "value": gradient.iloc[-1] / gradient.iloc[0]}


def _errors(recordings: Sequence[Recording]) -> Iterator[dict[str, Any]]:
    """Yield the statistics of the relative errors, by arrangement and over everything."""
    off: list[pd.DataFrame] = []
    outside: dict[str, int] = {}
    for index, recording in enumerate(recordings):
        theory = predicted(recording)
        if theory.outside:
            outside[theory.outside] = outside.get(theory.outside, 0) + 1
        else:
            off.append(_of_network(recording, theory).assign(network=index, variant=arrangement(recording)))
    yield from (
        {"panel": SUMMARY, "quantity": "not predicted", "label": reason, "value": count, "n": len(recordings)}
        for reason, count in outside.items()
    )
    if not off:
        return
    errors = pd.concat(off)
    for (variant, kind), own in errors.groupby(["variant", "kind"], sort=False):
        fixed = {"panel": "errors", "label": ARRANGEMENTS[str(variant)], "variant": variant, "group": kind}
        for name, share in STATISTICS.items():
            yield {**fixed, "quantity": name, "value": own["error"].quantile(share), "n": len(own)}
    for kind in (*KINDS, "everything"):
        own = errors if kind == "everything" else errors[errors["kind"] == kind]
        parts = [part["error"].to_numpy() for _, part in own.groupby("network")]
        for name, share in STATISTICS.items():
            fixed = {"panel": SUMMARY, "quantity": name, "group": kind}
            yield {**fixed, **over_networks(parts, share).row(), "n": len(own), "x": len(parts)}


def _of_network(recording: Recording, theory: Predicted) -> pd.DataFrame:
    """Return the relative error of everything that is predicted of a network, of the mean over seeds.

    Predicted are second moments and energies: seeds are averaged as such, gradient norms by their root mean square.
    """
    table, measured = gradients(recording), streams(recording)
    ratios = [("stream", measured[stack].mean() / said) for stack, said in theory.streams.items()]
    for (stack, group), said in theory.gradients.items():
        energy = (profile(table, stack, group) ** 2).mean()
        ratios.append(("gradient", (energy / said**2) ** 0.5))
    errors = [
        pd.DataFrame({"kind": kind, "error": (ratio.drop(0, errors="ignore") - 1).abs()}) for kind, ratio in ratios
    ]
    return pd.concat(errors).dropna()


def over_networks(parts: Sequence[np.ndarray], share: float) -> Interval:
    """Return a quantile of all numbers with its bootstrap interval over networks, which are drawn whole.

    The numbers of one network stand or fall together. The random numbers are fixed.

    Args:
        parts: a network each.
        share: the quantile's.
    """
    value = float(np.quantile(np.concatenate(parts), share))
    if len(parts) < _LEAST_NETWORKS:
        return Interval(value, np.nan, np.nan, len(parts))
    draws = np.random.default_rng(0).integers(len(parts), size=(_RESAMPLES, len(parts)))
    found = [np.quantile(np.concatenate([parts[k] for k in draw]), share) for draw in draws]
    low, high = np.quantile(found, (0.025, 0.975))
    return Interval(value, float(low), float(high), len(parts))


def _show(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return stream and gradient of the deepest decoders beside theory, and its errors, a row an arrangement."""
    drawn = pick(table, panel=SUMMARY, quantity="last/first")
    if drawn.empty:
        return {}
    rows = [
        {
            "arrangement": row["label"],
            "blocks": f"{row['x']:.0f}",
            "stream": _beside(table, row["variant"], "last stream"),
            "gradient, last/first": _beside(table, row["variant"], "last/first"),
            **{f"error, {kind}": _off(table, str(row["variant"]), kind) for kind in KINDS},
        }
        for _, row in drawn.iterrows()
    ]
    caption = (
        "The stream's second moment after the last block, and the gradient norm of W2 in the last block over that in "
        "the first, of the deepest decoders: measured (theory). Relative errors of theory over all networks of the "
        "arrangement: median (95th percentile)."
    )
    return {caption: pd.DataFrame(rows)}


def _beside(table: pd.DataFrame, variant: str, quantity: str) -> str:
    own = pick(table, panel=SUMMARY, variant=variant)
    theory = pick(own, quantity=f"{quantity}, theory")["value"]
    said = ABSENT if theory.empty else number(theory.iloc[0])
    return f"{number(pick(own, quantity=quantity)['value'].iloc[0])} ({said})"


def _off(table: pd.DataFrame, variant: str, kind: str) -> str:
    own = pick(table, panel="errors", variant=variant, group=kind).set_index("quantity")["value"]
    return ABSENT if own.empty else f"{percent(own['median'])} ({percent(own['95th percentile'])})"


ANALYSIS = question(
    TYPICAL,
    FARTHEST,
    title="All arrangements, and what theory says of them",
    question="How do stream and gradients change with depth in each arrangement, and does theory predict them?",
    reading=(
        "Above, the deepest decoders: the second moment of the stream after each block, where a norm at the block's "
        "end has not reset it, and the gradient norm of W2 by block; means over seeds (geometric) in their 95 % "
        "intervals, dotted what theory says. Below, how far theory is off, over every stream and every matrix of all "
        "networks at initialization: the median of the relative error (mark) and its 95th percentile (end of the "
        "line); dotted, what is asked of both. The errors hold the noise of the few seeds too."
    ),
    needs={"params": ("step", "name", "grad_norm"), "activations": ("step", "site", "tensor", "rms")},
    compute=compute,
    plot=plot,
    show=_show,
    judge=judge,
    kinds=("init",),
    size=(6.7, 5.6),
    optional=True,
)
