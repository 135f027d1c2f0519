import numpy as np
import pytest
import torch
from torch import nn

from gradlens.errors import GradlensError
from gradlens.lab.models.transformer import Transformer
from gradlens.probes.loss import Loss, in_double
from gradlens.probes.sharpness import preconditioned_sharpness, sharpness
from tests.probes.nets import Quadratic, cross_entropy, dense_hessian, mlp, own, squares, transformer

NETS = [(mlp, squares), (transformer, cross_entropy)]


@pytest.mark.parametrize(("net", "loss_fn"), NETS)
def test_it_is_the_largest_eigenvalue_of_the_dense_hessian(net, loss_fn):
    model, batch = net()
    model, batch = model.double(), in_double(batch)
    assert sum(p.numel() for p in model.parameters()) <= 300
    exact = torch.linalg.eigvalsh(dense_hessian(model, batch, loss_fn))[-1]
    reading = sharpness(Loss(model, batch, loss_fn), tolerance=1e-10)
    assert reading.value == pytest.approx(float(exact), rel=1e-6)
    assert reading.low - 1e-9 <= float(exact) <= reading.high + 1e-9


@pytest.mark.parametrize(("net", "loss_fn"), NETS)
def test_preconditioned_it_is_that_of_the_inverse_times_the_hessian(net, loss_fn):
    model, batch = net()
    model, batch = model.double(), in_double(batch)
    hessian = dense_hessian(model, batch, loss_fn)
    p = torch.rand(len(hessian), dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 0.01
    exact = torch.linalg.eigvals(hessian / p[:, None]).real.max()
    reading = preconditioned_sharpness(Loss(model, batch, loss_fn), p, tolerance=1e-10)
    assert reading.value == pytest.approx(float(exact), rel=1e-6)


def test_float32_and_a_float64_copy_agree():
    model, batch = transformer()
    values = [sharpness(Loss(model, batch, cross_entropy, double=double)).value for double in (False, True)]
    assert values[0] == pytest.approx(values[1], rel=1e-3)
    assert next(model.parameters()).dtype == torch.float32


@pytest.mark.parametrize("curvatures", [(3.0, -50.0, 1.0, 0.5), (3.0, -50.0), (3.0,)])
def test_a_larger_negative_curvature_is_not_taken_for_it(curvatures):
    assert sharpness(Loss(Quadratic(*curvatures), torch.zeros(1), own)).value == pytest.approx(3, rel=1e-5)


def test_several_batches_give_the_mean_hessians_eigenvalue():
    model, _ = mlp()
    model = model.double()
    batches = [torch.randn(5, 4, dtype=torch.float64) for _ in range(3)]
    mean = sum(dense_hessian(model, batch, squares) for batch in batches) / 3
    reading = sharpness([Loss(model, batch, squares) for batch in batches], tolerance=1e-9)
    assert reading.value == pytest.approx(float(torch.linalg.eigvalsh(mean)[-1]), rel=1e-6)


def test_what_autograd_leaves_out_is_noted():
    class Detaching(Quadratic):
        def forward(self, x):
            return (self.curvatures * self.w.detach() * self.w).sum()

    reading = sharpness(Loss(Detaching(2.0, 3.0, 1.0), torch.zeros(1), own))
    assert reading.value == 0
    assert "the second derivative is 0" in reading.doubt
    sound = sharpness(Loss(Quadratic(2.0, 3.0, 1.0), torch.zeros(1), own))
    assert (sound.doubt, sound.notes) == ("", ())


@pytest.mark.parametrize("preconditioner", [torch.zeros(2), torch.ones(3), torch.tensor([1.0, float("nan")])])
def test_a_preconditioner_must_be_positive_and_of_the_parameters_size(preconditioner):
    with pytest.raises(GradlensError, match="must be 2 positive numbers"):
        preconditioned_sharpness(Loss(Quadratic(1.0, 2.0), torch.zeros(1), own), preconditioner)


def initial_sharpness(arrangement: str, blocks: int) -> float:
    values = []
    for seed in range(2):
        torch.manual_seed(seed)
        model = Transformer(arrangement, kind="encoder", vocab=200, width=64, blocks=blocks, heads=4, max_length=16)
        tokens, labels = torch.randint(200, (2, 4, 16))
        loss = Loss(model, tokens, lambda y, _, to=labels: nn.functional.cross_entropy(y.flatten(0, 1), to.flatten()))
        values.append(sharpness(loss, tolerance=0.02).value)
    return float(np.mean(values))


def test_post_ln_is_sharper_than_pre_ln_at_initialization_and_the_more_so_the_deeper_it_is():
    # 2/λ_max is the CPU form of "Post-LN cannot start at a large learning rate" (Xiong et al. 2020, section 3.1).
    shallow, deep = ({name: initial_sharpness(name, blocks) for name in ("pre-ln", "post-ln")} for blocks in (4, 16))
    assert shallow["post-ln"] > 1.5 * shallow["pre-ln"]
    assert deep["post-ln"] > 3 * deep["pre-ln"]
    assert deep["post-ln"] / shallow["post-ln"] > 1.5 * deep["pre-ln"] / shallow["pre-ln"]
