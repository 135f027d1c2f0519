"""GL405: entries that a step leaves as they are though their gradient is not 0."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analyses.limits import limit
from analyses.making import Check
from analyses.parameters.lasting import onset, since
from analyses.tables import few_places, first, listed, percent, pick
from gradlens.analysis import Finding
from gradlens.recording import Recording

CHECK = Check(
    code="GL405",
    analysis="parameters",
    explanation=(
        "Entries that stand still. Of at most 1,024 entries of each parameter, those that the optimizer's step left "
        "bit by bit as they were though their gradient was not 0. A parameter of which none ever moves asks for a "
        "look, be it while others do or none at all: nobody wrote to it, or what was written changed nothing. So do "
        "weights in 16 bits, where {most:g} or more stand still in the median step: they are too coarse for the "
        "update. In float32 rounding takes only updates that GL404 calls too small. Not judged are parameters whose "
        "gradient is rounding, frozen ones, and those whose update would be lost in rounding beside that of the others."
    ),
    unit="of the entries with a gradient",
    expected=0.0,
    expected_from="an optimizer that moves what has a gradient",
    threshold="below {most:g} in 16 bits; no parameter stands still as a whole in {steps:g} steps",
    causes=(
        "Parameters that are not to be trained, and were left out of the optimizer instead of frozen (innocent).",
        "An optimizer that keeps weights in float32 of its own: those in 16 bits move once enough has come together "
        "(innocent).",
        "A rate that has decayed to its end, in 16 bits (innocent).",
        "Parameters that were made, replaced or unfrozen after the optimizer was.",
        "A group of the optimizer whose rate is 0.",
        "Weights in bfloat16 or float16 without a copy in float32: what is below half their spacing is lost.",
    ),
    remedies=(
        "Give the optimizer model.parameters() when the model is complete, and look at the rate of each group.",
        "Keep weights in float32 and compute in 16 bits (torch.autocast), or round stochastically.",
    ),
    explains=("GL203", "GL304", "GL306", "GL404", "GL704"),
    explains_there=("GL706",),
)
#: Half the spacing of numbers beside 1.
_ROUNDING = {"bfloat16": 2.0**-8, "float16": 2.0**-11, "float64": 2.0**-53}
_FLOAT32 = 2.0**-24


def numbers(params: pd.DataFrame, run: Recording) -> Iterator[dict[str, Any]]:
    """Yield the parameters that never move, and of each dtype the share of entries that stand still.

    Args:
        params: rows of a run with ``places``, but for those whose gradient is rounding.
        run: whose audit names the parameters that are not float32.
    """
    known = params[params["still_share"].notna()]
    if known.empty:
        yield from _none_moves(params, run)
        return
    audit = run.meta.get("audit") or {}
    weights = (audit.get("setting") or {}).get("weights") or {}
    own = {name: dtype for dtype, names in weights.items() for name in names}
    place, names = pd.factorize(known["name"])
    held = [own.get(name, "float32") for name in names]
    dtypes = pd.Series(np.array(held, dtype=object)[place], known.index)
    rounding = np.array([_ROUNDING.get(dtype, _FLOAT32) for dtype in held])[place]
    moves = known[known["update_ratio"] > 0]
    # What a step changes of a parameter by its gradient: that of those which move, of all the same rate.
    times = (moves["update_ratio"] / (moves["grad_norm"] / moves["weight_norm"])).median()
    wanted = known["grad_norm"] / known["weight_norm"] * times
    seen = (wanted >= limit("GL405", "seen") * rounding) | known["update_ratio"].isna() | ~(known["weight_norm"] > 0)
    of = known.assign(seen=seen).groupby("name", sort=False)
    table = of.agg(least=("still_share", "min"), seen=("seen", "all"), ratio=("update_ratio", "max"),
                   n=("step", "nunique"), group=("group", "first"), block=("block", "first"))  # fmt: skip
    steps = int(known["step"].nunique())
    never = table[(table["least"] == 1.0) & table["seen"] & (table["n"] >= limit("GL405", "steps"))]
    yield {"quantity": "judged for standing still", "value": len(table), "n": steps}
    whole = table.groupby("group")["least"].size()
    for name, row in never.iterrows() if len(never) < len(table) else ():
        part = (never["group"] == row["group"]).sum() == whole[row["group"]] and row["block"]
        yield {"quantity": "never moves", "group": str(name), "stack": row["group"] if part else "",
               "value": 1.0, "low": float(pd.isna(row["ratio"])), "n": row["n"]}  # fmt: skip
    for dtype, rows in known.groupby(dtypes, sort=False):
        rows = rows[~rows["name"].isin(never.index)]
        still = (rows["still_share"] * rows["active"]).groupby(rows["step"]).sum()
        shares = still / rows["active"].groupby(rows["step"]).sum()
        if shares.empty:
            continue
        start = since(shares >= limit("GL405", "most"))
        yield {"quantity": "still", "group": str(dtype), "value": shares.median(), "n": len(shares),
               "x": onset(start, shares.index.min())}  # fmt: skip


def _none_moves(params: pd.DataFrame, run: Recording) -> Iterator[dict[str, Any]]:
    """Yield the groups of parameters, where an optimizer was given and yet no norm of a weight ever changes."""
    with_one = params[params["grad_norm"] > 0]
    norms = with_one.groupby("name")["weight_norm"].nunique()
    steps = with_one["step"].nunique()
    if len(norms) and (norms == 1).all() and steps >= limit("GL405", "steps") and run.steps["lr"].notna().any():
        for group in with_one["group"].drop_duplicates():
            yield {"quantity": "none moves", "group": group, "value": len(norms), "n": steps}


def judged(rows: pd.DataFrame, label: str) -> Finding:
    """Return GL405.

    Args:
        rows: of the run's summary.
        label: the recording's.
    """
    of, none = first(pick(rows, quantity="judged for standing still")), pick(rows, quantity="none moves")
    if len(none):
        count, steps = none[["value", "n"]].iloc[0]
        claim = (
            f"{label}: none of the {count:.0f} parameters that have a gradient moves in {steps:.0f} steps: the "
            "optimizer holds other ones."
        )
        also = (*CHECK.explains, "GL311", "GL706")
        return CHECK.finding("warn", claim, label, value=1.0, sites=tuple(none["group"]), born="update", explains=also)
    if of is None:
        claim = (
            f"{label}: whether entries change is not known: attach(..., optimizer=optimizer) records it, or "
            "lens.step() behind the optimizer's step."
        )
        return CHECK.silent(claim, label)
    if of["n"] < CHECK.limit("steps"):
        claim = f"{label}: {of['n']:.0f} steps of an optimizer are too few to tell which entries never move."
        return CHECK.finding("inconclusive", claim, label, remedies=("Record more steps.",))
    never, shares = pick(rows, quantity="never moves"), pick(rows, quantity="still")
    coarse = shares[shares["group"].isin(["bfloat16", "float16"]) & (shares["value"] >= CHECK.limit("most"))]
    row = first(coarse) if len(coarse) else first(shares)
    told = "" if row is None else f"{percent(row['value'])} of the entries with a gradient in {row['group']}"
    if len(never):
        whose = list(dict.fromkeys(never["stack"].where(never["stack"] != "", never["group"])))
        why = (
            "nobody wrote to them, as if no optimizer held them"
            if (never["low"] == 1.0).all()
            else "what was written changed nothing, as with a rate of 0"
            if (never["low"] == 0.0).all()
            else "nobody wrote to them, or what was written changed nothing, as with a rate of 0"
        )
        claim = (
            f"{label}: {len(never)} of {of['value']:.0f} parameters never move in {of['n']:.0f} steps though they have "
            f"a gradient: {few_places(whose)}; {why}."
        )
        return CHECK.finding("warn", claim, label, value=1.0, sites=tuple(whose), born="update")
    if row is not None and len(coarse):
        claim = (
            f"{label}: in the median step {told} stand still: the weights are too coarse for the update"
            f"{_others(coarse['group'].tolist()[1:])}."
        )
        begins = None if pd.isna(row["x"]) else int(row["x"])
        return CHECK.finding("warn", claim, label, row, onset=begins, born="update")
    claim = f"{label}: in the median step {told} stand still." if told else f"{label}: every parameter moves."
    return CHECK.finding("pass", claim, label, row, causes=(), remedies=())


def _others(dtypes: Sequence[str]) -> str:
    return f", and so are those in {listed(dtypes)}" if dtypes else ""
