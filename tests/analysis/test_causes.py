"""Which finding explains which."""

from typing import Any

from gradlens.analysis import Cause, Finding, Status, causes


def finding(code: str, status: Status = "warn", *, explains: tuple[str, ...] = (), **facts: Any) -> Finding:
    return Finding(**{"code": code, "status": status, "claim": code, "analysis": "a", "explains": explains, **facts})


def told(*found: Finding) -> list[tuple[str, ...]]:
    """The code of each cause, and those of its symptoms."""
    return [(cause.finding.code, *(one.code for one in cause.symptoms)) for cause in causes(found)]


def test_what_follows_stands_under_its_cause_also_through_one_another() -> None:
    found = finding("C", "fail"), finding("B", explains=("C",)), finding("A", explains=("B",))
    assert told(*found) == [("A", "B", "C")]


def test_what_is_not_flagged_explains_nothing_and_needs_no_explanation() -> None:
    assert told(finding("A", "pass", explains=("B",)), finding("B"), finding("C", "inconclusive")) == [("B",)]


def test_what_began_later_is_no_cause() -> None:
    assert told(finding("A", onset=50, explains=("B",)), finding("B", onset=20)) == [("B",), ("A",)]
    assert told(finding("A", onset=20, explains=("B",)), finding("B", onset=50)) == [("A", "B")]


def test_a_symptom_of_the_whole_run_may_have_come_at_any_step() -> None:
    assert told(finding("A", onset=50, explains=("B",)), finding("B")) == [("A", "B")]


def test_another_recording_is_another_story() -> None:
    found = finding("A", subject="one", explains=("B",)), finding("B", subject="other")
    assert told(*found) == [("A",), ("B",)]


def test_of_two_that_explain_each_other_the_one_that_explains_more_is_the_cause() -> None:
    found = finding("A", explains=("B",)), finding("B", explains=("A", "C")), finding("C")
    assert told(*found) == [("B", "A", "C")] or told(*found) == [("A", "B", "C")]


def test_causes_stand_by_what_ends_worst_then_by_what_began_first() -> None:
    found = finding("A", onset=9), finding("B", onset=3), finding("C", onset=20, explains=("D",)), finding("D", "fail")
    assert told(*found) == [("C", "D"), ("B",), ("A",)]
    assert causes(found)[0] == Cause(found[2], (found[3],))
    assert causes(found)[0].status == "fail"


def test_some_follow_only_where_they_are_told_of_the_same_places() -> None:
    unused = finding("A", sites=("layers.5.unused.weight",), explains_there=("B",))
    for site in ("layers.5", "layers.5.unused", "layers.5.unused.weight"):
        assert told(unused, finding("B", sites=(site,))) == [("A", "B")]
    for sites in ((), ("layers.4",), ("layers.5", "layers.4"), ("layers.55",), ("layers.5.use",)):
        assert told(unused, finding("B", sites=sites)) == [("B",), ("A",)]


def test_what_concerns_its_own_places_alone_stands_last_among_what_is_as_bad() -> None:
    found = finding("A", sites=("a",), explains_there=("B",)), finding("B", sites=("b",), onset=9), finding("C", "fail")
    assert told(*found) == [("C",), ("B",), ("A",)]
    assert told(finding("A", "fail", explains_there=("B",)), finding("C")) == [("A",), ("C",)]


def test_some_follow_only_where_they_were_born_in_one_pass() -> None:
    cause = finding("A", explains=("B backward",))
    assert told(cause, finding("B", born="backward")) == [("A", "B")]
    assert told(cause, finding("B", born="forward")) == [("A",), ("B",)]
