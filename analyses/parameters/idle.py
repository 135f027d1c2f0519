"""GL406: units that have no gradient any more."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from analyses.limits import limit
from analyses.making import Check
from analyses.parameters.lasting import earliest, since
from analyses.tables import few, first, percent, pick
from gradlens.analysis import Finding
from gradlens.analysis.ending import at_the_end
from gradlens.recording.parameter_columns import IDLE as _IDLE

CHECK = Check(
    code="GL406",
    analysis="parameters",
    explanation=(
        "Dead units. Rows of a weight matrix, or entries of a norm's gain, which are units, whose gradient was 0 in "
        "ten recorded steps on end; the largest share of one weight, at the end of training. From {most:g} on it asks "
        "for a look: that much of the layer learns nothing. Single batches in which a unit does not fire do not count, "
        "nor embeddings, of which a batch holds some rows, weights without any gradient (GL401), and steps in which "
        "none has one."
    ),
    unit="of the rows",
    expected="below {most:g}",
    expected_from="units that fire in some batch of ten",
    threshold="below {most:g} of at least {rows:g} rows",
    causes=(
        "Rows that are masked or pruned on purpose (innocent).",
        "Units for classes, experts or heads that no recorded batch needs (innocent).",
        "ReLUs that a step too large, or a bias far below 0, has put where no input makes them fire.",
        "Saturated units, whose derivative is 0 in the precision at hand.",
        "Inputs of another scale than the layer was made for.",
    ),
    remedies=(
        "Lower the learning rate or begin it with a warm-up.",
        "Use an activation that lets some gradient through everywhere (GELU, leaky ReLU), or a norm before it.",
    ),
    reference="Karpathy, CS231n, Neural networks 1: dying ReLUs; Lu et al. 2019 (1903.06733)",
    explains=("GL306",),
)


def numbers(params: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield of each weight with idle rows their share at the end, and since when it is above the limit.

    Args:
        params: rows of a run.
    """
    embedding = params["name"].str.contains("emb", case=False)
    weights = params["name"].str.endswith("weight") & ~embedding
    known = params[weights & (params["rows"] >= limit("GL406", "rows"))]
    steps = known["step"].drop_duplicates().sort_values()
    judged = steps[_IDLE - 1 :]
    if judged.empty:
        return
    known = known[known["step"].isin(judged)]
    shares = (known["idle_rows"] / known["rows"]).groupby([known["step"], known["name"]]).first().unstack("name")
    shares = shares[(shares < 1).any(axis=1)]  # else nothing is learned at all
    shares = shares.loc[:, (shares < 1).any()]
    if shares.empty:
        return
    yield {"quantity": "judged for idle rows", "value": shares.shape[1], "n": len(shares)}
    rows = known.drop_duplicates("name").set_index("name")["rows"]
    for name, series in shares.loc[:, (shares > 0).any()].items():
        share = float(at_the_end(series.dropna()).median())
        if share > 0:
            start = since(series >= limit("GL406", "most"))
            place = None if start is None else list(steps).index(start) - (_IDLE - 1)
            yield {"quantity": "idle", "group": str(name), "value": share, "n": rows[str(name)],
                   "x": steps.iloc[place] if place else None}  # fmt: skip


def judged(rows: pd.DataFrame, label: str) -> Finding:
    """Return GL406.

    Args:
        rows: of the run's summary.
        label: the recording's.
    """
    of = first(pick(rows, quantity="judged for idle rows"))
    if of is None:
        claim = (
            f"{label}: whether units are dead is not known: there are no {CHECK.limit('rows'):.0f} rows of a weight "
            f"with a gradient over {_IDLE} recorded steps."
        )
        return CHECK.silent(claim, label)
    idle = pick(rows, quantity="idle").sort_values("value", ascending=False, kind="stable")
    many = idle[idle["value"] >= CHECK.limit("most")]
    if many.empty:
        most = float(idle["value"].max()) if len(idle) else 0.0
        claim = (
            f"{label}: at the end at most {percent(most)} of the units of a weight have had no gradient in {_IDLE} "
            f"recorded steps, of {of['value']:.0f} weights."
        )
        return CHECK.finding("pass", claim, label, value=most, causes=(), remedies=())
    worst = many.iloc[0]
    cells = many[["group", "value", "n"]].to_numpy()
    names = few(f"{name} ({percent(value)} of {n:.0f})" for name, value, n in cells)
    return CHECK.finding(
        "warn",
        f"{label}: at the end units of {len(many)} of {of['value']:.0f} weights have had no gradient in {_IDLE} "
        f"recorded steps: {names}.",
        label,
        worst,
        sites=tuple(many["group"]),
        onset=earliest(many["x"]),
        born="forward",
    )
