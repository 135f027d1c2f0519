"""What a notebook shows of findings is short, leads with causes, and takes nothing of theirs for markup."""

import sys
from dataclasses import replace
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure

import gradlens
from gradlens.analysis import Comparison, Finding
from gradlens.analysis.comparison import Section
from gradlens.errors import NothingFoundError, UnknownNameError
from tests.analysis.test_comparison import analysis, recording
from tests.reporting.conftest import make_analysis, make_recording

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
    assert repr(Comparison((recording("run"),) * 33, ())) == "Comparison(33 recordings: no findings)"


def test_its_table_has_causes_with_what_follows_and_what_to_try() -> None:
    table = ElementTree.fromstring(compared(*PASSED, SYMPTOM, CAUSE)._repr_html_())
    rows = ["".join(row.itertext()) for row in table.iter("tr")]
    assert rows == ["warnGL408run: the <b>rate</b> & more", "Try: Print it.", "warnGL303follows: run: spikes"]
    assert table.findtext("p") == "2 warn, 100 pass"


def test_a_finding_shows_what_it_claims() -> None:
    assert "run: the <b>rate</b> & more" in "".join(ElementTree.fromstring(CAUSE._repr_html_()).itertext())


def test_a_notebook_shows_verdict_and_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell, version_info=(9, 0)))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(HTML=str, display=shown.append))
    gradlens.analysis.compare([make_recording()], [make_analysis(judge=lambda table: [CAUSE])]).show()
    (page,) = shown
    assert "Print it." in page
    assert page.count('<img alt="The loss while training" src="data:image/png;base64,iVBOR') == 1


def test_elsewhere_it_is_said_how_to_have_them(capsys: pytest.CaptureFixture[str]) -> None:
    compared(CAUSE).show()
    assert "gradlens.report(comparison, 'report.pdf')" in capsys.readouterr().out


def test_a_recording_draws_the_figure_of_an_analysis_and_an_unknown_name_is_told_with_those_near() -> None:
    run = make_recording()
    assert isinstance(run.plot("training_curves"), Figure)
    assert isinstance(gradlens.plot([run, make_recording("b")], "norm_decomposition"), Figure)
    with pytest.raises(UnknownNameError, match=r"'norm_decompositon'\. Did you mean norm_decomposition"):
        run.plot("norm_decompositon")
    with pytest.raises(NothingFoundError, match=r"no figure 'depth_profile' of these recordings\. No recording at"):
        run.plot("depth_profile")


def test_a_recording_shows_what_it_holds_and_takes_no_label_for_markup() -> None:
    table = ElementTree.fromstring(make_recording()._repr_html_())
    assert table.findtext("p/b") == "pre-ln, warm-up"
    assert {row[0].text: row[1].text for row in table.iter("tr")} == {
        "recorded": "60 steps", "status": "complete", "norms": "8", "blocks": "4",
    }  # fmt: skip
    assert "&lt;b&gt;" in make_recording("<b>")._repr_html_()
