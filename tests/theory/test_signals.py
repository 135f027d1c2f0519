"""Sums of signals against sums by hand: what is coherent adds as amplitudes, what is independent as energies."""

import numpy as np
import pytest

from gradlens.theory.pairs import Array, Pairs
from gradlens.theory.signals import Signal, Tape, added, scaled


@pytest.fixture
def tape() -> Tape:
    return Tape(Pairs.of(2, 1, causal=False))


class Heard:
    """Keeps what arrived at a source."""

    def __init__(self) -> None:
        self.energy = 0.0

    def __call__(self, gradient: Array) -> None:
        self.energy = float(gradient[0, 0])


def source(tape: Tape, energy: float) -> tuple[Signal, Heard]:
    heard = Heard()
    return tape.source(np.full_like(tape.pairs.count, energy), heard), heard


def arriving(tape: Tape, energy: float) -> Array:
    return np.full_like(tape.pairs.count, energy)


def test_a_signal_added_to_itself_doubles_and_two_independent_ones_add_their_energies(tape: Tape) -> None:
    (a, _), (b, _) = source(tape, 3.0), source(tape, 5.0)
    assert added(a, a).products[0, 0] == pytest.approx(4 * 3)
    assert added(a, b).products[0, 0] == pytest.approx(3 + 5)
    assert added(scaled(a, 2.0), b, scaled(a, -1.0)).products[0, 0] == pytest.approx(3 + 5)
    assert added(a, scaled(a, -1.0)).products[0, 0] == 0


def test_a_gradient_reaches_a_source_with_the_sum_of_its_factors(tape: Tape) -> None:
    (a, at_a), (b, at_b) = source(tape, 1.0), source(tape, 1.0)
    tape.send(added(a, scaled(a, 0.5), scaled(b, 3.0)), arriving(tape, 2.0))
    tape.run_backward()
    assert at_a.energy == pytest.approx(1.5**2 * 2)
    assert at_b.energy == pytest.approx(3**2 * 2)


def test_gradients_that_arrive_through_different_branches_add_their_energies(tape: Tape) -> None:
    a, at_a = source(tape, 1.0)
    tape.send(a, arriving(tape, 2.0))
    tape.send(scaled(a, 2.0), arriving(tape, 5.0))
    tape.run_backward()
    assert at_a.energy == pytest.approx(2 + 4 * 5)


def test_the_skip_and_a_branch_of_gain_b_send_back_1_and_b(tape: Tape) -> None:
    x, at_x = source(tape, 1.0)
    branch = tape.source(arriving(tape, 0.5), lambda gradient: tape.send(x, 0.25 * gradient))
    tape.send(added(x, branch), arriving(tape, 8.0))
    tape.run_backward()
    assert at_x.energy == pytest.approx(8 * (1 + 0.25))


def test_two_skips_over_one_branch_are_coherent_with_each_other_alone(tape: Tape) -> None:
    """y = x + f(x), z = y + x: the skips carry 2 of dL/dz as amplitude, the branch 1."""
    x, at_x = source(tape, 1.0)
    branch = tape.source(arriving(tape, 0.5), lambda gradient: tape.send(x, 0.25 * gradient))
    z = added(x, branch, x)
    assert z.products[0, 0] == pytest.approx(4 + 0.5)
    tape.send(z, arriving(tape, 1.0))
    tape.run_backward()
    assert at_x.energy == pytest.approx(4 + 0.25)


def test_a_settled_signal_is_one_source_and_passes_its_gradient_on(tape: Tape) -> None:
    (a, at_a), (b, at_b) = source(tape, 3.0), source(tape, 5.0)
    settled = tape.settled(added(scaled(a, 2.0), b))
    assert len(settled.factors) == 1
    assert settled.products[0, 0] == pytest.approx(4 * 3 + 5)
    tape.send(scaled(settled, 0.5), arriving(tape, 8.0))
    tape.run_backward()
    assert at_a.energy == pytest.approx(4 * 0.25 * 8)
    assert at_b.energy == pytest.approx(0.25 * 8)


def test_nothing_is_passed_back_where_nothing_arrived(tape: Tape) -> None:
    a, at_a = source(tape, 1.0)
    _, at_b = source(tape, 1.0)
    tape.send(a, arriving(tape, 1.0))
    tape.run_backward()
    assert (at_a.energy, at_b.energy) == (1.0, 0.0)


def test_a_factor_may_differ_from_group_to_group_of_positions() -> None:
    pairs = Pairs.of(1, 2, causal=True)
    tape = Tape(pairs)
    signal = tape.source(pairs.table(4.0, 0.0, (1.0, 0.0)))
    halved = scaled(signal, np.array([1.0, 0.5]))
    np.testing.assert_allclose(pairs.own(halved.products), [4, 1])
    between = next(i for i in range(pairs.groups, len(pairs.left)) if pairs.left[i] != pairs.right[i])
    assert halved.products[0, between] == pytest.approx(0.5)


def test_a_signal_and_a_part_of_it_add_as_amplitudes_in_each_group_of_positions() -> None:
    """x + (x/σ + f) at two positions whose σ are 1 and 2: x counts 2 and 1.5 times, f once."""
    pairs = Pairs.of(1, 2, causal=True)
    tape = Tape(pairs)
    x, f = (tape.source(pairs.table(own, 0.0, (apart, 0.0))) for own, apart in ((4.0, 1.0), (3.0, 0.5)))
    total = added(x, added(scaled(x, np.array([1.0, 0.5])), f))
    np.testing.assert_allclose(pairs.own(total.products), [4 * 4 + 3, 2.25 * 4 + 3])
    between = next(i for i in range(pairs.groups, len(pairs.left)) if pairs.left[i] != pairs.right[i])
    assert total.products[0, between] == pytest.approx(2 * 1.5 * 1 + 0.5)
