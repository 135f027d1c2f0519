import pandas as pd

from gradlens.analysis import Comparison, compare
from gradlens.reporting import findings_text, summary_text
from tests.reporting.conftest import make_analysis, make_recording


def test_the_summary_is_a_table_with_a_line_a_recording(comparison: Comparison) -> None:
    lines = summary_text(comparison).splitlines()
    assert len(lines) == 3 + 6
    assert lines[0].split()[:2] == ["recording", "measured"]
    assert lines[3].startswith("pre-ln  ")
    assert lines[-1].startswith("post-ln, no warm-up  60 steps")
    ends = {len(line) for line in lines[3:]}
    assert len(ends) == 1  # the last column is flush right


def test_a_status_is_printed_only_where_one_did_not_complete() -> None:
    good, bad = make_recording("a"), make_recording("b", status="diverged")
    assert "status" not in summary_text(compare([good], []))
    assert summary_text(compare([good, bad], [])).splitlines()[-1].endswith("diverged")


def test_what_stands_out_comes_first_and_in_full(comparison: Comparison) -> None:
    lines = findings_text(comparison).splitlines()
    assert lines[0].startswith("✗ fail           XX101 post-ln, warm-up ends above the loss limit")
    assert any("try: warm the learning rate up" in line for line in lines)
    assert lines[-1].startswith("✓ pass") or "fail" in lines[-1]
    assert any(line.startswith("✓ pass           XX101 The loss at the end (2 of 4)") for line in lines)


def test_verbose_text_holds_every_claim_with_its_numbers_and_sources(comparison: Comparison) -> None:
    text = findings_text(comparison, verbose=True)
    for finding in comparison.findings:
        assert finding.claim in text
    for part in (
        "cause: few steps (innocent)",
        "limit: 2.8 nats",
        "see: Xiong",
        "expected: 2, the same model",
    ):
        assert part in text


def test_no_line_is_wider_than_the_terminal(comparison: Comparison) -> None:
    for width in (60, 80, 132):
        for verbose in (False, True):
            text = findings_text(comparison, width=width, verbose=verbose)
            assert max(map(len, text.splitlines())) <= width


def test_verbose_text_holds_the_tables_that_are_read_within_the_width() -> None:
    rows = pd.DataFrame({"recordings": ["all 4 training runs"], "n": [3.0], "how": ["a word " * 30 + "and an end"]})
    asked = make_analysis(plot=None, show=lambda table: {"What was so.": rows})
    made = compare([make_recording()], [asked])
    assert "What was so." not in findings_text(made)
    for width in (60, 100):
        lines = findings_text(made, width=width, verbose=True).splitlines()
        at = lines.index("What was so.")
        assert lines[at + 1].split() == ["recordings", "n", "how"]
        assert lines[at + 2].startswith("all 4 training runs  3  a word")
        assert lines[-1].endswith("end")
        assert max(map(len, lines)) <= width


def test_without_findings_the_text_says_so() -> None:
    made = compare([make_recording()], [make_analysis(judge=lambda table: [])])
    assert "No check was made" in findings_text(made)
