"""The paper's claims about the warm-up: planted runs in which each holds, fails, or cannot be told."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from analyses.papers.claims import verdict
from analyses.papers.xiong2020 import claimed
from analyses.papers.xiong2020.claims import ANALYSIS
from analyses.papers.xiong2020.warm_up import ANALYSIS as CURVES
from analyses.papers.xiong2020.warm_up import published
from gradlens.analysis import Finding
from gradlens.recording import Recording
from tests.analyses.xiong2020.planted import translated, warm_ups

CLAIMS = [claim.code for claim in claimed.CLAIMS]
Losses = Mapping[tuple[str, int], float]
#: The paper's world, and its opposite: held-out loss by arrangement and steps of warm-up (20 are the whole one).
HOLDS: Losses = {
    ("post-ln", 20): 4.0,
    ("post-ln", 5): 4.4,
    ("post-ln", 0): 6.0,
    ("pre-ln", 20): 4.0,
    ("pre-ln", 0): 3.9,
}
FAILS: Losses = {
    ("post-ln", 20): 4.0,
    ("post-ln", 5): 3.9,
    ("post-ln", 0): 3.8,
    ("pre-ln", 20): 4.0,
    ("pre-ln", 0): 4.5,
}


def grid(losses: Losses, *, seeds: int = 3) -> list[Recording]:
    settings = [{"optimizer": "adam", "lr": 1e-3}, {"optimizer": "adam", "lr": 2e-3}, {"optimizer": "sgd", "lr": 0.1}]
    return [run for setting in settings for run in warm_ups(losses, seeds=seeds, **setting)]


def judged(recordings: Sequence[Recording]) -> dict[str, Finding]:
    return {finding.code: finding for finding in ANALYSIS.judge(ANALYSIS.compute(recordings))}


@pytest.mark.parametrize("code", CLAIMS)
def test_where_a_claim_holds_it_is_reproduced(code: str) -> None:
    finding = judged(grid(HOLDS))[code]
    assert (finding.status, finding.claim.split(":")[0]) == ("pass", "Reproduced")


@pytest.mark.parametrize("code", CLAIMS)
def test_where_its_opposite_holds_it_is_not(code: str) -> None:
    assert judged(grid(FAILS))[code].status == "fail"


@pytest.mark.parametrize("losses", [HOLDS, FAILS], ids=["holds", "fails"])
def test_one_seed_decides_nothing(losses: Losses) -> None:
    found = judged(grid(losses, seeds=1))
    assert {finding.status for finding in found.values()} == {"inconclusive"}


def test_settings_that_are_alike_need_no_warm_up() -> None:
    found = judged(grid(dict.fromkeys(HOLDS, 4.0)))
    assert {code for code, finding in found.items() if finding.status == "pass"} == {"GL603", "GL604"}
    assert {found[code].status for code in ("GL600", "GL601", "GL602")} == {"fail"}


def test_a_little_better_with_warm_up_is_not_to_need_it() -> None:
    (finding,) = (judged(warm_ups({("post-ln", 20): 4.0, ("post-ln", 0): 4.12}))[code] for code in ("GL600",))
    assert finding.status == "fail"
    assert finding.value == pytest.approx(3.0, abs=0.1)


def test_differences_are_paired_by_seed_and_a_share_of_the_whole_warm_up() -> None:
    losses = {0: (4.0, 5.0), 1: (2.0, 3.0), 2: (6.0, 6.5)}
    placed = [(seed, n, loss) for seed, pair in losses.items() for n, loss in zip((20, 0), pair, strict=True)]
    runs = [translated("post-ln", n, seed, held_out=loss) for seed, n, loss in placed]
    whole = [run.steps["valid_loss"].iloc[-1] for run in runs[::2]]
    none = [run.steps["valid_loss"].iloc[-1] for run in runs[1::2]]
    expected = 100 * np.mean([b - a for a, b in zip(whole, none, strict=True)]) / np.mean(whole)
    (row,) = ANALYSIS.compute(runs[::-1]).to_dict("records")
    assert row["value"] == pytest.approx(expected)
    assert row["n"] == 3


def test_a_run_that_diverges_is_worse_than_any_that_does_not() -> None:
    runs = [translated("post-ln", 20, seed) for seed in (0, 1)]
    runs += [translated("post-ln", 0, seed, diverged_at=30) for seed in (0, 1)]
    finding = judged(runs)["GL600"]
    assert finding.status == "pass"
    assert "runs diverged in 2 of 2 pairs" in finding.claim
    assert finding.low is None


def test_where_all_runs_diverge_nothing_is_decided() -> None:
    runs = [translated("post-ln", n, seed, diverged_at=30) for n in (0, 20) for seed in (0, 1)]
    assert judged(runs)["GL600"].status == "inconclusive"


def test_one_learning_rate_of_two_is_mixed() -> None:
    runs = [*warm_ups(HOLDS, lr=1e-3), *warm_ups(FAILS, lr=2e-3)]
    finding = judged(runs)["GL600"]
    assert finding.status == "inconclusive"
    assert finding.claim.startswith("Mixed: ")


def test_unfinished_runs_and_those_at_a_limit_do_not_count() -> None:
    runs = grid(HOLDS)
    odd = [
        translated("post-ln", 0, 0, held_out=1.0, status="running"),
        translated("post-ln", 0, 0, limit={"factor": 2}),
    ]
    assert len(ANALYSIS.compute([*runs, *odd])) == len(ANALYSIS.compute(runs))


def test_two_arms_that_learned_nothing_decide_nothing() -> None:
    """However their losses differ; where one arm learned the task they do decide."""
    settings = [("post-ln", 20, 4.0), ("post-ln", 0, 6.0)]

    def finding(*bleu: float) -> Finding:
        runs = [
            translated(name, warm_up, seed, held_out=loss, optimizer="sgd", bleu=own)
            for seed in range(3)
            for (name, warm_up, loss), own in zip(settings, bleu, strict=True)
        ]
        return judged(runs)["GL601"]

    nothing = finding(0.3, 0.0)
    assert nothing.status == "inconclusive"
    assert nothing.claim.startswith("Undecided, for no run learned the task:")
    assert "translation, SGD 0.001: no run learned the task" in nothing.claim
    assert finding(1.2, 0.0).status == finding(12.0, 11.0).status == "pass"


@pytest.mark.parametrize(("bits", "status"), [(10.0, "pass"), (4.0, "inconclusive")])
def test_on_text_to_have_learned_is_to_know_more_than_how_often_each_token_occurs(bits: float, status: str) -> None:
    task = {"name": "lm", "unit": "nats per byte", "unigram_bits": bits}
    runs = warm_ups({("post-ln", 20): 4.0, ("post-ln", 0): 6.0}, task=task, bleu=np.nan)
    assert judged(runs)["GL600"].status == status


def test_tasks_are_told_apart() -> None:
    of_lm = {"task": {"name": "lm", "unit": "nats per piece"}}
    runs = [*warm_ups(HOLDS, **of_lm), *warm_ups(FAILS)]
    finding = judged(runs)["GL600"]
    assert finding.claim.startswith("Mixed: ")
    assert "supported in 1 of 2 settings (lm, Adam 0.001: +" in finding.claim
    assert "contradicted in 1 (translation, Adam 0.001: " in finding.claim
    assert CURVES.show is not None
    (shown,) = CURVES.show(CURVES.compute(runs)).values()
    assert list(shown["task"]) == ["translation"] * len(FAILS) + ["lm"] * len(HOLDS)
    assert set(shown.loc[shown["task"] == "lm", "paper's BLEU"]) == {"–"}


def test_a_claim_that_no_pair_tests_says_so() -> None:
    found = judged(warm_ups({("pre-ln", 0): 4.0, ("pre-ln", 20): 4.0}))
    assert found["GL603"].status == "pass"
    assert found["GL600"].status == "not applicable"


@pytest.mark.parametrize(
    ("differences", "bar", "expected"),
    [((5.9, 6.0, 6.1), 5, "supports"), ((3.9, 4.0, 4.1), 5, "contradicts"), ((0.0, 5.0, 9.0), 5, "undecided")],
)
def test_the_interval_is_held_against_the_bar(differences: tuple[float, ...], bar: float, expected: str) -> None:
    assert verdict(np.array(differences), bar) == expected


def test_the_papers_numbers_stand_beside_ours_at_the_same_place_of_the_learning_rates() -> None:
    assert CURVES.show is not None
    table = CURVES.compute([*warm_ups(HOLDS, lr=3e-3), *warm_ups(HOLDS, lr=1e-3)])
    (shown,) = CURVES.show(table).values()
    papers = shown.set_index(["arrangement", "rate", "warm-up"])["paper's BLEU"]
    assert papers["Post-LN", "0.003", "none"] == papers["Post-LN", "0.001", "none"] == "8.45 (rate not stated)"
    assert papers["Pre-LN", "0.001", "none"] == "about 34 (rate not stated)"
    assert papers["Post-LN", "0.001", "short (5)"] == "31.16"
    assert papers["Post-LN", "0.003", "short (5)"] == "2.77"
    assert papers["Pre-LN", "0.001", "full (20)"] == "–"
    assert set(published()["bleu"]) == {"8.45", "2.77", "31.16", "about 34", "about 0"}


def test_divergences_are_shown_with_their_step_and_told() -> None:
    runs = [*warm_ups(HOLDS), *(translated("post-ln", 0, seed, lr=5e-3, diverged_at=30 + seed) for seed in (0, 1))]
    table = CURVES.compute(runs)
    assert CURVES.show is not None
    (shown,) = CURVES.show(table).values()
    assert shown["held-out loss"].iloc[3] == "diverged (step 30)"
    (finding,) = CURVES.judge(table)
    assert (finding.status, finding.value) == ("warn", 2.0)
    assert CURVES.judge(CURVES.compute(warm_ups(HOLDS)))[0].status == "pass"
