import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gradlens.analysis import Analysis, Comparison, Finding, compare
from gradlens.reporting import record
from gradlens.reporting.document import checks, document, plain_values
from gradlens.reporting.findings import to_csv, to_json, write_tables
from gradlens.reporting.folder import write_folder
from tests.reporting.conftest import MODEL, make_analysis, make_recording


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in strings(item)]
    if isinstance(value, list):
        return [text for item in value for text in strings(item)]
    return [value] if isinstance(value, str) else []


def test_findings_json_is_strict_json_that_reads_back(comparison: Comparison, tmp_path: Path) -> None:
    write_folder(comparison, tmp_path / "new", "a.pdf", command="gradlens compare a b")

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    text = (tmp_path / "new" / "findings.json").read_text("utf-8")
    content = json.loads(text, parse_constant=refuse)
    assert content["command"] == "gradlens compare a b"
    assert content == document(comparison, "gradlens compare a b")
    assert len(content["findings"]) == len(comparison.findings)


def test_missing_and_infinite_numbers_have_a_place_in_json() -> None:
    values = plain_values({"a": math.nan, "b": np.float64("inf"), "c": np.int64(3), "d": (None, True), "e": Path("x")})
    assert values == {"a": None, "b": "inf", "c": 3, "d": [None, True], "e": "x"}
    assert b"NaN" not in to_json(values)


def test_every_number_is_there_as_it_is_and_as_it_is_printed(comparison: Comparison) -> None:
    finding = comparison.findings[0]
    kept = document(comparison)["findings"][0]
    assert kept["value"] == finding.value
    assert kept["printed"]["measured"] == f"{finding.value:.3g}"
    assert kept["printed"]["interval"].startswith("[")


def test_the_document_names_every_recording_definition_and_version(comparison: Comparison) -> None:
    content = document(comparison)
    assert [r["label"] for r in content["recordings"]] == [r.label for r in comparison.recordings]
    assert {"recentering", "rescaling", "kept", "stream"} <= set(content["definitions"])
    assert {"gradlens", "typst", "matplotlib"} <= set(content["software"])
    assert "2.13.0" in strings(content["settings"])


def test_tables_are_written_whole_as_csv(comparison: Comparison, tmp_path: Path) -> None:
    files = write_tables(comparison, tmp_path / "tables")
    assert [f.name for f in files] == ["summary.csv", "losses.csv", "again.csv"]
    read = pd.read_csv(tmp_path / "tables" / "losses.csv")
    pd.testing.assert_frame_equal(read, comparison.tables["losses"], check_dtype=False)


def test_an_empty_table_gets_no_file(tmp_path: Path) -> None:
    made = compare([make_recording(kind="init")], [make_analysis()])
    assert [f.name for f in write_tables(made, tmp_path)] == ["summary.csv"]


def test_csv_has_unix_line_ends_and_empty_missing_values() -> None:
    assert to_csv(pd.DataFrame({"a": [1.5, np.nan], "b": ["x", None]})) == b"a,b\n1.5,x\n,\n"


def finding(code: str, status: Any, **more: Any) -> Finding:
    return Finding(code=code, status=status, claim=f"{code} {status}", analysis="losses", **more)


def test_findings_of_a_code_stand_together_with_the_worst_first_and_causes_once() -> None:
    found = [
        finding("B2", "pass", causes=("never said",), threshold="1"),
        finding("A1", "pass"),
        finding("B2", "fail", causes=("hot", "wet"), threshold="1"),
        finding("B2", "warn", causes=("wet",), threshold="2"),
    ]
    made = compare([make_recording()], [make_analysis(judge=lambda table: found, codes={"B2": "It rains. Or not."})])
    first, second = checks(made.sections[0])
    assert (first["code"], first["title"], first["status"]) == ("B2", "It rains", "fail")
    assert [f["status"] for f in first["findings"]] == ["fail", "warn", "pass"]
    assert first["causes"] == ["hot", "wet"]
    assert first["thresholds"] == ["1", "2"]
    assert (second["code"], second["title"]) == ("A1", "A1 pass")  # a code without a paragraph


def test_a_figure_is_never_printed_wider_or_higher_than_a_page() -> None:
    sizes = [(6.7, 3.0), (13.4, 3.0), (6.7, 16.0), (3.35, 2.0)]
    made = compare([make_recording()], [make_analysis(f"a{i}", size=size) for i, size in enumerate(sizes)])
    shown = [section["shown"] for section in document(made)["sections"]]
    assert shown == pytest.approx([1.0, 1.0, 0.5, 0.5])


def test_the_table_behind_a_figure_is_attached_and_not_printed() -> None:
    made = compare([make_recording()], [make_analysis()])
    table = document(made)["sections"][0]["table"]
    assert table == {"file": "losses.csv", "rows": 60, "columns": ["panel", "label", "x", "value", "unit"]}


