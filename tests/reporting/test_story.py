from typing import Any

import pytest

from gradlens.analysis import Finding, compare
from gradlens.reporting import story
from tests.reporting.conftest import make_analysis, make_recording


def told(recordings: list[Any], findings: list[Finding] | None = None) -> str:
    analyses = [make_analysis()] if findings is None else [make_analysis(judge=lambda table: findings)]
    return " ".join(story.verdict(compare(recordings, analyses)))


def finding(claim: str, status: Any = "fail", subject: str = "", **facts: Any) -> Finding:
    return Finding(**{"code": "X", "status": status, "claim": claim, "subject": subject, "analysis": "losses"} | facts)


@pytest.mark.parametrize(
    ("variants", "names"),
    [
        (["pre-ln"], ("pre-ln", "What normalization does to its gradients")),
        (["a", "b"], ("a and b", "What normalization does to their gradients")),
        (["a", "b", "c"], ("a, b and c", "What normalization does to their gradients")),
        (list("abcde"), ("5 models side by side", "What normalization does to their gradients")),
        ([None], ("some label", "What normalization does to its gradients")),
    ],
)
def test_the_heading_names_what_is_compared(variants: list[str | None], names: tuple[str, str]) -> None:
    recordings = [make_recording("some label" if v is None else f"{v}, run", variant=v) for v in variants]
    assert story.heading(compare(recordings, [])) == names


def test_the_verdict_names_best_and_worst_run_with_the_unit() -> None:
    text = told([make_recording("pre-ln, warm-up"), make_recording("post-ln, warm-up", variant="post-ln")], [])
    assert "held-out loss is lowest for pre-ln, warm-up (" in text
    assert "nats per byte) and highest for post-ln, warm-up (" in text


def test_without_held_out_losses_the_training_loss_is_compared() -> None:
    bare = make_recording("a").steps.drop(columns="valid_loss")
    other = type(make_recording()).from_tables({"label": "b", "kind": "training"}, steps=bare)
    assert "training loss is lowest for" in told([make_recording("a"), other], [])


def test_one_run_is_not_compared_with_itself() -> None:
    assert "lowest" not in told([make_recording()])


def test_runs_that_did_not_end_well_are_said_first() -> None:
    text = told(
        [
            make_recording("a", status="diverged"),
            make_recording("b", status="interrupted"),
            make_recording("c"),
        ]
    )
    assert "a diverged. b stopped before the end." in text
    assert "c diverged" not in text


def test_a_cause_is_told_with_its_step_its_pass_what_follows_and_what_to_try() -> None:
    found = [
        finding("post-ln: learned nothing.", subject="post-ln", code="S"),
        finding(
            "post-ln: block 2 amplifies: its output is 7 times larger (95 % CI 6 to 8).", "warn", subject="post-ln",
            code="C", explains=("S",), onset=80, born="forward", remedies=("Look there.", "Or there."),
        ),
        finding("All is well", "pass"),
    ]  # fmt: skip
    text = told([make_recording()], found)
    assert text.startswith(
        "post-ln: block 2 amplifies, from step 80 on, born in the forward pass (C, observed). What follows from it: "
        "learned nothing (S). Try first: look there."
    )
    assert "All is well" not in text
    assert "CI" not in text


@pytest.mark.parametrize(
    ("sites", "said"),
    [
        (("head.w",), "a: two stand still, at head.w (X"),
        (("3", "b", "c", "d"), "a: two stand still, at module 3, b and 2 more (X"),
        (("two",), "a: two stand still (X"),
        (("",), "a: two stand still (X"),
    ],
)
def test_the_worst_places_are_named_where_the_claim_has_lost_them(sites: tuple[str, ...], said: str) -> None:
    found = finding("a: two stand still: here and there (2 %)", "warn", subject="a", sites=sites)
    assert told([make_recording()], [found]).startswith(said)


def test_an_estimate_is_as_sure_as_its_interval() -> None:
    assert "(X, 95 % sure)" in told([make_recording()], [finding("a: b", "warn", low=1.0, high=2.0, value=1.5)])


def test_only_the_first_causes_stand_in_the_verdict_but_all_are_counted() -> None:
    found = [finding(f"claim {i}", "warn") for i in range(5)] + [finding("the worst")]
    text = told([make_recording()], found)
    assert text.startswith("the worst (X, observed). claim 0 (X, observed). claim 1 (X, observed). 3 more below.")
    assert "claim 2" not in text
    assert "Of 6 checks, 1 failed and 5 ask for a look." in text


def test_of_one_recording_its_name_is_said_once() -> None:
    text = told([make_recording()], [finding(f"run: claim {i}", "warn", subject="run") for i in range(2)])
    assert text.startswith("run: claim 0 (X, observed). Also, claim 1 (X, observed).")


def test_no_finding_is_said_in_words() -> None:
    assert "No check was made" in told([make_recording()], [])


def test_a_claim_without_subject_keeps_its_colon() -> None:
    assert story.headline(finding("The ratio: 3 over the limit (n = 4)")) == "The ratio: 3 over the limit"


@pytest.mark.parametrize(
    ("about", "title"),
    [
        ("How a run ended. A loss that is NaN fails.", "How a run ended"),
        ("Spikes: steps that stand out.", "Spikes"),
        ("Whether c is constant over the blocks (q: the stream).", "Whether c is constant over the blocks"),
        ("The loss at the end.", "The loss at the end"),
        ("", ""),
    ],
)
def test_a_paragraph_gives_its_first_clause_as_a_title(about: str, title: str) -> None:
    assert story.first_clause(about) == title


def test_where_nothing_is_flagged_what_one_should_expect_is_told() -> None:
    answer = finding("some label: the gradient norm is what one should expect", "pass", details={"answer": True})
    recordings = [make_recording("some label", variant=None)]
    assert told(recordings, [answer, finding("b", "pass")]).startswith(
        "Nothing asks for a look. some label: the gradient norm is what one should expect."
    )
    assert "Nothing asks" not in told(recordings, [finding("b", "pass")])
    assert "Nothing asks" not in told(recordings, [answer, finding("c", "warn")])


def test_of_many_models_the_verdict_ranks_the_best_run_of_each() -> None:
    names = ["a", "post-b", "c"]
    text = told([make_recording(f"{n}, {s}", variant=n) for n in names for s in ("warm-up", "no warm-up")], [])
    ranked = text[text.index("By the held-out loss of its best run, in nats per byte: ") :]
    assert sorted(names, key=ranked.index)[-1] == "post-b"
    assert "lowest" not in text


def test_causes_that_say_the_same_of_several_recordings_are_one_sentence() -> None:
    found = [finding(f"{n}: learned nothing (n = {k})", "warn", subject=n) for k, n in enumerate("abc")]
    text = told([make_recording()], [*found, finding("d: something else", "warn", subject="d")])
    assert text.startswith("a, b and c: learned nothing (X, observed). d: something else (X, observed).")


def test_one_block_is_no_blocks() -> None:
    one = make_recording(model={"family": "transformer", "blocks": 1})
    assert "Transformer, 1 block ·" in story.subtitle(compare([one], []))
