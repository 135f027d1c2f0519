"""Held-out metrics and answers are printed as they were recorded, and nothing is said where nothing is there."""

import pandas as pd
import pytest

from analyses.held_out import ANALYSIS, compute, show
from gradlens.analysis import compare
from gradlens.recording import Recording
from gradlens.reporting.document import document
from tests.analyses.planted import training

ANSWERS = [{"source": "a", "translation": "b"}, {"source": "c", "translation": "d"}]


def run(label: str, **meta: object) -> Recording:
    return Recording.from_tables({"kind": "training", "label": label, "variant": label, **meta})


def scored(label: str, bleu: list[float | None]) -> Recording:
    steps = pd.DataFrame({"step": range(len(bleu)), "loss": 1.0, "valid_loss": bleu, "bleu": bleu}).astype(float)
    return Recording.from_tables({"kind": "training", "label": label}, steps=steps.astype({"step": int}))


def test_the_last_value_of_each_metric_stands_in_one_row_a_run():
    tables = show(compute([scored("a", [1.0, None, 7.5, None]), scored("b", [None, 2.0])]))
    (rows,) = tables.values()
    assert rows.to_dict("records") == [
        {"recording": "a", "after steps": 3, "valid_loss": 7.5, "bleu": 7.5},
        {"recording": "b", "after steps": 2, "valid_loss": 2.0, "bleu": 2.0},
    ]


def test_every_answer_is_printed_under_its_models_name():
    tables = show(compute([run("pre-ln", samples=ANSWERS), run("post-ln", samples=ANSWERS[:1])]))
    assert [len(rows) for rows in tables.values()] == [2, 1]
    assert all(caption.startswith(label) for caption, label in zip(tables, ("pre-ln", "post-ln"), strict=True))
    assert tables[next(iter(tables))].to_dict("records") == ANSWERS


@pytest.mark.parametrize(("meta", "there"), [({}, False), ({"samples": ANSWERS}, True)])
def test_a_report_without_either_has_no_such_section(meta, there):
    recording = training([3.0, 2.0, 1.0], **meta)
    titles = [section["title"] for section in document(compare([recording]))["sections"]]
    assert (ANALYSIS.title in titles) == there
    assert len(titles) > 1


def test_losses_and_gradients_are_no_metrics():
    assert compute([training([3.0, 2.0, 1.0])]).empty
