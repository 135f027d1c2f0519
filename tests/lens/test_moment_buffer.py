"""Rows keep what hooks leave of a call, each backward pass apart, and their sums are those of numpy."""

import numpy as np
import pytest
import torch

from gradlens.lens.moment_buffer import MomentBuffer, Row, Summed, came, finite_peak
from gradlens.lens.passes import Forward, Pass
from gradlens.lens.statistics import COLUMNS, Facts

WIDTH, VECTORS = 4, 3


class Backward:
    """A buffer of rows, and the backward pass that goes on."""

    def __init__(self) -> None:
        self.one = Pass(0, paused=False)
        self.buffer = MomentBuffer(torch.device("cpu"), lambda forward: self.one)

    def begin(self, number: int) -> None:
        self.one = Pass(number, paused=False)

    def row(self, x: np.ndarray, tap: str = "tap", forward: Forward | None = None) -> Row:
        """A row with the moments of an input."""
        row = self.buffer.new_row(tap, forward or Forward())
        total, norm = torch.tensor(x.sum(-1)), torch.tensor(np.linalg.norm(x, axis=-1))
        extremes = torch.tensor(x.min()), torch.tensor(x.max())
        row.keep_input((total, norm, torch.ones_like(norm)), extremes, Facts(WIDTH))
        return row

    def pull(self) -> list[Summed]:
        return self.buffer.pull(lambda forward: True)


def draw(seed: int, vectors: int = VECTORS) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(vectors, WIDTH))


def put(row: Row, phase: int, grad: np.ndarray) -> None:
    """Leave a gradient as the hooks do."""
    total, norm = torch.tensor(grad.sum(-1)), torch.tensor(np.linalg.norm(grad, axis=-1))
    with torch.no_grad():
        row.keep_gradient(phase, (norm, total, norm) if phase == 1 else (total, norm))


def column(one: Summed, name: str) -> list[float]:
    return one.sums[:, COLUMNS.index(name)].tolist()


def test_the_sums_of_rows_that_were_left_together_are_those_of_each_row():
    backward, inputs, outer, inner = Backward(), [draw(1), draw(2)], [draw(3), draw(4)], [draw(5), draw(6)]
    rows = [backward.row(x, tap) for x, tap in zip(inputs, "ab", strict=True)]
    backward.begin(7)
    for row, grad, back in zip(rows, outer, inner, strict=True):
        put(row, 1, grad)
        put(row, 2, back)
    (one,) = backward.pull()
    assert [call.tap for call in one.calls] == ["a", "b"]
    assert one.passes.tolist() == [[-1, 7, 7]] * 2
    assert column(one, "vectors") == [VECTORS] * 2
    assert column(one, "entries") == [VECTORS * WIDTH] * 2
    assert column(one, "total") == pytest.approx([x.sum() for x in inputs], rel=1e-12)
    assert column(one, "squares") == pytest.approx([(x**2).sum() for x in inputs], rel=1e-12)
    assert column(one, "energy_grad_output") == pytest.approx([(g**2).sum() for g in outer], rel=1e-12)
    assert column(one, "energy_grad_input") == pytest.approx([(g**2).sum() for g in inner], rel=1e-12)
    assert one.extremes.tolist() == [[x.min(), x.max()] for x in inputs]


def test_a_phase_that_did_not_come_is_told_from_one_that_is_zero():
    backward = Backward()
    backward.row(draw(1))
    put(backward.row(draw(2)), 1, np.zeros((VECTORS, WIDTH)))
    (one,) = backward.pull()
    assert one.passes.tolist() == [[-1, -2, -2], [-1, 0, -2]]
    assert column(one, "energy_grad_output") == [0, 0]


@pytest.mark.parametrize("first_pass", [0, 3])
def test_a_second_gradient_of_a_phase_is_kept_apart_from_the_first(first_pass):
    backward, first, second = Backward(), draw(1), draw(2)
    row = backward.row(draw(3))
    backward.begin(first_pass)
    put(row, 1, first)
    backward.begin(first_pass + 1)
    put(row, 1, second)
    one, other = backward.pull()
    assert [one.passes.tolist(), other.passes.tolist()] == [[[-1, first_pass, -2]], [[-2, first_pass + 1, -2]]]
    assert column(one, "energy_grad_output") == pytest.approx([(first**2).sum()], rel=1e-12)
    assert column(other, "energy_grad_output") == pytest.approx([(second**2).sum()], rel=1e-12)


