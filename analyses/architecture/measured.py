"""What recorded steps show of a model's wiring: norms that are not at work, and how the stream grows with depth."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from analyses.depth import blocks, stream_by_depth
from analyses.depth_profile.theory import DepthTheory
from analyses.limits import limit
from gradlens.recording import Recording

Row = dict[str, Any]
#: Stand in ``unit`` where the value of GL808 is the stream's own, or what every block makes of it, not what one adds.
LEVEL, EACH = "second moment", "times the block's input"
#: Kinds whose statistics are constants in evaluation mode.
_RUNNING = ("batchnorm", "instancenorm")


def evaluation(recording: Recording) -> Iterator[Row]:
    """GL806: norms through which training went in evaluation mode; from which step on (``x``), in how many (``value``).

    In evaluation mode no derivative of μ and σ flows, so that nothing is removed from the gradient.
    """
    running = recording.sites[recording.sites["norm"].isin(_RUNNING)]["site"]
    if recording.meta.get("kind") == "init" or running.empty:
        return
    rows = _whole(recording, "GL806")
    rows = rows[rows["site"].isin(running)]
    frozen = set(recording.meta.get("frozen") or ())
    own = {site: {f"{site}.weight", f"{site}.bias"} & frozen for site in running}
    by_site = rows[rows["still"]].groupby("site", sort=False)["step"]
    for site, steps in by_site:
        if not own[site]:
            yield {"quantity": "GL806", "group": site, "value": steps.nunique(), "x": steps.min()}
    first = rows["step"].min() if len(rows) else None
    yield {"quantity": "GL806", "n": rows["site"].nunique(), "value": rows["step"].nunique(), "x": first}


def detached(recording: Recording) -> Iterator[Row]:
    """GL807: norms that subtract μ or divide by σ, and remove nothing of any gradient."""
    sites = recording.sites[recording.sites["kind"] == "norm"]
    meant = sites["norm"].astype(str).str.contains("detach|frozen", case=False)
    judged = sites[~sites["norm"].isin(_RUNNING) & ~meant]
    rows = _whole(recording, "GL807")
    found = rows[rows["site"].isin(judged["site"])].groupby("site", sort=False)["still"].all()
    if found.empty:
        return
    still = judged.set_index("site").loc[found.index, ["centered", "norm"]].assign(still=found)
    for norm, alike in still.groupby("norm", sort=False):
        # A norm without μ before maps that are linear and another norm has nothing to remove either, but the last has.
        whole = bool(alike["still"].all()) and len(alike) > 1
        for site in alike.index[alike["still"] & (alike["centered"].astype(bool) | whole)]:
            yield {"quantity": "GL807", "group": site, "stack": norm}
    yield {"quantity": "GL807", "n": len(still)}


def _whole(recording: Recording, code: str) -> pd.DataFrame:
    """Return the rows of norms whose shares are known, with ``still``: whether nothing is removed but by rounding."""
    rows = recording.norms[["step", "site", "width", "recentering", "rescaling", "mean_share"]]
    rows = rows[(rows["mean_share"] > limit(code, "rounding")) & rows["rescaling"].notna()]
    # What is expected of a random gradient is 1/H: where that is rounding itself, nothing can be told.
    rows = rows[(rows["recentering"] == 0) | (rows["width"] < 1 / limit(code, "rounding"))]
    still = (rows["recentering"] == 0) & (rows["rescaling"].abs() < limit(code, "rounding"))
    return rows.assign(still=still)


def stream(recording: Recording) -> Iterator[Row]:
    """GL808: blocks (``group``) that take the stream (``value``) beyond their arrangement's law.

    Pre-LN's blocks add alike, Post-LN's begin with 1. Of a trained model that goes on nothing is said.
    """
    kind, model = recording.meta.get("kind"), recording.meta.get("model") or {}
    if recording.activations.empty or (kind == "init" and DepthTheory(model).applies):
        return
    moments = stream_by_depth(recording)
    if kind != "init":
        moments = moments[moments["step"] == 0]
    ended, found = _with_norm_at_end(recording), blocks(recording)
    for stack, rows in moments.groupby("stack", sort=False):
        q = rows.groupby("depth")["second_moment"].mean()
        if len(q) < limit("GL808", "depths") or not (q > 0).all() or _looks_trained(recording):
            continue
        yield {"quantity": "GL808", "stack": stack, "n": len(q) - 1, "value": q.iloc[-1] / q.iloc[0]}
        level = str(stack) in ended
        each = float((q / q.shift()).min())
        if not level and each > limit("GL808", "each"):
            site = found[found["stack"] == stack]["site"].iloc[0]
            yield {"quantity": "GL808", "group": site, "stack": stack, "value": each, "unit": EACH}
            continue
        depth, value = _largest(q, level)
        if value > limit("GL808", "level" if level else "times"):
            site = found[(found["stack"] == stack) & (found["block"] == depth - 1)]["site"].iloc[0]
            yield {"quantity": "GL808", "group": site, "value": value, "unit": LEVEL if level else ""}


def _largest(q: "pd.Series[float]", level: bool) -> tuple[int, float]:
    """Return the depth at which the stream is largest, or the block before added most, and how much.

    Args:
        q: second moment by depth.
        level: whether the blocks begin with 1; else the number is what was added over the median block, 0 where the
            stream is not much larger for it.
    """
    depths, values = q.index.to_numpy(dtype=int), q.to_numpy(dtype=float)
    if level:
        at = int(np.argmax(values[1:])) + 1
        return int(depths[at]), float(values[at])
    added = np.diff(values)
    at, usual = int(np.argmax(added)) + 1, float(np.median(added))
    grew = values[at] > limit("GL808", "grows") * values[:at].min()
    return int(depths[at]), float(added[at - 1] / usual) if usual > 0 and grew else 0.0


def _with_norm_at_end(recording: Recording) -> set[str]:
    """Return the stacks whose blocks hold a norm on the stream."""
    sites = recording.sites
    norms = sites[(sites["kind"] == "norm") & (sites["placement"] == "post_add") & sites["block"].notna()]["site"]
    return {
        stack
        for block, stack, _ in blocks(recording).itertuples(index=False)
        if any(str(norm).startswith(f"{block}.") for norm in norms)
    }


def _looks_trained(recording: Recording) -> bool:
    """Whether single entries hold the stream, as in large models that were trained."""
    rows = recording.activations
    rows = rows[rows["step"] == rows["step"].min()]
    rows = rows[rows["site"].isin(blocks(recording)["site"]) & (rows["rms"] > 0)]
    return bool((rows["absmax"] / rows["rms"] > limit("GL808", "peak")).any())
