"""Findings that say alike are told once, and nothing that failed or asks for a look is."""

import pymupdf

from gradlens.analysis import Finding, compare
from gradlens.reporting.document import document
from gradlens.reporting.folded import folded
from gradlens.reporting.pdf import typeset
from tests.reporting.conftest import make_analysis, make_recording

NAMES = [f"run {letter}" for letter in "abcdefgh"]


def finding(name, claim, status="pass", **facts):
    return Finding(code="XX1", status=status, claim=f"{name}: {claim}", subject=name, analysis="losses", **facts)


def test_the_same_claim_of_several_is_said_once_with_the_range_of_their_numbers():
    said = folded([finding(name, "all is finite.", value=k, unit="steps") for k, name in enumerate("abc", 2)])
    assert (said["said"], said["subjects"]) == ("all is finite.", ["a", "b", "c"])
    assert said["measured"] == "2 to 4 steps"


def test_of_claims_that_differ_what_is_the_same_is_said_and_else_nothing():
    same = [finding(n, f"it fell: over steps {k} to 9 it is {k}.5 (95 % CI 1 to {k})") for k, n in enumerate("ab")]
    assert folded(same)["said"] == "it fell"
    assert folded([finding("a", "it rose"), finding("b", "it fell")])["said"] == ""
    assert folded([finding("a", "it rose")])["measured"] == ""


def test_claims_that_differ_in_numbers_alone_stand_for_each_other():
    found = [finding(n, f"grows by 0.{k} a block.", "not applicable") for k, n in enumerate("abc")]
    assert folded([*found, finding("d", "has no blocks.")])["alike"] == [
        "grows by 0.0 a block (and 2 alike).", "has no blocks.",
    ]  # fmt: skip


def printed(judge, **changes):
    made = compare([make_recording(name, variant=None) for name in NAMES], [make_analysis(judge=judge, **changes)])
    document_of = pymupdf.open(stream=typeset(made))
    return " ".join(" ".join(page.get_text() for page in document_of).split()), made


def test_what_passed_stands_once_in_the_report_and_eight_times_in_the_json():
    text, made = printed(lambda table: [finding(name, "all is very well.", value=1.5) for name in NAMES])
    assert text.count("all is very well.") == 1
    assert "8 of 8" in text
    assert [found["value"] for found in document(made)["findings"]] == [1.5] * 8


def test_what_failed_is_printed_for_each_and_what_does_not_apply_says_once_what_would_help():
    def judge(table):
        failed = [finding(name, f"is wrong at {k}.", "fail", value=k) for k, name in enumerate(NAMES)]
        idle = [Finding(code="XX2", status="not applicable", claim=f"{n}: record it with x=1.", subject=n, analysis="l")
                for n in NAMES]  # fmt: skip
        return failed + idle

    text, _ = printed(judge)
    assert all(f"{name}: is wrong at {k}." in text for k, name in enumerate(NAMES))
    assert text.count("record it with x=1.") == 1


def test_a_question_without_an_answer_is_named_with_what_it_lacks_and_a_command_is_typeset():
    found = [finding(NAMES[0], "is wrong.", "fail", remedies=("Say `gradlens list` and look.",))]
    silent = make_analysis("silent", title="A silent one", kinds=("init",))
    made = compare([make_recording()], [make_analysis(judge=lambda table: found), silent])
    text = " ".join(" ".join(page.get_text() for page in pymupdf.open(stream=typeset(made))).split())
    assert "XX101 A silent one No run was trained" in text
    assert "Say gradlens list and look." in text