def test_gradients_that_came_with_a_graph_are_the_last_of_their_phase():
    backward, first = Backward(), draw(1)
    row = backward.row(draw(2))
    norm = torch.tensor(np.linalg.norm(first, axis=-1))
    with torch.enable_grad():
        row.keep_gradient(1, (norm, norm, norm))
    put(row, 1, draw(3))
    put(row, 2, draw(4))
    (one,) = backward.pull()
    assert column(one, "energy_grad_output") == pytest.approx([(first**2).sum()], rel=1e-12)
    assert one.passes.tolist() == [[-1, 0, 0]]


def test_gradients_of_a_graph_of_an_earlier_step_are_left_out_and_told():
    backward = Backward()
    row, settled = backward.row(draw(1)), backward.row(draw(2))
    norm = torch.ones(VECTORS, dtype=torch.float64)
    with torch.enable_grad():
        settled.keep_gradient(1, (norm, norm, norm))
    backward.pull()
    put(settled, 1, draw(3))
    assert not backward.buffer.stale, "derivatives of a gradient that is recorded are no gradient of an earlier step"
    put(row, 1, draw(3))
    put(settled, 1, draw(3))
    assert backward.buffer.stale
    assert backward.pull() == []


def test_gradients_for_other_vectors_than_the_inputs_are_refused():
    row = Backward().row(draw(1))
    with pytest.raises(ValueError, match=r"gradients of \[5\] vectors, for \[3\] of the input"):
        put(row, 1, draw(2, vectors=5))


def test_inputs_of_several_sizes_and_dtypes_are_summed_apart():
    backward = Backward()
    for x in (draw(1), draw(2, vectors=5), draw(3).astype(np.float32), draw(4)):
        backward.row(x, tap=f"{len(x)} {x.dtype}")
    found = {tuple(call.tap for call in one.calls): column(one, "total") for one in backward.pull()}
    assert set(found) == {("3 float64",) * 2, ("5 float64",), ("3 float32",)}
    assert found["5 float64",] == pytest.approx([draw(2, vectors=5).sum()], rel=1e-12)
    assert found["3 float32",] == pytest.approx([draw(3).astype(np.float32).sum()], rel=1e-6)


def test_a_pass_takes_what_it_left_and_the_inputs_of_the_forward_passes_it_went_through():
    backward, through, other = Backward(), Forward(), Forward()
    backward.row(draw(1), "went through", through)
    backward.row(draw(2), "did not", other)
    put(backward.row(draw(3), "left a gradient", other), 2, draw(4))
    backward.one.forwards.add(through)
    backward.buffer.drain_pass(backward.one)
    assert [row.call.tap for row in backward.buffer.waiting] == ["did not"]
    assert backward.buffer.forwards() == {through, other}
    (one,) = backward.buffer.pull(lambda forward: forward is through)
    assert [call.tap for call in one.calls] == ["went through", "left a gradient"]


def test_a_step_returns_its_sums_once_and_lets_go_of_forward_passes_that_do_not_count():
    backward, counted, not_counted = Backward(), Forward(), Forward()
    backward.row(draw(1), "counted", counted)
    backward.row(draw(2), "not counted", not_counted)
    (one,) = backward.buffer.pull(lambda forward: forward is counted)
    assert [call.tap for call in one.calls] == ["counted"]
    assert backward.buffer.forwards() == set()
    assert backward.pull() == []
    assert backward.buffer.step == 2


def test_calls_are_ordered_by_their_beginning_and_by_their_first_gradient():
    backward = Backward()
    first, second = backward.row(draw(1)), backward.row(draw(2))
    put(second, 1, draw(3))
    put(first, 1, draw(4))
    returned = second.call.returned
    put(second, 2, draw(5))
    assert first.call.order < second.call.order < second.call.returned < first.call.returned
    assert second.call.returned == returned


def test_the_input_counts_always_and_a_gradient_where_its_pass_does():
    passes = np.array([[-1, 0, 1], [-2, 1, -2]])
    grad_output = [column in COLUMNS[6:13] for column in COLUMNS]
    grad_input = [column in COLUMNS[13:] for column in COLUMNS]
    of_input = [column in COLUMNS[:6] for column in COLUMNS]
    assert (COLUMNS[6], COLUMNS[13]) == ("n_grad_output", "n_grad_input")
    assert came(passes, [0]).tolist() == [[a or b for a, b in zip(of_input, grad_output, strict=True)], [False] * 18]
    assert came(passes, [1]).tolist() == [[a or b for a, b in zip(of_input, grad_input, strict=True)], grad_output]
    assert came(passes, [0, 1]).tolist() == [[True] * 18, grad_output]
    assert came(passes, []).tolist() == [of_input, [False] * 18]


def test_an_infinity_is_no_largest_entry():
    np.testing.assert_array_equal(finite_peak(np.array([1.0, np.inf, 0.0, np.nan])), [1, np.nan, 0, np.nan])
