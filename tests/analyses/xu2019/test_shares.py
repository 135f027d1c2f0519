"""The table of shares says what the rows hold, at both ends of training, and that they sum to one."""

import pytest

from analyses.papers.xu2019.shares import compute, judge, show
from tests.analyses.xu2019.planted_gradients import run

STEPS = tuple(range(0, 1000, 10))


def planted(norm="layernorm-simple", seed=0, **columns):
    return run(norm=norm, seed=seed, steps=STEPS, rho2=lambda step: 0.1 if step < 50 else 0.3, **columns)


def test_a_cell_holds_start_and_end_with_its_interval_over_seeds():
    table = compute([planted(seed=seed, kept=0.5 + 0.1 * seed, rescaling=0.4 - 0.1 * seed) for seed in (0, 1, 2)])
    (rows,) = show(table).values()
    (row,) = rows.to_dict("records")
    assert row["norm"] == "LayerNorm-simple"
    assert row["ρ², %"] == "10.00 → 30.00 ± 0.00"
    assert row["re-centering, %"] == "10.00 → 10.00 ± 0.00"
    assert row["kept, %"] == "60.0 → 60.0 ± 24.8"  # t(2, 97.5 %) · 0.1/√3


def test_a_derivative_that_is_cut_has_no_correlation_to_show():
    (rows,) = show(compute([planted("detachnorm-variance", rescaling=-1e-9, kept=0.9)])).values()
    assert rows["re-scaling, %"].tolist() == ["0.00 → 0.00"]
    assert rows["ρ², %"].tolist() == ["–"]


def test_shares_that_do_not_sum_to_one_fail_and_are_named():
    (finding,) = judge(compute([planted(kept=0.5, rescaling=0.4), planted(seed=1, kept=0.7, rescaling=0.4)]))
    assert finding.status == "fail"
    assert finding.value == pytest.approx(0.2)
    (finding,) = judge(compute([planted(kept=0.5, rescaling=0.4)]))
    assert finding.status == "pass"


def test_without_a_norm_nothing_is_judged():
    (finding,) = judge(compute([run(norm="none")]))
    assert finding.status == "not applicable"
    assert show(compute([])) == {}
