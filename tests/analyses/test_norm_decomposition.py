"""``norm_decomposition`` finds what was planted."""

import pytest

from analyses.norm_decomposition import ANALYSIS
from gradlens.analysis import Finding
from gradlens.recording import Recording
from tests.analyses.planted import WIDTH, at_init, training


def judged(recording: Recording) -> dict[str, Finding]:
    return {finding.code: finding for finding in ANALYSIS.judge(ANALYSIS.compute([recording]))}


def test_random_shares_are_one_times_those_of_a_random_gradient() -> None:
    found = judged(at_init())
    assert {found[code].status for code in ("GL200", "GL201", "GL202")} == {"pass"}
    assert found["GL201"].value == pytest.approx(1.0, rel=0.02)
    assert found["GL202"].value == pytest.approx(1.0, rel=0.02)


@pytest.mark.parametrize(("code", "column"), [("GL201", "recentering"), ("GL202", "rescaling")])
def test_a_gradient_with_a_direction_of_its_own_is_told(code: str, column: str) -> None:
    found = judged(at_init(shares={column: 10 / WIDTH}))
    assert found[code].status == "warn"
    assert found[code].value == pytest.approx(10.0)


def test_a_norm_that_does_not_center_is_not_judged_for_it() -> None:
    found = judged(at_init(shares={"recentering": 0.0}))
    assert found["GL201"].status == "not applicable"
    assert found["GL202"].status == "pass"


def test_norms_over_space_are_drawn_but_not_held_against_random_gradients() -> None:
    recording = at_init(shares={"recentering": 0.9})
    sites = recording.sites.assign(norm="batchnorm")
    tables = {"norms": recording.norms, "params": recording.params, "steps": recording.steps}
    found = judged(Recording.from_tables(recording.meta, sites=sites, **tables))
    assert set(found) == {"GL200"}


@pytest.mark.parametrize(
    "shares",
    [
        {"recentering": 0.2, "rescaling": 0.2, "kept": 0.7},
        {"recentering": -0.1, "rescaling": 0.1, "kept": 1.0},
    ],
)
def test_shares_that_do_not_add_up_fail_and_name_the_place(shares: dict[str, float]) -> None:
    found = judged(at_init(shares=shares))
    assert found["GL200"].status == "fail"
    assert found["GL200"].sites == ("blocks.0.attention_norm",)
    assert found["GL200"].steps == (0,)


def test_rounding_of_float32_is_no_failure() -> None:
    assert judged(at_init(shares={"rescaling": -1e-7}))["GL200"].status == "pass"


def test_the_interval_of_a_share_is_cut_at_what_a_share_can_be() -> None:
    table = ANALYSIS.compute([at_init(seeds=2, noise=1.0)])
    shares = table[(table["panel"] == "init") & table["quantity"].isin(["recentering", "rescaling", "kept"])]
    assert shares["low"].min() >= 0
    assert shares["high"].max() == 1


def test_norms_stand_in_forward_order() -> None:
    table = ANALYSIS.compute([at_init(blocks=11, seeds=2)])
    kept = table[(table["panel"] == "init") & (table["quantity"] == "kept")].sort_values("x")
    assert kept["x"].tolist() == list(range(1, 24))
    assert kept["group"].tolist()[:3] == [
        "blocks.0.attention_norm",
        "blocks.0.ffn_norm",
        "blocks.1.attention_norm",
    ]
    assert kept["group"].tolist()[-1] == "final_norm"


def test_the_reference_is_one_over_the_width() -> None:
    table = ANALYSIS.compute([at_init(), training([1.0] * 30)])
    reference = table[table["quantity"].str.endswith(": random g")]
    assert set(reference["panel"]) == {"init", "training"}
    assert reference["value"].tolist() == pytest.approx([1 / WIDTH] * len(reference))


@pytest.mark.parametrize(("kept", "status"), [(0.97, "pass"), (0.3, "warn")])
def test_what_the_norms_keep_at_the_end_of_training_is_judged(kept: float, status: str) -> None:
    found = judged(training([1.0] * 60, kept=lambda step: 0.97 if step < 40 else kept))
    assert found["GL203"].status == status
    assert found["GL203"].value == pytest.approx(kept)


def test_a_share_that_wavers_around_the_limit_is_inconclusive() -> None:
    found = judged(training([1.0] * 60, kept=lambda step: 0.1 if step % 2 else 0.9))
    assert found["GL203"].status == "inconclusive"


def test_a_gradient_that_never_arrived_is_left_out_not_zero() -> None:
    recording = at_init(seeds=3)
    norms = recording.norms
    norms.loc[norms["site"] == "final_norm", ["recentering", "rescaling", "kept"]] = None
    tables = {"sites": recording.sites, "norms": norms, "steps": recording.steps}
    table = ANALYSIS.compute([Recording.from_tables(recording.meta, **tables)])
    assert "final_norm" not in set(table.loc[table["quantity"] == "kept", "group"])
    assert "final_norm" in set(table.loc[table["quantity"] == "inv_sigma", "group"])


@pytest.mark.parametrize(("eps", "status"), [(1e-5, "pass"), (0.3, "pass"), (0.8, "warn")])
def test_an_eps_as_large_as_the_variance_is_told_at_init_and_in_training(eps: float, status: str) -> None:
    for recording in (at_init(), training([1.0] * 60)):  # their 1/σ is 1
        tables = {"norms": recording.norms, "steps": recording.steps, "sites": recording.sites.assign(eps=eps)}
        found = judged(Recording.from_tables(recording.meta, **tables))["GL204"]
        assert found.status == status
        assert found.value == pytest.approx(eps)
        assert len(found.sites) == (9 if status == "warn" else 0)


def test_the_norm_that_eps_drowns_is_named_alone() -> None:
    recording = training([1.0] * 60)
    norms = recording.norms
    norms.loc[norms["site"] == "blocks.2.ffn_norm", "inv_sigma"] = 300.0
    tables = {"norms": norms, "steps": recording.steps, "sites": recording.sites.assign(eps=1e-5)}
    found = judged(Recording.from_tables(recording.meta, **tables))["GL204"]
    assert found.status == "warn"
    assert found.sites == ("blocks.2.ffn_norm",)
    assert found.value == pytest.approx(0.9)


def test_norms_whose_eps_is_not_known_are_not_asked_for_it() -> None:
    assert "GL204" not in judged(training([1.0] * 60))
