"""What happened in training: the loss, the size of the gradient, and its balance over depth, step by step."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analyses.advice import known
from analyses.depth import WHOLE, gradient_by_block
from analyses.findings.training_curves import CODES, judge
from analyses.intervals import block_bootstrap_interval, t_interval
from analyses.limits import limit
from analyses.run_ends import broken_steps, endings
from analyses.steps import smoothed
from analyses.tables import identity, tidy
from analyses.training_figure import READING, SIZE, caption, plot
from gradlens.analysis import Analysis
from gradlens.analysis.ending import at_the_end, span_of_steps
from gradlens.recording import Recording

_WARMUP_SETTINGS = ("warmup", "decay_from")


def compute(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Return loss, gradient norm and gradient ratio over steps, raw and smoothed, and the numbers judged.

    Args:
        recordings: those that are not of kind ``init`` are used.
    """
    runs = [r for r in recordings if r.meta.get("kind") != "init" and len(r.steps)]
    return tidy([*(row for run in runs for row in _rows(run)), *_warmup_gains(runs)])


def _rows(run: Recording) -> Iterator[dict[str, Any]]:
    who, steps = identity(run), run.steps.set_index("step").sort_index()
    task = run.meta.get("task") or {}
    unit = str(task.get("unit", "")) or "its own unit"
    broken = broken_steps(run, steps)
    sound = steps.drop(index=broken)  # the gradients of a loss that is no number are none either
    yield from _curve(sound["loss"], "loss", unit, who)
    yield from _curve(sound["grad_norm"], "gradient norm", "loss/weight", who)
    yield from _balance(run, broken, who)
    if "valid_loss" in steps:
        valid = steps["valid_loss"].dropna()
        fixed = {**who, "panel": "loss", "quantity": "held out", "unit": unit}
        yield from ({**fixed, "x": step, "value": value} for step, value in valid.items())
    yield from ({**who, "panel": "summary", **row} for row in (*endings(run, steps, broken), *known(run)))
    yield from _losses(sound["loss"].dropna(), task, who)
    yield from _spikes(sound["grad_norm"], who)


def _curve(series: pd.Series, panel: str, unit: str, who: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    finite = series[np.isfinite(series)]
    for quantity, values in (("raw", finite), ("smoothed", smoothed(finite, geometric=panel != "loss"))):
        fixed = {**who, "panel": panel, "quantity": quantity, "unit": unit}
        yield from ({**fixed, "x": step, "value": value} for step, value in values.items())


def _balance(run: Recording, broken: Sequence[int], who: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Yield the last block's gradient norm over the first block's, in the model's last stack."""
    gradients = gradient_by_block(run)
    whole = gradients[(gradients["group"] == WHOLE) & ~gradients["step"].isin(broken)]
    stack = whole[whole["stack"] == whole["stack"].iloc[-1]] if len(whole) else whole
    blocks = stack.pivot(index="step", columns="block", values="grad_norm")
    if len(blocks.columns) < 2:
        return
    first, last = blocks.iloc[:, 0], blocks.iloc[:, -1]
    ratio = (last / first).where((first > 0) & (last > 0)).dropna()
    yield from _curve(ratio, "gradient ratio", "", who)
    if ratio.empty:
        return
    end = at_the_end(ratio)
    times = block_bootstrap_interval(np.log(end)).mapped(math.exp)
    factor = times.mapped(lambda value: value ** (1 / (len(blocks.columns) - 1)))
    fixed = {**who, "panel": "summary", "group": span_of_steps(end)}
    for quantity, interval in (("ratio", times), ("factor a block", factor)):
        yield {**fixed, "quantity": f"gradient {quantity} at the end", **interval.row()}


def _losses(loss: pd.Series, task: Mapping[str, Any], who: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Yield the loss at the end, and that of a model that knows only how often each token occurs."""
    if loss.empty:
        return
    fixed, unit, end = {**who, "panel": "summary"}, str(task.get("unit", "")), at_the_end(loss)
    interval = block_bootstrap_interval(end).row()
    yield {**fixed, "quantity": "loss at the end", "group": span_of_steps(end), "unit": unit, **interval}
    if bits := task.get("unigram_bits"):
        nats = float(bits) * math.log(2)
        yield {**fixed, "quantity": "frequencies alone", "value": nats, "unit": unit}
        line = {**who, "panel": "loss", "quantity": "frequencies alone", "value": nats, "unit": unit}
        yield from ({**line, "x": step} for step in (loss.index.min(), loss.index.max()))


def _spikes(gradient: pd.Series, who: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Yield the largest gradient norm over the running median before it, and every spike."""
    gradient = gradient[np.isfinite(gradient)]
    memory = int(limit("GL303", "memory"))
    before = gradient.rolling(memory).median().shift(1)
    times = (gradient / before.where(before > 0)).dropna()
    if times.empty:
        return
    spikes = times[times > limit("GL303", "spike")]
    worst = {"value": times.max(), "x": times.idxmax(), "n": len(times)}
    yield {**who, "panel": "summary", "quantity": "largest gradient over its median", **worst}
    for step in spikes.index:
        yield {**who, "panel": "gradient norm", "quantity": "spike", "x": step, "value": gradient[step]}


def _warmup_gains(runs: Sequence[Recording]) -> Iterator[dict[str, Any]]:
    """Yield for each variant the loss without warm-up less that with it, over the latter, at the end.

    Runs are paired that differ in nothing but the warm-up; they saw the same batches. The interval is over
    pairs where there are several, else over the last steps of the one pair (of that seed only).
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
            yield {
                **fixed,
                "group": f"{len(found)} pairs of runs",
                **t_interval([gain.mean() for gain in series]).row(),
            }
        else:
            over = f"{span_of_steps(series[0])} of one pair"
            yield {**fixed, "group": over, **block_bootstrap_interval(series[0]).row()}


def _settings(run: Recording) -> str:
    """Return seeds and settings of a run but for its warm-up, as text that compares."""
    training = {k: v for k, v in (run.meta.get("training") or {}).items() if k not in _WARMUP_SETTINGS}
    return json.dumps([run.meta.get("seeds"), training, run.meta.get("model")], sort_keys=True, default=str)


def _gain(with_warmup: Recording, without: Recording) -> pd.Series:
    """Return the paired gain over the last steps; empty where either run did not come to its end."""
    if {with_warmup.meta.get("status"), without.meta.get("status")} != {"complete"}:
        return pd.Series(dtype="float64")
    losses = [r.steps.set_index("step")["loss"] for r in (with_warmup, without)]
    paired = pd.concat(losses, axis=1, keys=["with", "without"]).dropna()
    end = paired.loc[at_the_end(paired["with"]).index]
    return (end["without"] - end["with"]) / end["with"].mean()


ANALYSIS = Analysis(
    name="training_curves",
    title="Training",
    question="Did each variant learn, did it need the warm-up, and what happened to its gradients meanwhile?",
    reading=" ".join(READING.values()),
    caption=caption,
    needs={"steps": ("step", "loss", "grad_norm"), "params": ("step", "name", "grad_norm")},
    compute=compute,
    plot=plot,
    judge=judge,
    kinds=("training", "attached"),
    size=SIZE,
    codes=CODES,
    reference="Xiong et al. 2020 (2002.04745), Figs. 2 and 3",
)
