"""The thresholds of the findings, read from ``limits.toml``, and how an interval is held against one."""

import math
import tomllib
from functools import cache
from importlib.resources import files

from gradlens.analysis import Status
from gradlens.errors import GradlensError


@cache
def _limits() -> dict[str, dict[str, float]]:
    return tomllib.loads(files("analyses").joinpath("limits.toml").read_text(encoding="utf-8"))


def limit(code: str, name: str) -> float:
    """Return one threshold.

    Args:
        code: of the finding, the section in ``limits.toml``.
        name: of the threshold.

    Raises:
        GradlensError: the file has no such threshold.
    """
    try:
        return float(_limits()[code][name])
    except KeyError as error:
        known = ", ".join(f"{c}.{n}" for c, section in _limits().items() for n in section)
        raise GradlensError(f"analyses/limits.toml must hold {code}.{name}; it holds {known}.") from error


def of(code: str) -> dict[str, float]:
    """Return the thresholds of a code by name; none where it has none."""
    return _limits().get(code, {})


def held_against(
    low: float, high: float, *, least: float = -math.inf, most: float = math.inf, outside: Status = "warn"
) -> Status:
    """Say whether an interval lies inside a range.

    Args:
        low: lower end of the interval.
        high: upper end of it.
        least: lower end of the range.
        most: upper end of it.
        outside: what it is to lie outside of the range.

    Returns:
        ``pass`` where the interval lies inside, ``outside`` where the two do not meet, ``inconclusive`` where
        the interval covers an end of the range or does not exist.
    """
    if math.isnan(low) or math.isnan(high):
        return "inconclusive"
    if least <= low and high <= most:
        return "pass"
    return outside if high < least or low > most else "inconclusive"


def gradient_over_depth(low: float, high: float) -> tuple[Status, str]:
    """Judge a change of the gradient norm over depth (GL101 at initialization, GL305 in training).

    Args:
        low: lower end of the interval of the factor a block.
        high: upper end of it.

    Returns:
        The status, and the threshold in words.
    """
    least, most, explodes = (limit("GL101", name) for name in ("least", "most", "explodes"))
    status = held_against(low, high, least=least, most=most)
    beyond = held_against(low, high, least=1 / explodes, most=explodes) == "warn"
    words = f"{least:g} to {most:.3g} times a block; from {explodes:g} times a block on it fails"
    return "fail" if beyond else status, words
