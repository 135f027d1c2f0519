"""Table 1 of the paper, measured: GL520; and what each norm takes out of a gradient, weight norm in the same words."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from analyses.limits import limit
from analyses.papers.ba2016.runs import BA, NORMS, initial, norm_of
from analyses.papers.findings import BEGINS, LARGER, Code, question
from analyses.tables import ABSENT, few, number, percent, pick, tidy
from gradlens.analysis import Finding, Status
from gradlens.recording import Recording

_PROBE = "invariances"
#: The table's columns, and who is invariant: the paper's three norms, and RMSNorm by Zhang & Sennrich 2019.
TABLE: Mapping[str, tuple[str, ...]] = {
    "weight matrix re-scaling": ("layernorm", "batch", "weight", "rmsnorm"),
    "weight matrix re-centering": ("layernorm",),
    "weight vector re-scaling": ("batch", "weight"),
    "data set re-scaling": ("layernorm", "batch", "rmsnorm"),
    "data set re-centering": ("batch",),
    "single case re-scaling": ("layernorm", "rmsnorm"),
}
_SHARES = ("recentering", "rescaling", "kept")
_VECTORS = {"layernorm": "units of a case", "rmsnorm": "units of a case", "batch": "cases of a unit",
            "weight": "weights of a unit"}  # fmt: skip
_INVARIANT = Code(
    analysis="ba2016_invariance",
    code="GL520",
    explanation=(
        "What a normalized layer does not depend on. Weights and data are re-scaled and re-centered, and the outputs "
        "of the layer compared, in float64 and without eps: what is invariant by the paper's table must move by less "
        "than {rounding:g} of the largest output, and what is not by more than {moves:g}. A network without a norm "
        "must depend on all of it."
    ),
    unit="entries of the table",
    expected="all entries",
    expected_from=f"{BA}, Table 1; RMSNorm: Zhang & Sennrich 2019 (1910.07467)",
    threshold="every entry as in the table",
    causes=("A norm that normalizes something else, or has an eps of the size of σ².",),
    remedies=(LARGER,),
    reference=BA,
)


def compute(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Return by how much each change moves the output, the largest over seeds, by norm; and shares of the gradient.

    Args:
        recordings: of any kind; those at initialization that hold the probe's readings count.
    """
    return tidy(row for recording in initial(recordings, _PROBE) for row in _rows(recording))


def _rows(recording: Recording) -> Iterator[dict[str, Any]]:
    norm = norm_of(recording)
    who = {"label": NORMS[norm], "variant": norm}
    readings = recording.probes[recording.probes["probe"] == _PROBE]
    for name, values in readings.groupby("name", sort=False)["value"]:
        panel, quantity = ("shares", str(name).removeprefix("weight gradient: ")) if ": " in str(name) else ("", name)
        value = values.mean() if panel else values.max()
        yield {**who, "panel": panel or "moved", "quantity": quantity, "value": value, "n": len(values)}
    first = recording.norms[recording.norms["site"] == "norm0"]
    for quantity in _SHARES if len(first) else ():
        yield {**who, "panel": "shares", "quantity": quantity, "value": first[quantity].mean(), "n": len(first)}


def _judge(table: pd.DataFrame) -> Iterator[Finding]:
    moved = pick(table, panel="moved")
    if moved.empty:
        return
    rounding, moves = _INVARIANT.limit("rounding"), _INVARIANT.limit("moves")
    invariant = pd.Series([row["variant"] in TABLE[row["quantity"]] for _, row in moved.iterrows()], moved.index)
    right = (invariant & (moved["value"] < rounding)) | (~invariant & (moved["value"] > moves))
    status: Status = "pass" if right.all() else "fail"
    wrong = [f"{row['label']}, {row['quantity']}: {number(row['value'])}" for _, row in moved[~right].iterrows()]
    told = f"; not {few(wrong)}" if wrong else f"; what is invariant moves by {moved[invariant]['value'].max():.1e}"
    claim = (
        f"{BEGINS[status]}: of {moved['variant'].nunique()} layers and {moved['quantity'].nunique()} changes "
        f"{right.sum()} of {len(moved)} entries are as the table says{told} of the largest output at most."
    )
    yield _INVARIANT.finding(status, claim, value=float(right.sum()), details={"wrong": wrong})


def _show(table: pd.DataFrame) -> Mapping[str, pd.DataFrame]:
    """Return the paper's table as it was measured, and the shares of the gradient."""
    lines, shares = [], []
    for norm, name in NORMS.items():
        own = pick(table, variant=norm)
        moved, share = (pick(own, panel=panel).set_index("quantity")["value"] for panel in ("moved", "shares"))
        if len(moved):
            lines.append({"norm": name, **{change: _word(moved.get(change)) for change in TABLE}})
        if len(share):
            numbers = {what: percent(share[what], 2) for what in _SHARES}
            shares.append({"norm": name, "vectors": _VECTORS.get(norm, ABSENT), **numbers})
    found = {"By how much each change moves the first layer's output, of the largest output.": pd.DataFrame(lines)}
    if shares:
        caption = (
            "What each norm of the first layer takes out of the gradient at what it normalizes, at initialization."
        )
        found[caption] = pd.DataFrame(shares)
    return found


def _word(value: float | None) -> str:
    if value is None:
        return ABSENT
    return f"invariant ({value:.0e})" if value < limit("GL520", "rounding") else f"no ({value:.2f})"


ANALYSIS = question(
    _INVARIANT,
    title="What a normalized layer does not depend on",
    question="Which changes of weights and data leave the output of a normalized layer as it is?",
    reading=(
        "The paper's Table 1, by doing it to the first layer of the digits' network on real images, in float64 and "
        "without eps: the largest change of an output over the largest output, the largest over seeds. Below: the "
        "shares of the energy of a gradient that each norm removes, in one set of words. Weight norm is an uncentered "
        "norm of the weights into each unit: along them it removes what is called re-scaling, as RMSNorm does along a "
        "case's units. Where the next layer has a norm over a case's units too, the size of these units plays no part, "
        "and there is no re-scaling to remove."
    ),
    needs={},
    uses={"norms": ("step", "site", *_SHARES)},
    compute=compute,
    show=_show,
    judges=(_judge,),
    kinds=("init",),
    optional=True,
)
