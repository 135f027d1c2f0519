"""Samples: what trained models answer is printed as the task gave it, and nothing is said where nothing is there."""

from analyses.diagnostics.samples import ANALYSIS, compute, show
from gradlens.analysis import compare
from gradlens.recording import Recording
from gradlens.report.document import document

ANSWERS = [{"source": "a", "translation": "b"}, {"source": "c", "translation": "d"}]


def run(label: str, **meta: object) -> Recording:
    return Recording.from_tables({"kind": "training", "label": label, "variant": label, **meta})


def test_every_answer_is_printed_under_its_models_name():
    tables = show(compute([run("pre-ln", samples=ANSWERS), run("post-ln", samples=ANSWERS[:1])]))
    assert [len(rows) for rows in tables.values()] == [2, 1]
    assert all(caption.startswith(label) for caption, label in zip(tables, ("pre-ln", "post-ln"), strict=True))
    assert tables[next(iter(tables))].to_dict("records") == ANSWERS


def test_a_report_without_samples_has_no_such_section():
    titles = [section["title"] for section in document(compare([run("pre-ln")]))["sections"]]
    assert ANALYSIS.title not in titles
    assert len(titles) > 1
    shown = [section["title"] for section in document(compare([run("pre-ln", samples=ANSWERS)]))["sections"]]
    assert ANALYSIS.title in shown
