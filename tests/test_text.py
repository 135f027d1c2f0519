"""Rows in columns: plain text, the same wherever it is printed."""

import pytest

from gradlens.text import columns


def test_columns_are_as_wide_as_their_widest_cell_and_two_apart():
    rows = [["norm", "width"], ["a [bold]b[/]", "8"], ["", "1024"]]
    assert columns(rows, right=(1,), indent=1).split("\n") == [" norm          width", " a [bold]b[/]      8",
                                                               "                1024"]  # fmt: skip
    assert columns([]) == ""


@pytest.mark.parametrize(("variable", "value"), [("COLUMNS", "20"), ("FORCE_COLOR", "1"), ("TERM", "dumb")])
def test_neither_terminal_nor_environment_cuts_or_colours_them(monkeypatch, variable, value):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv(variable, value)
    assert columns([["1", "word " * 99 + "end"]]) == "1  " + "word " * 99 + "end"


def test_a_width_wraps_the_widest_column():
    lines = columns([["a", "one two three four"], ["b", "five"]], width=12).split("\n")
    assert lines == ["a  one two", "   three", "   four", "b  five"]
