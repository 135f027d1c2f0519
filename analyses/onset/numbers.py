"""Forward growth and gradient of every block, or module, over the steps, and the numbers that the findings judge."""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analyses.advice import known
from analyses.depth import blocks, gradient_norms, parents, stream_by_depth
from analyses.heat import successive
from analyses.onset.jumps import FEWEST, beside, drifts, jumps, settles
from analyses.parameters.places import gradient_by_group, places
from analyses.tables import identity, tidy
from gradlens.recording import Recording

#: The largest finite number of float16.
_LARGEST = 65504.0
#: Points of a line in the figure.
POINTS = 200


def compute(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Return the largest jump of each series, what died, what was not finite first, and overflow.

    Args:
        recordings: those that are not of kind ``init`` are used.
    """
    runs = [r for r in recordings if r.meta.get("kind") != "init" and len(r.steps)]
    return tidy({"panel": "summary", **identity(run), **row} for run in runs for row in _rows(run))


def _rows(run: Recording) -> Iterator[dict[str, Any]]:
    yield {"quantity": "steps", "n": run.steps["step"].nunique()}
    yield from known(run)
    yield from _first_broken(run)
    yield from _overflow(run)
    stacks = blocks(run)
    loss = run.steps.set_index("step").sort_index()["loss"].dropna()
    yield from _jumped(_growth(run), "growth", stacks.loc[stacks["block"] == 0, "site"].tolist())
    if len(run.params):
        yield from _jumped(_gradients(run), "gradient", loss=loss)
        yield from _died(run)


def _first_broken(run: Recording) -> Iterator[dict[str, Any]]:
    """Yield the first place that was not finite, as the lens told it, and in how many steps any was."""
    audit = run.meta.get("audit") or {}
    first = (audit.get("setting") or {}).get("nonfinite")
    if first is None:
        return  # a recording of an earlier gradlens
    outputs, steps = run.activations, run.steps["step"]
    broken = {int(s) for table in (run.norms, run.params) for s in table.loc[table["nonfinite"] > 0, "step"]}
    broken |= {int(s) for s in outputs.loc[outputs["absmax"].isna() & (outputs["numel"] > 0), "step"]}
    row = {"quantity": "first broken", "value": len(broken), "n": steps.nunique(), "low": float(steps.max() in broken)}
    if first:
        row |= {"group": str(first["site"]) or "the model itself", "stack": first["tensor"], "x": first["step"]}
    yield row


def _overflow(run: Recording) -> Iterator[dict[str, Any]]:
    """Yield the largest activation over float16's largest number, and how often a loss scaler left a step out."""
    setting = (run.meta.get("audit") or {}).get("setting") or {}
    halves = setting.get("autocast") == "float16" or "float16" in (setting.get("input_dtypes") or {})
    outputs = run.activations
    if halves and outputs["absmax"].notna().any():
        row = outputs.sort_values("absmax").dropna(subset="absmax").iloc[-1]
        yield {"quantity": "largest of float16", "group": str(row["site"]), "x": row["step"],
               "value": row["absmax"] / _LARGEST}  # fmt: skip
    steps = run.steps.sort_values("step")
    scale = steps.set_index("step")["loss_scale"].dropna() if "loss_scale" in steps else pd.Series(dtype=float)
    if len(scale) > 1:
        fell = scale[scale < scale.shift()]
        late = fell[fell.index > scale.index[len(scale) // 2]]
        yield {"quantity": "scale fell", "value": len(fell), "low": len(late), "n": len(scale),
               "x": late.index[0] if len(late) else None, "high": float(scale.iloc[-1])}  # fmt: skip


def _growth(run: Recording) -> pd.DataFrame:
    """Return what each block makes of the stream's size, by step; without blocks the rms of each norm's input."""
    stream, found = stream_by_depth(run), blocks(run)
    if len(found) >= FEWEST and len(stream):
        moments = stream.pivot_table("second_moment", "step", ["stack", "depth"], "mean", sort=False)
        ends = ((site, (stack, at), (stack, at + 1)) for site, stack, at in found.itertuples(index=False))
        by_depth = dict(zip(moments, moments.to_numpy().T, strict=True))
        pairs = {site: (before, behind) for site, before, behind in ends if before in by_depth and behind in by_depth}
        resets = _that_reset(run, pairs)
        grown = {s: by_depth[q] / (1.0 if s in resets else by_depth[p]) for s, (p, q) in pairs.items()}
        return pd.DataFrame(grown, moments.index).pow(0.5)
    norms = set(run.sites.loc[run.sites["kind"] == "norm", "site"])
    inputs = run.activations[run.activations["site"].isin(norms) & (run.activations["tensor"] == "input")]
    return inputs.pivot_table("rms", "step", "site", "mean", sort=False)


def _that_reset(run: Recording, found: Iterable[str]) -> set[str]:
    """Return the blocks that a norm ends: what comes into the next is of one size, whatever the block made of it."""
    norms = run.sites.loc[run.sites["placement"] == "post_add", "site"].astype(str)
    return {block for norm in norms for block in parents(norm)}.intersection(found)


def _gradients(run: Recording) -> pd.DataFrame:
    """Return the gradient norm of each block, or module outside of blocks, by step."""
    found, norms = places(run), gradient_by_group(run)
    inside = list(dict.fromkeys(found.loc[found["block"], "group"]))
    return norms[inside] if len(inside) >= FEWEST else norms


def _jumped(
    series: pd.DataFrame, quantity: str, first: Collection[str] = (), loss: pd.Series | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the level of each series beside the others, in means over successive steps, and its largest jump.

    Args:
        series: as ``beside`` takes them.
        quantity: what they are of.
        first: blocks that begin a stack, whose drift says nothing: they begin with an embedding, that may be small.
        loss: by step, of what may settle in the first steps.
    """
    levels = beside(series)
    for steps in successive(len(levels), POINTS):
        part = levels.iloc[steps]
        means = part.mean().dropna()
        yield {"panel": quantity, "quantity": "level", "x": part.index[0], "group": means.index.to_numpy(dtype=object),
               "value": np.array([math.exp(mean) for mean in means])}  # fmt: skip
    late = levels[[name for name in levels if name not in first]] if len(levels) else levels
    recorded = levels.notna().sum()
    real = [one for one in jumps(levels) if loss is None or not settles(levels, one, loss)]
    if len(levels) and not real:
        yield {"quantity": f"jump of {quantity}", "value": 1.0, "low": 1.0, "high": 1.0, "x": levels.index[0]}
    for what, found in (("jump", real), ("drift", drifts(late))):
        for one in found:
            yield {"quantity": f"{what} of {quantity}", "group": one.name, "x": one.step, "value": one.factor,
                   "low": one.stayed, "high": one.chance, "n": recorded[one.name]}  # fmt: skip


def _died(run: Recording) -> Iterator[dict[str, Any]]:
    """Yield the parameters whose gradient was there, and is exactly 0 from a step on while that of others is not.

    ``n`` is their entries, as a share of the model's.
    """
    frozen = set(run.meta.get("frozen") or ())
    norms = gradient_norms(run)
    norms = norms[[name for name in norms if name not in frozen]]
    alive = norms[(norms > 0).any(axis=1)]  # of a step without any gradient nobody is dead
    if alive.empty:
        return
    found = places(run)
    group = dict(zip(found["name"], found["group"], strict=True))
    blocks_of = set(found.loc[found["block"], "group"])
    sizes = Counter(group[name] for name in norms)
    entries = run.params.drop_duplicates("name").set_index("name")["numel"].reindex(norms.columns).to_dict()
    whole = max(1, sum(entries.values()))
    there = (alive > 0).to_numpy()
    lasts = np.where(there.any(axis=0), len(alive) - 1 - there[::-1].argmax(axis=0), -1)
    for name, at in zip(alive, lasts, strict=True):
        if 0 <= at < len(alive) - 1:
            yield {"quantity": "died", "group": name, "stack": str(group[name]), "x": alive.index[at + 1],
                   "value": len(alive) - 1 - at, "low": at + 1, "high": sizes[group[name]],
                   "n": entries[name] / whole, "unit": "block" if group[name] in blocks_of else "module"}  # fmt: skip
