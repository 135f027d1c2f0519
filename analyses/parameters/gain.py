"""GL407: gains of norms that fall to 0, or grow to many times their start."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from analyses.limits import limit
from analyses.making import Check
from analyses.parameters.lasting import earliest, onset, since
from analyses.tables import few, first, number, pick
from gradlens.analysis import Finding
from gradlens.analysis.ending import length_of_end
from gradlens.recording import Recording

CHECK = Check(
    code="GL407",
    analysis="parameters",
    explanation=(
        "Gains of norms. The largest |γ| of each norm at the end of training over that in the first recorded step. "
        "Below {least:g} the norm lets next to nothing through: what follows it is switched off. From {most:g} up it "
        "sets the scale of what follows, and of its gradient, and asks for a look as well. Gains that begin at 0, as "
        "some are meant to, have no start to be compared with; one that stays there for {steps:g} recorded steps, to "
        "the end, is switched off."
    ),
    unit="times the first recorded step",
    expected="near 1",
    expected_from="the run's own start",
    threshold="{least:g} to {most:g}",
    causes=(
        "A branch that is to be pruned, by a penalty on its gain (innocent).",
        "A final norm in a long training: its gain sets how sure the output is (innocent, up to a point).",
        "Weight decay on gains that get little gradient.",
        "A learning rate too large for gains, which are not divided by a width.",
    ),
    remedies=(
        "Leave gains out of weight decay, or decay them towards 1.",
        "Give gains a lower rate, and clip the gradient.",
    ),
    explains=("GL203", "GL305", "GL306", "GL307", "GL309", "GL310", "GL311", "GL401", "GL402", "GL406", "GL704"),
)
#: A gain that is so many times its start, or its start so many times it, has left it.
_AWAY = 1.5
_NORM = re.compile(r"(norm|(^|[._])(ln|bn)(_?\d+|_[a-z]+)?)\.weight$", re.IGNORECASE)


def numbers(params: pd.DataFrame, run: Recording) -> Iterator[dict[str, Any]]:
    """Yield of each norm's gain its largest |γ| at the end over that at the start, and since when it is on its way.

    Args:
        params: rows of a run with ``places``.
        run: whose sites are the norms.
    """
    norms = {f"{site}.weight" for site in run.sites.loc[run.sites["kind"] == "norm", "site"]}
    own = params["name"].isin([name for name in params["name"].unique() if name in norms or _NORM.search(name)])
    gains = params[own & params["weight_most"].notna()]
    largest = gains[["weight_least", "weight_most"]].abs().max(axis=1)
    enough = limit("GL407", "steps")
    gammas, steps = largest.to_numpy(), gains["step"].to_numpy()
    for name, rows in gains.groupby("name", sort=False).indices.items():
        values = gammas[rows]  # in the order of steps
        if len(values) >= enough and not values.any():
            yield {"quantity": "gain", "group": str(name), "value": 0.0, "n": len(values)}
        if len(values) < 2 or not values[0] > 0:
            continue
        times = values / values[0]
        end = float(np.median(times[-length_of_end(len(times)) :]))
        out = times <= 1 / _AWAY if end < 1 else times >= _AWAY
        start = since(pd.Series(out, steps[rows])) if out[-1] else None
        yield {"quantity": "gain", "group": str(name), "value": end, "n": len(times), "x": onset(start, steps[rows[0]])}


def judged(rows: pd.DataFrame, label: str) -> Finding:
    """Return GL407.

    Args:
        rows: of the run's summary.
        label: the recording's.
    """
    gains = pick(rows, quantity="gain")
    if gains.empty:
        claim = f"{label}: no gain of a norm was recorded in two steps, or all begin at 0."
        return CHECK.silent(claim, label)
    off = gains[gains["value"] <= CHECK.limit("least")].sort_values("value")
    grown = gains[gains["value"] >= CHECK.limit("most")].sort_values("value", ascending=False)
    found = pd.concat([off, grown])
    if found.empty:
        claim = (
            f"{label}: the largest gain of each of {len(gains)} norms is at the end {number(gains['value'].min())} to "
            f"{number(gains['value'].max())} times that at the start."
        )
        return CHECK.finding("pass", claim, label, value=float(gains["value"].max()), causes=(), remedies=())
    said = [
        f"{what} in {len(part)} ({_some(part)})"
        for what, part in (("falls to next to nothing", off), ("grows without bound", grown))
        if len(part)
    ]
    return CHECK.finding(
        "warn",
        f"{label}: of {len(gains)} norms the gain {' and '.join(said)}.",
        label,
        first(found),
        sites=tuple(found["group"].str.removesuffix(".weight")),
        onset=earliest(found["x"]),
        born="update",
    )


def _some(part: pd.DataFrame) -> str:
    pairs = part[["group", "value"]].to_numpy()
    return few(f"{name}: {f'{number(value)} times its start' if value else 'all 0'}" for name, value in pairs)
