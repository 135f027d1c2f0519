"""What a run shows while it is written, in a few lines for a terminal."""

import math
import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd

from gradlens.analysis.causes import causes
from gradlens.analysis.finding import Finding
from gradlens.recording import Recording
from gradlens.reporting.numbers import number
from gradlens.reporting.words import STATUS
from gradlens.text import columns

_BARS = "▁▂▃▄▅▆▇█"
#: What stands for values of which none is a number, and for none at all.
_BROKEN, _NONE = "×", " "
#: A series whose largest value is so many times its smallest is drawn by its logarithm.
_WIDE = 100.0
#: Recorded steps that the speed is taken from.
_RECENT = 32
#: What a series is called, and its column in ``steps``.
_SERIES = {"loss": "loss", "gradient norm": "grad_norm"}


def sparkline(values: Sequence[float] | pd.Series, width: int) -> str:
    """Draw a series in one line: of each part of it the mean of what is finite, from lowest to highest.

    Args:
        values: in order.
        width: characters; fewer values take one each.
    """
    series = np.asarray(values, dtype=float)
    parts = np.array_split(series, min(width, len(series))) if len(series) else []
    finite = [part[np.isfinite(part)] for part in parts]
    means = np.array([part.mean() if len(part) else math.nan for part in finite])
    known = means[np.isfinite(means)]
    if len(known) and known.min() > 0 and known.max() > _WIDE * known.min():
        means, known = np.log(means), np.log(known)
    low, span = (known.min(), np.ptp(known) or 1.0) if len(known) else (0.0, 1.0)
    empty = [_NONE if np.isnan(part).all() and not np.isinf(part).any() else _BROKEN for part in parts]
    levels = ((means - low) / span * (len(_BARS) - 1)).round()
    return "".join(other if math.isnan(at) else _BARS[int(at)] for at, other in zip(levels, empty, strict=True))


def frame(recording: Recording, findings: Sequence[Finding], *, width: int, most: int = 3) -> str:
    """Return what a run shows now.

    Args:
        recording: of the run, as far as it is written.
        findings: on it.
        width: columns of the terminal.
        most: causes that are told.
    """
    head = f"{recording.label}  {recording.meta.get('status', '')}"
    steps = recording.steps
    if steps.empty:
        return f"{head}\n  no step is recorded yet"
    # At initialization a row of steps is a seed, and there is no training to be at a step of.
    seeds = recording.meta.get("kind") == "init"
    parts = [
        head,
        *([f"{len(steps):,} seeds"] if seeds else [f"step {recording.last_step:,}", f"{len(steps):,} recorded"]),
    ]
    seconds = steps["seconds"].dropna().tail(_RECENT)
    if len(seconds) and seconds.median() > 0 and not seeds:
        parts.append(f"{number(1 / seconds.median())} steps/s")
    rows = [_row(name, steps[column], width) for name, column in _SERIES.items() if steps[column].notna().any()]
    lines = ["  ".join(parts), *([columns(rows, indent=2)] if rows else [])]
    found = causes(findings)
    lines += [_said(cause.finding, width) for cause in found[:most]]
    lines += [f"  and {len(found) - most} more: gradlens diagnose {recording.path}"] if len(found) > most else []
    return "\n".join(lines if found else [*lines, f"  {STATUS['pass'][0]} nothing is flagged so far"])


def _row(name: str, series: pd.Series, width: int) -> list[str]:
    return [name, sparkline(series, max(width - 32, 10)), number(series.dropna().iloc[-1])]


def _said(finding: Finding, width: int) -> str:
    mark, word = STATUS[finding.status]
    onset = "" if finding.onset is None else f" from step {finding.onset}"
    text = f"{mark} {word} {finding.code}{onset}: {finding.claim.removeprefix(f'{finding.subject}: ')}"
    lines = textwrap.wrap(text, max(width, 40) - 4, max_lines=2, placeholder=" …")
    return textwrap.indent("\n    ".join(lines), "  ", lambda line: not line.startswith(" "))
