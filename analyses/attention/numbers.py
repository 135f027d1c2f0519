"""What attention looks at: its entropy by site over the steps, and the numbers that the findings judge."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analyses.heat import successive
from analyses.limits import limit
from analyses.tables import identity, tidy
from gradlens.analysis.ending import at_the_end
from gradlens.recording import Recording

#: The panel of the picture; a row is a cell: ``low`` and ``high`` its first and last step, ``n`` its place downwards.
ENTROPY = "entropy"
#: Recorded steps before an onset, of which the median is what was usual.
WINDOW = int(limit("GL901", "window"))
#: Share of the steps from an onset on that must show it: sampled queries differ from batch to batch.
_STAYS = 0.9


def compute(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Return the relative entropy of every site over the steps, and the numbers judged.

    Args:
        recordings: those that are not of kind ``init``, and hold attention, are used.
    """
    runs = [r for r in recordings if r.meta.get("kind") != "init" and len(r.attention)]
    return tidy({**identity(run), **row} for run in runs for row in _rows(run))


def _rows(run: Recording) -> Iterator[dict[str, Any]]:
    yield from _without_a_choice(run.attention)
    rows = run.attention.dropna(subset="relative_entropy")
    if rows.empty:
        return
    sites = rows["site"].drop_duplicates().tolist()
    heads = rows.pivot_table("relative_entropy", "step", ["site", "head"], "mean")
    over = {site: heads[site] for site in sites}
    by_site = pd.DataFrame({site: own.mean(axis=1) for site, own in over.items()})
    yield from _picture(by_site)
    logits = rows.pivot_table("logit_max", "step", ["site", "head"], "max").reindex(heads.index, columns=heads.columns)
    first = rows.pivot_table("first_share", "step", "site", "mean")[sites]
    for site in sites:
        fixed = {"panel": "summary", "group": site, "n": len(over[site].dropna(how="all"))}
        yield from ({**fixed, **row} for row in _saturated(over[site], logits[site], first[site]))
        yield {**fixed, **_uniform(over[site])}
    share = at_the_end(first.mean(axis=1).dropna())
    yield {"panel": "summary", "quantity": "share of the first key", "value": share.mean(), "n": len(share)}
    yield from _first_token(run.tokens)


def _without_a_choice(rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield the sites none of whose queries ever sees two keys, and in how many steps they were looked at."""
    looked = rows[rows["sampled"] > 0].groupby("site", sort=False).agg(
        queries=("queries", "sum"), steps=("step", "nunique")
    )  # fmt: skip
    for site, steps in looked.loc[looked["queries"] == 0, "steps"].items():
        yield {"panel": "summary", "quantity": "no choice", "group": site, "value": 0.0, "n": steps}


def _picture(by_site: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield a cell a site and step, or a few successive steps."""
    for steps in successive(len(by_site)):
        part = by_site.iloc[steps]
        for place, (site, values) in enumerate(part.items()):
            yield {"panel": ENTROPY, "quantity": "relative entropy", "group": site or "the model itself",
                   "x": part.index[0], "value": values.mean(), "low": part.index[0], "high": part.index[-1],
                   "n": place}  # fmt: skip


def _saturated(heads: pd.DataFrame, logits: pd.DataFrame, first: pd.Series) -> Iterator[dict[str, Any]]:
    """Yield the site's entropy and largest logit at the end, and from which step on it is saturated, and how."""
    mean = heads.mean(axis=1).dropna()
    end = at_the_end(mean)
    yield {"quantity": "relative entropy", "value": end.mean()}
    yield {"quantity": "largest logit", "value": logits.loc[end.index].max().max()}
    low = limit("GL901", "entropy")
    # All of the site, but for a sink: there one key takes all because nothing is to be read.
    onset = _onset((mean < low) & (first.reindex(mean.index) < limit("GL901", "sink")))
    if onset is not None:
        before = mean[mean.index < onset].tail(WINDOW)
        fell = bool(before.median() > limit("GL901", "at_once") * low)
        if fell or len(before) < WINDOW:
            yield {"quantity": "saturated", "stack": "fell" if fell else "start", "x": onset, "value": end.mean()}
            return
    beyond = {head: _onset((heads[head] < low) & (logits[head] > limit("GL901", "logit"))) for head in heads}
    single = {head: step for head, step in beyond.items() if step is not None}
    if single:
        head = min(single, key=lambda one: single[one])
        value = at_the_end(heads[head].dropna()).mean()
        yield {"quantity": "saturated", "stack": "logits", "x": single[head], "value": value, "unit": f"head {head}"}


def _onset(shown: pd.Series) -> int | None:
    """Return the first step from which on all but a few steps show something, the last ones among them."""
    share = shown[::-1].expanding().mean()[::-1]
    steps = shown.index[shown & (share >= _STAYS)]
    if steps.empty or (shown.index >= steps[0]).sum() < min(WINDOW, len(shown)):
        return None
    return int(steps[0])


def _uniform(heads: pd.DataFrame) -> dict[str, Any]:
    """Return how far the site's sharpest head is from looking at all keys alike: at the end, and in the first steps."""
    far = (1.0 - heads.min(axis=1)).dropna().clip(lower=0.0)
    steps = far.index.max() - far.index.min() + 1
    return {"quantity": "apart", "value": at_the_end(far).median(), "low": far.head(WINDOW).median(), "x": steps}


def _first_token(tokens: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield the norm whose first token gets the largest gradient beside the rest, at the end: that, and 1/σ."""
    ratios = ["grad_output_ratio", "inv_sigma_ratio"]
    logs = tokens[["step", "site"]].assign(**{name: np.log(tokens[name].where(tokens[name] > 0)) for name in ratios})
    logs = logs[np.isfinite(logs[ratios].to_numpy()).all(axis=1)].sort_values("step", kind="stable")
    if logs.empty:
        return
    end = at_the_end(pd.Series(0.0, index=logs["step"].unique())).index
    means = logs[logs["step"].isin(end)].groupby("site", sort=False)[ratios].mean().map(math.exp)
    site = means["grad_output_ratio"].idxmax()
    for quantity, column in zip(("gradient of the first token", "1/σ of the first token"), ratios, strict=True):
        yield {"panel": "summary", "quantity": quantity, "group": site, "value": means.loc[site, column],
               "n": len(end)}  # fmt: skip