def test_a_section_without_anything_to_show_is_left_out_and_its_finding_is_kept() -> None:
    content = document(compare([make_recording(kind="init")], [make_analysis()]))
    assert content["sections"] == []
    assert [found["status"] for found in content["findings"]] == ["not applicable"]


def test_what_was_not_recorded_is_named_by_table() -> None:
    needs = {"steps": ["loss", "lr"], "activations": ["step", "rms"]}
    steps = make_recording().steps.assign(lr=np.nan)
    bare = type(make_recording()).from_tables({"label": "a", "kind": "training"}, steps=steps)
    section = document(compare([bare], [make_analysis(needs=needs)]))["sections"][0]
    assert section["lacking"] == {"a": "the table activations; lr in the table steps"}


def test_a_caption_tells_of_what_is_in_the_table() -> None:
    made = compare([make_recording()], [make_analysis(caption=lambda table: f"{len(table)} points.")])
    (section,) = document(made)["sections"]
    assert section["reading"] == "60 points."
    assert "60 points." in section["alt"]


def read_analysis(**changes: Any) -> Analysis:
    """An analysis whose answer is read, not drawn."""
    rows = pd.DataFrame({"recordings": ["all"], "steps": [60.0], "how": ["by a very long way that takes its room"]})
    return make_analysis("read", plot=None, show=lambda table: {"What was so.": rows}, **changes)


def test_an_answer_that_is_read_has_tables_and_no_figure() -> None:
    made = compare([make_recording()], [read_analysis(), make_analysis()])
    read, drawn = document(made)["sections"]
    assert list(made.figures) == ["losses"]
    assert not read["drawn"]
    assert read["alt"] == ""
    assert drawn["drawn"]
    assert drawn["tables"] == []
    (table,) = read["tables"]
    assert table["caption"] == "What was so."
    assert table["printed"] == [["all", "60", "by a very long way that takes its room"]]
    assert table["numeric"] == [False, True, False]
    assert [letters > 0 for letters in table["room"]] == [False, False, True]


def test_the_key_figure_is_one_that_there_is() -> None:
    bad = read_analysis(judge=lambda table: [finding("A", "fail")])
    assert document(compare([make_recording()], [bad, make_analysis()]))["key"] == "losses"
    assert document(compare([make_recording()], [bad]))["key"] is None


def test_a_short_table_has_no_column_that_breaks_but_its_longest() -> None:
    rows = pd.DataFrame({"recordings": ["first"], "n": ["1"]})
    made = compare([make_recording()], [make_analysis(plot=None, show=lambda table: {"Short.": rows})])
    assert document(made)["sections"][0]["tables"][0]["room"] == [5, 0]


def test_columns_share_the_line_where_their_own_widths_would_leave_none_to_the_longest() -> None:
    rows = pd.DataFrame({f"c{k}": ["x" * (20 + (k == 3))] for k in range(6)})
    made = compare([make_recording()], [make_analysis(plot=None, show=lambda table: {"Wide.": rows})])
    assert document(made)["sections"][0]["tables"][0]["room"] == [20, 20, 20, 21, 20, 20]


def test_what_the_lens_missed_is_said() -> None:
    audit = {"problems": ["2 norms never ran."], "gradient": "reduced"}
    content = document(compare([make_recording(audit=audit)], []))
    assert content["recorded"][0]["problems"] == ["2 norms never ran."]
    assert content["recorded"][0]["norms_seen"] == content["recorded"][0]["norms"] == 8


def test_settings_that_differ_say_whose_value_is_which() -> None:
    both = [make_recording("a, warm-up"), make_recording("b, no warm-up")]
    rows = {s["name"]: s["values"] for s in document(compare(both, []))["settings"] if s["group"] == "training"}
    assert rows["lr"] == [{"value": "0.001", "labels": []}]
    assert rows["warmup"] == [
        {"value": "20", "labels": ["a, warm-up"]},
        {"value": "0", "labels": ["b, no warm-up"]},
    ]


def test_of_many_numbers_of_a_setting_the_range_is_said():
    recordings = [
        make_recording(f"run {k}", steps=3, seeds=[k], model=MODEL | {"width": 64 + k}, training={"lr": 10.0**-k})
        for k in range(12)
    ]
    said = {row["name"]: row["values"] for row in record.settings(recordings)}
    assert said["width"] == [{"value": "64 to 75, 12 values", "labels": []}]
    assert said["lr"] == [{"value": "1e-11 to 1, 12 values", "labels": []}]


def test_a_column_of_few_letters_keeps_room_for_the_words_of_its_head() -> None:
    rows = pd.DataFrame({"expected": ["2.5"], **{f"c{k}": ["x" * 20] for k in range(3)}, "from": ["x" * 45]})
    made = compare([make_recording()], [make_analysis(plot=None, show=lambda table: {"Wide.": rows})])
    assert document(made)["sections"][0]["tables"][0]["room"] == [len("expected"), 20, 20, 20, 45]
