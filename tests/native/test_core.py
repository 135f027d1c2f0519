"""The native core's sums are those of float64 torch, however a tensor lies and whatever it is made of."""

import math

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

import gradlens
from gradlens.cli.list import command
from gradlens.native import core, vectors
from gradlens.native.building import SWITCH, measures
from gradlens.native.parameters import gather, parameters

pytestmark = pytest.mark.skipif(core.library is None, reason="the native core was not compiled")
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
#: Entry dimensions of a tensor of four.
DIMS = [(-1,), (-3, -2, -1), (-4, -2, -1), (-3,), (-4, -3, -2), (-4, -3, -2, -1)]


def draw(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def lying(order: str, dtype: torch.dtype) -> Tensor:
    x = draw(5, 8, 6, 7, dtype=dtype)
    return x if order == "contiguous" else x.to(memory_format=torch.channels_last)


def taken(x: Tensor, dims: tuple[int, ...], phase: int, sigma: vectors.Sigma | None = None, gain: Tensor | None = None):
    """The moments that a phase leaves, [its moments, vectors], and the ends of the input."""
    seen = vectors.seen(x, dims, sigma or vectors.Sigma())
    assert seen is not None
    assert vectors.fits(seen, gain)
    block = seen.block()
    vectors.moments(seen, x, phase, block, gain)
    first = vectors.FIRST[phase]
    return vectors.as_tensor(block)[first : (*vectors.FIRST, 8)[phase + 1]], block[-2:]


def assert_same(found: Tensor, *expected: Tensor) -> None:
    # A sum is as exact as float32 adds the sizes of its terms.
    size = max(1.0, max(float(wanted.abs().max()) for wanted in expected))
    for own, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(own, wanted.reshape(-1), rtol=1e-6, atol=1e-6 * size)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ["contiguous", "channels last"])
@pytest.mark.parametrize("dims", DIMS)
def test_moments_are_those_of_float64_torch(dims, order, dtype):
    x = lying(order, dtype)
    if vectors.seen(x, dims) is None:
        pytest.skip("torch's operations take it")
    wide = x.double()
    total, norm = wide.sum(dims), wide.square().sum(dims).sqrt()
    assert_same(taken(x, dims, 2)[0], total, norm)
    assert_same(taken(x, dims, 1)[0], norm, total, norm)
    deviation = (wide - wide.mean(dims, keepdim=True)).square().sum(dims).sqrt()
    found, ends = taken(x, dims, 0, vectors.Sigma(True, vectors.SIGMA["root"], eps=1e-5))
    width = x.numel() // total.numel()
    assert_same(found, total, deviation, 1 / (deviation.square() / width + 1e-5).sqrt())
    assert ends == [wide.min().item(), wide.max().item()]


@pytest.mark.parametrize("order", ["contiguous", "channels last"])
@pytest.mark.parametrize(("dims", "gain"), [((-1,), (7,)), ((-4, -2, -1), (8, 1, 1)), ((-3,), (8, 1, 1)), ((-1,), (1,)),
                                            ((-3, -2, -1), (8, 6, 7)), ((-3, -2, -1), (8, 1, 1))])  # fmt: skip
def test_a_gain_is_multiplied_by_whether_it_goes_along_entries_or_vectors(dims, gain, order):
    x, factor = lying(order, torch.float32), draw(*gain, dtype=torch.float64)
    seen = vectors.seen(x, dims)
    if seen is None or not vectors.fits(seen, factor):
        pytest.skip("torch's operations take it")
    g = x.double() * factor
    norm = x.double().square().sum(dims).sqrt()
    assert_same(taken(x, dims, 1, gain=factor)[0], norm, g.sum(dims), g.square().sum(dims).sqrt())


def test_many_entries_are_summed_by_several_threads_as_by_one():
    x = draw(300, 1000)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        rows, columns = taken(x, (-1,), 2)[0], taken(x, (-2,), 2)[0]
    finally:
        torch.set_num_threads(before)
    assert_same(rows, x.double().sum(1), x.double().square().sum(1).sqrt())
    assert_same(columns, x.double().sum(0), x.double().square().sum(0).sqrt())


