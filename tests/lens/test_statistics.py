"""The numbers themselves: moments of vectors, and the sums made of them, each against plain float64 numpy."""

import itertools
import math

import numpy as np
import pytest
import torch

from gradlens.lens import statistics
from gradlens.lens.statistics import COLUMNS, MOMENTS, PHASES, Facts

NAMES = [name for phase in MOMENTS for name in phase]
#: Two calls of seven vectors; H = 5.
CALLS, VECTORS, H = 2, 7, 5
BAD = {"nan": math.nan, "infinity": math.inf, "minus infinity": -math.inf}


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2.0 * torch.randn(*shape, generator=generator, dtype=torch.float64) + 0.7


LAYOUTS = {
    "features last": (draw(3, 4, 6), (-1,)),
    "two trailing axes": (draw(3, 4, 6), (-2, -1)),
    "channels of a series": (draw(3, 4, 6), (-3, -1)),
    "channels of a batch": (draw(3, 4, 5, 6), (-4, -2, -1)),
    "channels first": (draw(3, 4, 5, 6), (-3,)),
    "channels last in memory": (draw(3, 4, 5, 6).contiguous(memory_format=torch.channels_last), (-4, -2, -1)),
    "a transposed view": (draw(4, 6, 3).transpose(1, 2), (-1,)),
    "everything": (draw(4, 6), (-2, -1)),
    "channels of a film": (draw(2, 3, 2, 3, 4), (-5, -3, -2, -1)),
    "a film, channels last in memory": (
        draw(2, 3, 2, 3, 4).contiguous(memory_format=torch.channels_last_3d),
        (-5, -3, -2, -1),
    ),
}


def as_vectors(x: torch.Tensor, dims: tuple[int, ...]) -> np.ndarray:
    """[vectors, entries], in the order of the vector axes."""
    entries = [dim % x.dim() for dim in dims]
    rest = [dim for dim in range(x.dim()) if dim not in entries]
    count = int(np.prod([x.shape[dim] for dim in rest]))
    return x.permute(*rest, *entries).reshape(count, -1).numpy()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("centered", [False, True])
def test_moments_are_sum_and_norm_of_each_vector(layout: str, centered: bool) -> None:
    x, dims = LAYOUTS[layout]
    vectors = as_vectors(x, dims)
    total, norm = statistics.moments(x, dims, centered=centered)
    deviations = vectors - vectors.mean(1, keepdims=True) if centered else vectors
    np.testing.assert_allclose(total.flatten(), vectors.sum(1), rtol=1e-10)
    np.testing.assert_allclose(norm.flatten(), np.sqrt((deviations**2).sum(1)), rtol=1e-10)


def test_the_deviation_of_vectors_far_from_zero_is_not_lost_in_float32() -> None:
    x = (draw(3, 64) + 1e4).float()
    _, norm = statistics.moments(x, (-1,), centered=True)
    exact = x.double() - x.double().mean(-1, keepdim=True)
    np.testing.assert_allclose(norm, exact.norm(dim=-1), rtol=1e-3)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_extremes_are_the_smallest_and_the_largest_entry(layout: str) -> None:
    x, _ = LAYOUTS[layout]
    assert tuple(map(float, statistics.extremes(x))) == (float(x.min()), float(x.max()))


GAINS = {
    "none": ((3, 4, 6), None, (-1,)),
    "one a feature": ((3, 4, 6), draw(6, seed=1), (-1,)),
    "one a feature, of two": ((3, 4, 2), draw(2, seed=1), (-1,)),
    "one a channel, over batch and space": ((3, 4, 5, 6), draw(4, 1, 1, seed=1), (-4, -2, -1)),
    "one a channel, channels first": ((3, 4, 5, 6), draw(4, 1, 1, seed=1), (-3,)),
    "one a channel of a group": ((3, 2, 4, 6), draw(2, 4, 1, seed=1), (-2, -1)),
    "one a channel of a group of one": ((3, 4, 1, 6), draw(4, 1, 1, seed=1), (-2, -1)),
    "one an instance's channel": ((3, 4, 6), draw(4, 1, seed=1), (-1,)),
    "one for all": ((3, 4, 6), draw(1, seed=1), (-1,)),
}


