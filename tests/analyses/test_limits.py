"""Thresholds are written once, with their case, and an interval that covers one decides nothing."""

import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import analyses
from analyses import ANALYSES
from analyses.limits import held_against, limit
from analyses.papers import PAPERS
from gradlens.errors import GradlensError

FILE = Path(analyses.__file__).with_name("limits.toml")
LIMITS = tomllib.loads(FILE.read_text(encoding="utf-8"))
numbers = st.floats(-1e6, 1e6)


def test_every_section_is_a_known_code_and_says_what_it_holds_for() -> None:
    questions = [*ANALYSES, *(question for paper in PAPERS.values() for question in paper)]
    codes = {code for analysis in questions for code in analysis.codes}
    assert set(LIMITS) <= codes
    for section in LIMITS:
        assert re.search(rf"^\[{section}\] # \w+", FILE.read_text(encoding="utf-8"), re.MULTILINE)


def test_every_threshold_is_read_by_some_analysis() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in FILE.parent.rglob("*.py"))
    for names in LIMITS.values():
        assert all(f'"{name}"' in source for name in names)


def test_an_unknown_threshold_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(GradlensError, match=r"GL101\.least"):
        limit("GL101", "nonsense")


@given(low=numbers, width=st.floats(0, 1e6), least=numbers, span=st.floats(0, 1e6))
def test_an_interval_that_covers_an_end_of_the_range_is_inconclusive(
    low: float, width: float, least: float, span: float
) -> None:
    high, most = low + width, least + span
    status = held_against(low, high, least=least, most=most, outside="fail")
    inside, apart = least <= low and high <= most, high < least or low > most
    assert status == ("pass" if inside else "fail" if apart else "inconclusive")
    if low < least < high or low < most < high:
        assert status == "inconclusive"


def test_without_an_interval_nothing_is_decided() -> None:
    assert held_against(float("nan"), float("nan"), most=1.0) == "inconclusive"
