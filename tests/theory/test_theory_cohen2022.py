"""The edge of stability against the quadratic itself: bisection of the step at which momentum descent blows up."""

import pytest

from gradlens.errors import GradlensError
from gradlens.theory.cohen2022 import stability_edge


def stays_bounded(step: float, beta: float, kind: str) -> bool:
    """Descend x²/2 for so long that a growth of 0.02 % a step shows."""
    x, m = 1.0, 0.0
    largest_early, largest_late = 0.0, 0.0
    for t in range(40_000):
        m = beta * m + (1 - beta if kind == "ema" else 1) * x
        x -= step * m
        if abs(x) > 1e9:
            return False
        if t < 20_000:
            largest_early = max(largest_early, abs(x))
        else:
            largest_late = max(largest_late, abs(x))
    return largest_late <= largest_early


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 0.95])
@pytest.mark.parametrize("kind", ["ema", "heavy-ball"])
def test_the_edge_is_where_a_quadratic_blows_up(beta, kind):
    low, high = 0.1, 200.0
    while high / low > 1.0005:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if stays_bounded(middle, beta, kind) else (low, middle)
    assert stability_edge(beta, kind) == pytest.approx(low, rel=1e-3)


def test_the_papers_numbers():
    assert [stability_edge(beta) for beta in (0, 0.5, 0.9, 0.95)] == pytest.approx([2, 6, 38, 78])
    assert stability_edge(0.9, "heavy-ball") == pytest.approx(3.8)


@pytest.mark.parametrize("arguments", [(1.0,), (-0.1,), (float("nan"),), (0.9, "nesterov")])
def test_what_has_no_edge_is_refused(arguments):
    with pytest.raises(GradlensError, match="Momentum must be"):
        stability_edge(*arguments)
