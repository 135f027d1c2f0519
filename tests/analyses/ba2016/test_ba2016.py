"""The study of Ba et al. 2016: what its questions say of recordings whose answers are planted."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analyses.papers.ba2016 import ANALYSES, claims, digits, invariance, recurrent
from analyses.papers.ba2016.invariance import TABLE
from gradlens.analysis import Finding
from gradlens.analysis.figures import draw
from gradlens.recording import Recording
from tests.analyses.pictures import faults

NORMS = ("layernorm", "batch", "weight", "rmsnorm", "none")
CELLS = ("rnn", "lstm", "gru")


def model(norm: str, **more: Any) -> dict[str, Any]:
    other = norm if norm in ("batch", "weight") else ""
    return {"family": "mlp", "norm": "none" if other else norm, "other": other} | more


def layer(norm: str, moved: Callable[[str, bool], float] = lambda change, holds: 1e-15 if holds else 0.5) -> Recording:
    """What the probe read of a layer that is as the table says, or not."""
    rows = [{"step": 0, "name": change, "value": moved(change, norm in who)} for change, who in TABLE.items()]
    if norm == "weight":
        shares = {"recentering": 0.0, "rescaling": 0.25, "kept": 0.75}
        rows += [{"step": 0, "name": f"weight gradient: {name}", "value": value} for name, value in shares.items()]
    probes = pd.DataFrame(rows).assign(probe="invariances", site="")
    return Recording.from_tables({"kind": "init", "label": norm, "model": model(norm)}, probes=probes)


def states(cell: str, norm: str, factor: float) -> Recording:
    """A gradient that changes by 0.9 a step with LayerNorm and by 0.5 times a power of the size without."""
    rng = np.random.default_rng(0)
    rows = [
        {"step": seed, "name": f"{scale:g} x, {back} back",
         "value": (0.9 if norm == "layernorm" else 0.5 * scale**factor) ** back * np.exp(0.01 * rng.standard_normal())}
        for seed in range(4) for scale in (0.5, 1.0, 2.0) for back in range(12)
    ]  # fmt: skip
    meta = {"kind": "init", "label": f"{cell}, {norm}", "model": model(norm, family="recurrent", cell=cell)}
    return Recording.from_tables(meta, probes=pd.DataFrame(rows).assign(probe="through_time", site=""))


def run(norm: str, batch: int, seed: int, loss: float, status: str = "complete", accuracy: float = 0.9) -> Recording:
    steps = pd.DataFrame({"step": [0, 50, 100], "loss": 1.0, "valid_loss": [2.3, 2 * loss, loss], "accuracy": accuracy})
    meta = {
        "kind": "training", "label": f"{norm}, {batch}, {seed}", "model": model(norm), "seeds": [seed],
        "training": {"batch_size": batch}, "status": status,
    }  # fmt: skip
    return Recording.from_tables(meta, steps=steps)


def runs(ends: dict[tuple[str, int], float], **more: Any) -> list[Recording]:
    return [run(*of, seed, end * (1 + 0.01 * seed), **more) for of, end in ends.items() for seed in range(3)]


ENDS = {("layernorm", 128): 0.195, ("batch", 128): 0.19, ("layernorm", 4): 0.20, ("batch", 4): 0.30}
STUDY = [
    *map(layer, NORMS),
    *(states(cell, norm, 1.0) for cell in CELLS for norm in ("layernorm", "none")),
    *runs(ENDS),
]


def judged(analysis: Any, recordings: Sequence[Recording]) -> dict[str, Finding]:
    usable = [recording for recording in recordings if recording.meta["kind"] in analysis.kinds]
    return {finding.code: finding for finding in analysis.judge(analysis.compute(usable))}


def test_a_table_as_the_papers_is_reproduced_and_one_wrong_entry_is_named():
    assert judged(invariance.ANALYSIS, STUDY)["GL520"].status == "pass"
    wrong = layer("rmsnorm", lambda change, holds: 1e-15 if holds or change == "data set re-centering" else 0.5)
    found = judged(invariance.ANALYSIS, [layer("layernorm"), wrong])["GL520"]
    assert found.status == "fail"
    assert "RMSNorm, data set re-centering" in found.claim
    assert "11 of 12" in found.claim


def test_the_shares_of_weight_norm_stand_beside_those_of_the_others():
    shown = invariance.ANALYSIS.show(invariance.compute(STUDY))
    table, shares = shown.values()
    assert list(table["norm"]) == ["LayerNorm", "BatchNorm", "weight norm", "RMSNorm", "no norm"]
    assert table.loc[2, "weight vector re-scaling"].startswith("invariant")
    assert table.loc[0, "weight vector re-scaling"] == "no (0.50)"
    assert shares.loc[0, "rescaling"] == "25.00 %"


def test_the_gradient_through_time_is_judged_by_size_and_by_reach():
    found = judged(recurrent.ANALYSIS, STUDY)
    assert found["GL521"].status == found["GL522"].status == "pass"
    assert found["GL521"].value == pytest.approx(1.0, abs=0.05)
    flat = [states(cell, norm, 0.05) for cell in CELLS for norm in ("layernorm", "none")]
    assert judged(recurrent.ANALYSIS, flat)["GL521"].status == "fail"  # without a norm the size plays no part either


def test_the_claims_on_batches_go_by_pairs_and_margins():
    found = judged(claims.ANALYSIS, STUDY)
    assert (found["GL523"].status, found["GL524"].status) == ("pass", "pass")
    worse = judged(claims.ANALYSIS, runs(ENDS | {("layernorm", 128): 0.3, ("layernorm", 4): 0.31}))
    assert (worse["GL523"].status, worse["GL524"].status) == ("fail", "fail")


def test_where_no_arm_learned_the_digits_nothing_is_decided():
    found = judged(claims.ANALYSIS, runs(ENDS, accuracy=0.2))
    assert {finding.status for finding in found.values()} == {"inconclusive"}
    assert "no run learned" in found["GL524"].claim


def test_of_one_seed_nothing_is_decided_and_of_none_nothing_said():
    one = [run(*of, 0, end) for of, end in ENDS.items()]
    assert {finding.status for finding in judged(claims.ANALYSIS, one).values()} == {"inconclusive"}
    for analysis in ANALYSES:
        assert analysis.judge(analysis.compute([])) == []


def test_ends_and_curves_leave_out_what_diverged():
    lost = run("batch", 4, 3, float("nan"), status="diverged")
    table = digits.compute([*STUDY[-12:], lost])
    shown = next(iter(digits.ANALYSIS.show(table).values()))
    row = shown[(shown["batches of"] == "4") & (shown["norm"] == "BatchNorm")].iloc[0]
    assert row["diverged"] == "1 of 4"
    assert row["held-out loss"].startswith("0.303")


@pytest.mark.parametrize("analysis", [a for a in ANALYSES if a.plot], ids=lambda a: a.name)
def test_figures_cut_no_text_and_are_drawn_of_the_table_alone(analysis, tmp_path):
    usable = [recording for recording in STUDY if recording.meta["kind"] in analysis.kinds]
    table = analysis.compute(usable)
    table.to_parquet(tmp_path / "table.parquet")
    assert analysis.judge(pd.read_parquet(tmp_path / "table.parquet")) == analysis.judge(table)
    assert faults(draw(analysis, table)) == []
    draw(analysis, analysis.compute([]))
