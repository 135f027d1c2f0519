"""What happened in training: the loss, the size of the gradient, and its balance over depth, step by step."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analyses.advice import known
from analyses.depth import WHOLE, gradient_by_block
from analyses.intervals import block_bootstrap_interval
from analyses.limits import limit
from analyses.steps import LONG, envelope, smoothed
from analyses.tables import identity, tidy
from analyses.training_curves.loss import levels
from analyses.training_curves.run_end import broken_steps, endings
from analyses.training_curves.warm_up import gains
from gradlens.analysis.ending import at_the_end, span_of_steps
from gradlens.recording import Recording

#: Windows that are in memory at once.
_CHUNK = 4096
#: Steps that the loss begins with, as of GL306.
_START = 5


def compute(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Return loss, gradient norm and gradient ratio over steps, raw and smoothed, and the numbers judged.

    Args:
        recordings: those that are not of kind ``init`` are used.
    """
    runs = [r for r in recordings if r.meta.get("kind") != "init" and len(r.steps)]
    return tidy([*(row for run in runs for row in _rows(run)), *gains(runs)])


def _rows(run: Recording) -> Iterator[dict[str, Any]]:
    who, steps = identity(run), run.steps.set_index("step").sort_index()
    task = run.meta.get("task") or {}
    unit = str(task.get("unit", "")) or "its own unit"
    if len(steps) > LONG:
        yield {**who, "panel": "summary", "quantity": "thinned", "n": len(steps)}
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
    yield from _spikes(sound["grad_norm"], sound["loss"], who)


def _curve(series: pd.Series, panel: str, unit: str, who: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    finite = series[np.isfinite(series)]
    for quantity, values in (("raw", finite), ("smoothed", smoothed(finite, geometric=panel != "loss"))):
        drawn = envelope(values)
        curve = {"x": drawn.index.to_numpy(), "value": drawn.to_numpy()}
        yield {**who, "panel": panel, "quantity": quantity, "unit": unit, **curve}


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
    yield from ({**fixed, **row} for row in levels(loss))
    if bits := task.get("unigram_bits"):
        nats = float(bits) * math.log(2)
        yield {**fixed, "quantity": "frequencies alone", "value": nats, "unit": unit}
        line = {**who, "panel": "loss", "quantity": "frequencies alone", "value": nats, "unit": unit}
        yield from ({**line, "x": step} for step in (loss.index.min(), loss.index.max()))


def _spikes(gradient: pd.Series, loss: pd.Series, who: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Yield the largest gradient norm over the running median before it, and every spike that the loss follows."""
    gradient = gradient[np.isfinite(gradient)]
    memory = int(limit("GL303", "memory"))
    before = gradient.rolling(memory).median().shift(1)
    times = (gradient / before.where(before > 0)).dropna()
    if times.empty:
        return
    spikes = times[times > limit("GL303", "spike")]
    rose = _rises(loss.dropna(), memory)
    worst = {"value": times.max(), "x": times.idxmax(), "n": len(times), "high": len(spikes)}
    yield {**who, "panel": "summary", "quantity": "largest gradient over its median", **worst}
    for step in spikes.index:
        if rose is None or rose[rose.index >= step].head(1 + int(limit("GL303", "after"))).any():
            yield {**who, "panel": "gradient norm", "quantity": "spike", "x": step, "value": gradient[step]}


def _rises(loss: pd.Series, memory: int) -> "pd.Series[bool] | None":
    """Return whether the loss of a step stands out of those before it; None where too few were recorded to tell.

    By more than their usual distance from their median explains, and by a share of what the run has gained in all, from
    its first steps to its best.
    """
    if len(loss) <= memory:
        return None
    median, far = loss.rolling(memory).median().shift(1), limit("GL303", "deviations")
    deviation = 1.4826 * _deviations(loss, memory).shift(1)
    gained = float(loss.head(_START).mean() - loss.min())
    return loss > median + np.maximum(far * deviation, limit("GL303", "gained") * max(gained, 0.0))


def _deviations(series: pd.Series, memory: int) -> pd.Series:
    """Return the median absolute deviation from the median over the last steps; missing where there are fewer."""
    found = np.full(len(series), np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(series.to_numpy(dtype=float), memory)
    for at in range(0, len(windows), _CHUNK):
        part = windows[at : at + _CHUNK]
        apart = np.abs(part - np.median(part, axis=1, keepdims=True))
        found[memory - 1 + at : memory - 1 + at + len(part)] = np.median(apart, axis=1)
    return pd.Series(found, series.index)
