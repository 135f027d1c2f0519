"""How numbers stand in sentences and in printed cells."""

import pandas as pd
import pytest

from analyses.tables import few_places, number, with_spread
from gradlens.analysis.finding import place


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.00"),
        (1.234, "1.23"),
        (1234.5, "1,234"),
        (48009723906.94, "4.8×10¹⁰"),
        (-0.0012, "-1.2×10⁻³"),
        (float("inf"), "∞"),
        (float("nan"), "–"),
    ],
)
def test_a_number_is_neither_endless_nor_rounded_away(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [(21.0, 20.0, 22.0, "21.0 ± 1.0"), (0.1, -1.2, 1.4, "0.1 (0.0 to 1.4)"), (0.1, None, None, "0.1")],
)
def test_a_score_has_no_interval_below_zero(value: float, low: float | None, high: float | None, text: str) -> None:
    row = pd.Series({"value": value, "low": low, "high": high}, dtype=float)
    assert with_spread(row, 1) == text


def test_a_path_that_is_a_number_alone_is_told_from_a_number() -> None:
    assert [place(path) for path in ("3", "blocks.3", "")] == ["module 3", "blocks.3", "the model itself"]
    assert few_places(["3", "3", "head"]) == "module 3 and head"
    assert few_places(["0", "a", "b", "c"]) == "module 0, a, b and c"
    assert few_places(["0", "a", "b", "c", "d"]) == "module 0, a, b and 2 others"
