"""How numbers are printed: a few significant digits, a real minus sign, a dash for what is not there."""

import math
from typing import Any

#: What stands where no number was recorded.
ABSENT = "–"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: Any, digits: int = 3) -> str:
    """Print one value.

    Args:
        value: a number, a text, a truth value, None or NaN.
        digits: significant digits of a fraction; whole numbers keep all of theirs.

    Returns:
        Such as ``0.0123``, ``1 024``, ``1.2×10⁻⁵``, ``−3``; a dash for None and NaN.

    >>> [number(x) for x in (0.98765, -1024, 12e-7, float("nan"), float("inf"), True)]
    ['0.988', '−1\u202f024', '1.2×10⁻⁶', '–', '∞', 'yes']
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        return str(value)
    return ("−" if value < 0 else "") + _magnitude(abs(value), digits)


def _magnitude(value: float, digits: int) -> str:
    if math.isinf(value):
        return "∞"
    if value == int(value) and value < 1e15:
        return f"{int(value):,}".replace(",", "\u202f")  # narrow no-break space
    rounded = float(f"{value:.{digits}g}")
    exponent = math.floor(math.log10(rounded))
    if not -4 <= exponent < 6:
        mantissa = f"{rounded / 10**exponent:.{digits - 1}f}".rstrip("0").rstrip(".")
        return f"{mantissa}×10{str(exponent).translate(_SUPERSCRIPT)}"
    return f"{rounded:,.{max(0, digits - 1 - exponent)}f}".replace(",", "\u202f")


def count(value: Any) -> str:
    """Print a large count with a letter.

    >>> [count(x) for x in (912, 1_290_000, 3.1e9, float("nan"))]
    ['912', '1.29 M', '3.10 G', '–']
    """
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value is not None and value >= size:
            return f"{number(value / (1e3 if letter == 'k' else size))} {letter}"
    return number(value)


def interval(low: Any, high: Any) -> str:
    """Print a confidence interval, or nothing where there is none.

    >>> interval(0.5, 1.25), interval(None, None)
    ('[0.500, 1.25]', '')
    """
    if low is None or high is None or (math.isnan(low) and math.isnan(high)):
        return ""
    return f"[{number(low)}, {number(high)}]"
