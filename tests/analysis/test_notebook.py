"""What a notebook shows of findings is short, leads with causes, and takes nothing of theirs for markup."""

from dataclasses import replace
from xml.etree import ElementTree

from gradlens.analysis import Comparison, Finding
from gradlens.analysis.comparison import Section
from tests.analysis.test_comparison import analysis, recording

CAUSE = Finding(
    code="GL408", status="warn", claim="run: the <b>rate</b> & more", subject="run", analysis="x", explains=("GL303",),
    remedies=("Print it.",),
)  # fmt: skip
SYMPTOM = replace(CAUSE, code="GL303", claim="run: spikes", explains=(), remedies=())
PASSED = [replace(SYMPTOM, code=f"GL{number}", status="pass", claim="well " * 50) for number in range(500, 600)]


def compared(*findings: Finding) -> Comparison:
    question = analysis()
    section = Section(question, ("run",), question.compute([]), findings, {})
    return Comparison((recording("run"),), (section,))


def test_a_comparison_of_a_hundred_findings_is_one_line() -> None:
    text = repr(compared(*PASSED, SYMPTOM, CAUSE))
    assert text == "Comparison(run: 2 warn, 100 pass; first Finding(GL408, warn: run: the <b>rate</b> & more))"
    assert repr(compared()) == "Comparison(run: no findings)"


def test_its_table_has_causes_with_what_follows_and_what_to_try() -> None:
    table = ElementTree.fromstring(compared(*PASSED, SYMPTOM, CAUSE)._repr_html_())
    rows = ["".join(row.itertext()) for row in table.iter("tr")]
    assert rows == ["warnGL408run: the <b>rate</b> & more", "Try: Print it.", "warnGL303follows: run: spikes"]
    assert table.findtext("p") == "2 warn, 100 pass"


def test_a_finding_shows_what_it_claims() -> None:
    assert "run: the <b>rate</b> & more" in "".join(ElementTree.fromstring(CAUSE._repr_html_()).itertext())