@pytest.mark.parametrize("case", GAINS)
def test_g_is_the_gain_times_the_gradient_at_the_output(case: str) -> None:
    shape, gain, dims = GAINS[case]
    grad = draw(*shape, seed=2)
    norm, g_sum, g_norm = statistics.grad_output_moments(grad, gain, dims)
    g = as_vectors(grad if gain is None else (grad * gain), dims)
    np.testing.assert_allclose(norm.flatten(), np.sqrt((as_vectors(grad, dims) ** 2).sum(1)), rtol=1e-10)
    np.testing.assert_allclose(g_sum.flatten(), g.sum(1), rtol=1e-10)
    np.testing.assert_allclose(g_norm.flatten(), np.sqrt((g**2).sum(1)), rtol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_raised_before_it_is_squared(dtype: torch.dtype) -> None:
    x = torch.full((4,), 300.0, dtype=dtype).requires_grad_()
    y = statistics.raised(x)
    assert y.dtype == torch.float32
    assert not y.requires_grad
    assert float(y.square().sum()) == 4 * float(x[0].detach()) ** 2


def test_better_precisions_stay() -> None:
    assert [statistics.raised(torch.ones(1, dtype=d)).dtype for d in (torch.float32, torch.float64)] == [
        torch.float32,
        torch.float64,
    ]


def test_each_phase_of_the_sums_lies_behind_the_one_before() -> None:
    assert [COLUMNS[phase] for phase in PHASES] == [tuple(phase) for phase in statistics.SUMS]


def vectors_of_calls() -> tuple[torch.Tensor, dict[str, np.ndarray]]:
    """Inputs, gradients and γ of CALLS calls as [calls, vectors, H], and their moments as ``MOMENTS`` has them."""
    x, grad, a = (draw(CALLS, VECTORS, H, seed=s).numpy() for s in (3, 4, 5))
    g = grad * draw(H, seed=6).numpy()
    mean = x.mean(2, keepdims=True)
    sigma = np.sqrt(((x - mean) ** 2).mean(2) + 0.1)
    own = {
        "input_sum": x.sum(2),
        "input_norm": np.sqrt(((x - mean) ** 2).sum(2)),
        "inv_sigma": 1 / sigma,
        "grad_output_norm": np.sqrt((grad**2).sum(2)),
        "g_sum": g.sum(2),
        "g_norm": np.sqrt((g**2).sum(2)),
        "grad_input_sum": a.sum(2),
        "grad_input_norm": np.sqrt((a**2).sum(2)),
    }
    moments = torch.from_numpy(np.stack([own[name] for name in NAMES], 1))
    return moments, {"x": x, "grad_output": grad, "g": g, "a": a, "sigma": sigma}


def expected(t: dict[str, np.ndarray], keep: np.ndarray, recenters: bool | np.ndarray) -> dict[str, np.ndarray]:
    """Every column, written out over the vectors that ``keep`` [calls, vectors] has."""

    def over(values: np.ndarray) -> np.ndarray:
        return np.where(keep, values, 0.0).sum(1)

    g, a, sigma, x = t["g"], t["a"], t["sigma"], t["x"]
    energy_mean = over(H * g.mean(2) ** 2)
    n = keep.sum(1)
    return {
        "vectors": np.full(CALLS, VECTORS),
        "entries": np.full(CALLS, VECTORS * H),
        "n_input": n,
        "inv_sigma": over(1 / sigma),
        "total": over(x.sum(2)),
        "squares": over((x**2).sum(2)),
        "n_grad_output": n,
        "energy_grad_output": over((t["grad_output"] ** 2).sum(2)),
        "energy_g": over((g**2).sum(2)),
        "energy_mean": energy_mean,
        "energy_recentering": energy_mean * recenters,
        "mean2_detached": over((g.mean(2) / sigma) ** 2),
        "var_detached": over(g.var(2) / sigma**2),
        "n_grad_input": n,
        "energy_grad_input": over((a**2).sum(2)),
        "energy_kept": over((a**2).sum(2) * sigma**2),
        "mean2_actual": over(a.mean(2) ** 2),
        "var_actual": over(a.var(2)),
    }


def check(got: torch.Tensor, want: dict[str, np.ndarray]) -> None:
    assert list(want) == list(COLUMNS)
    for index, name in enumerate(COLUMNS):
        np.testing.assert_allclose(got[:, index], want[name], rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("recenters", [False, True])
def test_sums_are_those_of_the_definitions(recenters: bool) -> None:
    moments, tensors = vectors_of_calls()
    everything = np.ones((CALLS, VECTORS), dtype=bool)
    check(statistics.sums(moments, Facts(H, 1.0, float(recenters))), expected(tensors, everything, recenters))


def test_facts_may_be_others_for_each_call() -> None:
    moments, tensors = vectors_of_calls()
    recenters = torch.tensor([1.0, 0.0], dtype=torch.float64)
    ones, zeros = torch.ones(CALLS, dtype=torch.float64), torch.zeros(CALLS, dtype=torch.float64)
    together = statistics.sums(moments, Facts(H * ones, ones, recenters, zeros, zeros))
    everything = np.ones((CALLS, VECTORS), dtype=bool)
    check(together, expected(tensors, everything, recenters.numpy()))


def test_without_centering_the_squares_are_those_of_the_norm() -> None:
    moments, tensors = vectors_of_calls()
    plain = np.sqrt((tensors["x"] ** 2).sum(2))
    moments[:, NAMES.index("input_norm")] = torch.from_numpy(plain)
    got = statistics.sums(moments, Facts(H, 0.0, 0.0))[:, COLUMNS.index("squares")]
    np.testing.assert_allclose(got, (plain**2).sum(1), rtol=1e-10)


def test_where_only_sigma_is_known_the_squares_come_from_it() -> None:
    moments, tensors = vectors_of_calls()
    # What stands in for the norm is 1/σ again, as the backward node of torch's layers gives it.
    moments[:, NAMES.index("input_norm")] = moments[:, NAMES.index("inv_sigma")]
    ones = torch.ones(CALLS, dtype=torch.float64)
    got = statistics.sums(moments, Facts(H * ones, ones, ones, ones, 0.1 * ones))
    check(got, expected(tensors, np.ones((CALLS, VECTORS), dtype=bool), True))


def test_the_squares_from_sigma_are_never_negative() -> None:
    moments, _ = vectors_of_calls()
    moments[:, NAMES.index("input_sum")] = 0.0
    ones = torch.ones(CALLS, dtype=torch.float64)
    got = statistics.sums(moments, Facts(H * ones, ones, ones, ones, 1e6 * ones))
    assert (got[:, COLUMNS.index("squares")] == 0).all()


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("moment", NAMES)
def test_a_vector_with_one_value_that_is_not_finite_is_left_out_of_every_sum(moment: str, bad: str) -> None:
    moments, tensors = vectors_of_calls()
    keep = np.ones((CALLS, VECTORS), dtype=bool)
    keep[1, 2] = False
    moments[1, NAMES.index(moment), 2] = BAD[bad]
    check(statistics.sums(moments, Facts(H, 1.0, 1.0)), expected(tensors, keep, True))


@pytest.mark.parametrize(("first", "second"), list(itertools.product(BAD, BAD)))
def test_two_values_that_are_not_finite_cannot_make_up_for_each_other(first: str, second: str) -> None:
    moments, tensors = vectors_of_calls()
    keep = np.ones((CALLS, VECTORS), dtype=bool)
    keep[0, 4] = False
    moments[0, NAMES.index("g_sum"), 4] = BAD[first]
    moments[0, NAMES.index("grad_input_sum"), 4] = BAD[second]
    check(statistics.sums(moments, Facts(H, 1.0, 1.0)), expected(tensors, keep, True))


def test_calls_without_a_finite_vector_have_counts_and_zeros() -> None:
    moments, _ = vectors_of_calls()
    moments[:, 0] = math.nan
    got = statistics.sums(moments, Facts(H, 1.0, 1.0))
    assert (got[:, COLUMNS.index("vectors")] == VECTORS).all()
    rest = [index for index, name in enumerate(COLUMNS) if name not in ("vectors", "entries")]
    assert (got[:, rest] == 0).all()


def test_a_phase_that_has_not_come_adds_nothing_to_its_energies() -> None:
    moments, tensors = vectors_of_calls()
    moments[:, len(MOMENTS[0]) :] = 0.0
    got = statistics.sums(moments, Facts(H, 1.0, 1.0))
    want = expected(tensors, np.ones((CALLS, VECTORS), dtype=bool), True)
    for name in COLUMNS[PHASES[0]]:
        np.testing.assert_allclose(got[:, COLUMNS.index(name)], want[name], rtol=1e-9, err_msg=name)
    energies = [index for index, name in enumerate(COLUMNS) if name.startswith(("energy", "mean2", "var"))]
    assert (got[:, energies] == 0).all()


def test_sums_are_the_same_in_a_compiled_graph() -> None:
    moments, tensors = vectors_of_calls()
    compiled = torch.compile(lambda c: statistics.sums(c, Facts(H, 1.0, 1.0)), backend="aot_eager", fullgraph=True)
    check(compiled(moments), expected(tensors, np.ones((CALLS, VECTORS), dtype=bool), True))


def test_a_backward_pass_inside_of_autocast_sums_as_well() -> None:
    moments, tensors = vectors_of_calls()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = statistics.sums(moments.float(), Facts(H, 1.0, 1.0))
    want = expected(tensors, np.ones((CALLS, VECTORS), dtype=bool), True)
    for index, name in enumerate(COLUMNS):
        np.testing.assert_allclose(got[:, index], want[name], rtol=1e-4, err_msg=name)