@pytest.mark.parametrize("odd", [math.nan, math.inf])
def test_a_vector_that_is_not_finite_is_left_out_of_sums_and_shows_in_the_ends(odd):
    x = draw(6, 16)
    x[2, 3] = odd
    seen = vectors.seen(x, (-1,))
    block = seen.block()
    vectors.moments(seen, x, 0, block)
    totals = vectors.sums([block])
    kept = x[[0, 1, 3, 4, 5]].double()
    assert totals.sums[0] == 5
    assert totals.every == 6
    assert totals.sums[1] == pytest.approx(kept.sum().item())
    assert not math.isfinite(totals.extremes[0, 1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_number_in_half_precision_is_read_exactly(dtype):
    every = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(dtype)
    assert torch.equal(gather([every], [2**16], [1]).nan_to_num(nan=9.0), every.double().nan_to_num(nan=9.0))


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_of_parameters_are_those_of_float64_torch_and_leave_out_what_is_not_finite(dtype):
    shapes, rows = [(30, 40), (7,), (70000,), (30, 20, 3), (200, 700)], [30, 7, 0, 30, 200]
    weights, grads = ([draw(*shape, dtype=dtype) for shape in shapes] for _ in range(2))
    weights[3], grads[3] = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (weights[3], grads[3]))
    grads[0][5], grads[1][2], grads[4][199], grads[0][7, 3], grads[2][1] = 0, 0, 0, math.nan, math.inf
    numbers, dead = parameters(grads, weights, rows)
    for own, grad, weight in zip(numbers.T, grads, weights, strict=True):
        finite = grad[torch.isfinite(grad)].double()
        expected = [
            finite.square().sum(),
            finite.abs().max(),
            weight.double().square().sum(),
            grad.numel() - len(finite),
        ]
        assert own[:4].tolist() == pytest.approx([float(one) for one in expected], rel=1e-6)
        if grad.isfinite().all():
            assert own[4] == pytest.approx((grad.double() * weight.double()).sum().item(), rel=1e-4)
        else:
            assert not math.isfinite(own[4])
    assert dead.nonzero()[0].tolist() == [5, 30 + 2, 30 + 7 + 30 + 199]


def test_what_it_cannot_read_is_left_to_torch():
    x = draw(3, 4)
    assert core.takes(x)
    assert not core.takes(x.to_sparse())
    assert not core.takes(x.to("meta"))
    assert not core.takes(x.long())
    assert not core.takes(torch.view_as_complex(draw(3, 2)))
    assert not core.takes(torch._neg_view(x))
    assert not core.takes(x.as_subclass(type("Own", (Tensor,), {})))
    seen = []
    torch.func.grad(lambda y: seen.append(core.takes(y)) or y.sum())(x)
    assert seen == [False]
    assert vectors.seen(draw(4, 3).t(), (-2,)) is not None
    assert vectors.seen(draw(2, 3, 4).transpose(0, 1), (-1,)) is None  # its vectors lie in another order


def test_it_can_be_switched_off(monkeypatch):
    assert measures() == "native"
    monkeypatch.setenv(SWITCH, "0")
    assert measures() == "torch"


def test_the_audit_and_the_list_say_what_measures(monkeypatch):
    def audit():
        model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4))
        lens = gradlens.attach(model)
        model(draw(3, 4)).sum().backward()
        lens.step()
        lens.detach()
        return lens.audit()

    assert audit().setting["measured_by"] == "native"
    assert "Measured by the native core." in str(audit())
    assert "On the CPU the native core measures." in CliRunner().invoke(command, []).output
    monkeypatch.setattr(core, "library", None)
    assert "Measured by torch's operations." in str(audit())
    monkeypatch.setenv(SWITCH, "0")
    assert "torch's operations measure" in CliRunner().invoke(command, []).output
