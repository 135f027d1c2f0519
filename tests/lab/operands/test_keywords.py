from pathlib import Path
from typing import Literal

import pytest

from gradlens.errors import GradlensError, UnknownNameError
from gradlens.lab.operands.keywords import keywords, missing


def build(
    depth: int,
    rate: float = 0.5,
    bias: bool = True,
    name: str = "a",
    kind: Literal["relu", "gelu"] = "relu",
    limit: int | None = None,
    size: float | int | str = 1,
    shape: tuple[int, ...] = (1,),
    where: Path = Path(),
    steps=3,
    free=None,
):
    """Takes every kind of keyword."""


@pytest.mark.parametrize(
    ("pair", "value"),
    [
        ("depth=3", 3),
        ("rate=1e-3", 1e-3),
        ("bias=no", False),
        ("bias=True", True),
        ("name=3", "3"),
        ("name=a=b", "a=b"),
        ("kind=gelu", "gelu"),
        ("limit=none", None),
        ("limit=7", 7),
        ("size=0.5", 0.5),
        ("size=large", "large"),
        ("shape=(2, 3)", (2, 3)),
        ("where=a/b", Path("a/b")),
        ("steps=4", 4),
        ("free=[1, 2]", [1, 2]),
        ("free=text", "text"),
    ],
)
def test_a_value_takes_the_type_of_its_annotation_else_of_its_default(pair, value):
    (found,) = keywords(build, "build", [pair]).values()
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("pair", "must"),
    [
        ("depth=deep", "of type int"),
        ("depth=1.5", "of type int"),
        ("bias=maybe", "true or false"),
        ("kind=tanh", "one of relu, gelu"),
        ("shape=3", r"tuple.* such as '\(1,2\)'"),
        ("steps=many", "of type int"),
        ("depth", "key=value"),
        ("=3", "key=value"),
    ],
)
def test_a_value_that_does_not_convert_is_named_with_what_it_must_be(pair, must):
    with pytest.raises(GradlensError, match=must):
        keywords(build, "build", [pair])


def test_an_unknown_keyword_gets_the_near_ones():
    with pytest.raises(UnknownNameError, match="Did you mean depth"):
        keywords(build, "build", ["dept=3"])


def test_a_function_that_takes_any_keyword_gets_literals_and_texts():
    def anything(**options):
        """Takes what comes."""

    assert keywords(anything, "anything", ["a=1", "b=x"]) == {"a": 1, "b": "x"}


def test_annotations_that_are_texts_are_understood():
    def postponed(width: "int" = 1, other: "Unknown" = 2):  # noqa: F821
        """As under ``from __future__ import annotations``."""

    assert keywords(postponed, "postponed", ["width=3", "other=4"]) == {"width": 3, "other": 4}


def test_only_what_has_no_default_and_is_not_given_is_missing():
    assert missing(build, {}) == ["depth"]
    assert missing(build, {"depth": 1}) == []
