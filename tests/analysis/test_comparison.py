from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
import pytest
from matplotlib.figure import Figure

from gradlens.analysis import Analysis, Finding, compare
from gradlens.analysis.figures import draw
from gradlens.errors import GradlensError, NothingFoundError
from gradlens.recording import Recording


def recording(label: str, kind: str = "training", path: Path | None = None, **tables: pd.DataFrame) -> Recording:
    made = Recording.from_tables({"label": label, "kind": kind}, **tables)
    made.path = path
    return made


def passed(claim: str) -> Finding:
    return Finding(code="XX1", status="pass", claim=claim, analysis="steps")


def analysis(**changes: Any) -> Analysis:
    facts: dict[str, Any] = {
        "name": "steps", "title": "Steps", "question": "How many steps?", "reading": "Bars.", "needs": {},
        "compute": lambda rs: pd.DataFrame({"label": [r.label for r in rs], "value": [1.0 for _ in rs]}),
        "plot": lambda table, figure: figure.add_subplot().bar(table["label"], table["value"]),
        "judge": lambda table: [passed(label) for label in table["label"]],
    }  # fmt: skip
    return Analysis(**(facts | changes))


def test_an_analysis_is_asked_only_of_the_kinds_it_can_use() -> None:
    both = [recording("a", "init"), recording("b", "training")]
    section = compare(both, [analysis(kinds=("init",))]).sections[0]
    assert section.labels == ("a",)
    assert list(section.table["label"]) == ["a"]


def test_findings_and_tables_come_in_the_order_of_the_analyses() -> None:
    made = compare([recording("a"), recording("b")], [analysis(name="one"), analysis(name="two")])
    assert list(made.tables) == ["one", "two"]
    assert [f.claim for f in made.findings] == ["a", "b", "a", "b"]


def test_columns_without_any_value_are_named_as_lacking() -> None:
    steps = pd.DataFrame({"step": [0, 1], "loss": [1.0, 2.0], "lr": [float("nan")] * 2})
    asked = analysis(needs={"steps": ["loss", "lr", "valid_loss"], "norms": ["kept"]})
    section = compare([recording("a", steps=steps)], [asked]).sections[0]
    assert section.lacking == {"a": ("steps.lr", "steps.valid_loss", "norms.kept")}


def test_recordings_that_share_a_label_are_told_apart_by_their_folders() -> None:
    twins = [recording("gpt", path=Path("runs/a")), recording("gpt", path=Path("runs/b")), recording("other")]
    assert [r.label for r in compare(twins, []).recordings] == ["gpt (a)", "gpt (b)", "other"]
    assert [r.label for r in twins] == ["gpt", "gpt", "other"]


def test_recordings_that_share_label_and_folder_name_are_numbered() -> None:
    same = [recording("gpt", path=Path(x)) for x in ("a/run", "b/run")] + [
        recording("gpt"),
        recording("gpt (1)"),
    ]
    labels = [r.label for r in compare(same, []).recordings]
    assert len(set(labels)) == 4
    assert all(label.startswith("gpt (") for label in labels)


def test_a_label_keeps_no_control_characters() -> None:
    assert compare([recording("red\x1b[31m\n")], []).recordings[0].label == "red�[31m�"


def test_an_error_inside_an_analysis_says_which_one() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        compare([recording("a")], [analysis(name="broken", compute=lambda rs: 1 / 0)])
    assert "'broken'" in caught.value.__notes__[0]


def test_nothing_to_compare_is_an_error() -> None:
    with pytest.raises(NothingFoundError, match="at least one recording"):
        compare([], [])


def test_figures_are_drawn_once_and_only_where_there_is_something_to_draw() -> None:
    drawn: list[Figure] = []

    def plot(table: pd.DataFrame, figure: Figure) -> None:
        drawn.append(figure)

    made = compare([recording("a")], [analysis(plot=plot), analysis(name="empty", plot=plot, kinds=())])
    assert list(made.figures) == ["steps"]
    assert made.figures["steps"] is made.figures["steps"]
    assert len(drawn) == 1


def test_an_analysis_that_draws_nothing_has_tables_to_read_and_no_figure() -> None:
    asked = analysis(plot=None, show=lambda table: {"Of all.": table.head(1)})
    made = compare([recording("a")], [asked, analysis(name="empty", show=asked.show, kinds=())])
    assert made.figures == {}
    assert [list(section.shown) for section in made.sections] == [["Of all."], []]
    with pytest.raises(GradlensError, match="'steps' draws nothing"):
        draw(asked, made.tables["steps"])


def test_the_readers_matplotlib_settings_change_no_figure_and_stay_as_they_are() -> None:
    sizes: list[float] = []
    asked = analysis(plot=lambda table, figure: sizes.append(matplotlib.rcParams["font.size"]))
    assert compare([recording("a")], [asked]).figures
    with matplotlib.rc_context({"font.size": 31}):
        assert compare([recording("a")], [asked]).figures
        assert matplotlib.rcParams["font.size"] == 31
    assert sizes[0] == sizes[1] != 31


def test_a_dollar_sign_in_a_label_starts_no_formula() -> None:
    asked = analysis(plot=lambda table, figure: figure.text(0, 0, table["label"][0]))
    text = compare([recording("a$\\frac$b")], [asked]).figures["steps"].texts[0]
    assert not text.get_parse_math()
