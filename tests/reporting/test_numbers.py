import math

import pytest

from gradlens.reporting.numbers import ABSENT, count, interval, number


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        (0.0, "0"),
        (3, "3"),
        (2.0, "2"),
        (1234567, "1\u202f234\u202f567"),
        (0.99951, "1.00"),
        (0.012345, "0.0123"),
        (-0.5, "−0.500"),
        (12345.6, "12\u202f300"),
        (999_999.5, "1×10⁶"),
        (1.2345e-7, "1.23×10⁻⁷"),
        (-9.996e-7, "−1×10⁻⁶"),
        (math.inf, "∞"),
        (-math.inf, "−∞"),
        (math.nan, ABSENT),
        (None, ABSENT),
        (True, "yes"),
        ("text", "text"),
    ],
)
def test_numbers_are_printed_with_three_digits_and_real_signs(value: object, printed: str) -> None:
    assert number(value) == printed


@pytest.mark.parametrize("value", [1.0, 0.1, 123.456, 7.89e-9, 4.2e11, 0.00099999, 99999.9])
def test_a_printed_number_reads_back_within_half_a_unit_of_its_last_digit(value: float) -> None:
    plain = number(value).replace("\u202f", "").replace("×10", "e")
    plain = plain.translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789"))
    assert float(plain) == pytest.approx(value, rel=5e-3)


def test_large_counts_have_a_letter() -> None:
    assert [count(x) for x in (9_999, 313_000, 124e6, 7e9)] == ["9\u202f999", "313 k", "124 M", "7 G"]


def test_an_interval_without_ends_is_not_printed() -> None:
    assert interval(None, None) == interval(math.nan, math.nan) == ""
    assert interval(0.25, math.inf) == "[0.250, ∞]"
