import copy
import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from gradlens import at_init
from gradlens.errors import GradlensError, ModelError
from gradlens.probes.amplification import amplification
from gradlens.probes.answer import answer
from gradlens.probes.block_jacobian import block_jacobian
from gradlens.probes.concentration import concentration
from gradlens.probes.critical_step import critical_step
from gradlens.probes.learning_rate import learning_rate_limit
from gradlens.probes.loss import Loss
from gradlens.probes.sharpness import sharpness
from gradlens.probes.trial import trial
from tests.probes.nets import Quadratic, cross_entropy, mlp, own, squares, transformer


class Watched(nn.Module):
    """Everything in it that a forward pass may change: batch statistics, dropout, random numbers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Linear(4, 6), nn.Tanh())
        self.norm = nn.BatchNorm1d(6)
        self.dropout = nn.Dropout(0.2)
        self.last = nn.Linear(6, 3)
        self.fails_after = 10**9

    def forward(self, x: Tensor) -> Tensor:
        self.fails_after -= 1
        if self.fails_after < 0:
            raise RuntimeError("enough")
        noise = random.random() + float(np.random.random())
        return self.last(self.dropout(self.norm(self.first(x)))) * (1 + 0.01 * noise)


def state(model: nn.Module) -> list[object]:
    tensors = [*model.parameters(), *(p.grad for p in model.parameters()), *model.buffers(), torch.get_rng_state()]
    modes = [module.training for module in model.modules()]
    hooks = [len(module._forward_hooks) for module in model.modules()]
    values = [None if t is None else t.detach().numpy().tobytes() for t in tensors]
    return [values, modes, hooks, random.getstate(), str(np.random.get_state())]


PROBES = {
    "sharpness": lambda m, x: sharpness(Loss(m, x, squares)),
    "float64": lambda m, x: Loss(m, x, squares, double=True).gradient(),
    "limit": lambda m, x: learning_rate_limit(m, [x, 2 * x], squares),
    "trial": lambda m, x: trial(m, [x, 2 * x], squares, start=0.01, steps=4),
    "critical step": lambda m, x: critical_step(m, x, squares),
    "amplification": lambda m, x: amplification(m, x),
    "jacobian": lambda m, x: block_jacobian(m, x, "first"),
    "concentration": lambda m, x: concentration(m, x, ["first"]),
    "answer": lambda m, x: answer(m, [x, 2 * x], squares),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("probe", PROBES.values(), ids=PROBES)
def test_the_model_and_the_generators_are_left_as_they_were(probe, training):
    model, x = Watched().train(training), torch.randn(8, 4)
    squares(model(x), x).backward()
    before = state(model)
    probe(model, x)
    assert state(model) == before


@pytest.mark.parametrize("probe", PROBES.values(), ids=PROBES)
def test_also_after_an_exception(probe):
    model, x = Watched(), torch.randn(8, 4)
    before = state(model)
    model.fails_after = 0
    with pytest.raises(ModelError, match=r"Watched raised RuntimeError: enough.*float\d\d tensor \[8, 4\]"):
        probe(model, x)
    assert state(model) == before


def test_gradient_and_products_are_those_of_autograd():
    model, batch = transformer()
    loss = Loss(model, batch, cross_entropy)
    expected = cross_entropy(model(batch), batch)
    expected.backward()
    assert loss.value() == pytest.approx(float(expected.detach()), rel=1e-6)
    torch.testing.assert_close(loss.gradient(), loss.flat([p.grad for p in model.parameters()]))


def test_dropout_is_the_same_in_every_evaluation_and_said_to_be():
    model, x = mlp(dropout=0.5)
    loss = Loss(model, x, squares, seed=3)
    assert len({loss.value() for _ in range(5)}) == 1
    assert "the model draws random numbers (dropout): the same in every evaluation, seed 3" in loss.notes
    assert Loss(model, x, squares, seed=4).value() != loss.value()


def test_eval_mode_frozen_parameters_and_float64_are_noted():
    model, x = mlp()
    model[0].requires_grad_(False)
    loss = Loss(model.eval(), x, squares, double=True)
    assert loss.size == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert loss.notes == (
        "evaluated on a copy in float64",
        "2 frozen parameters are left out",
        "the model is in eval mode: dropout is off, running statistics are used",
    )


def test_a_compiled_model_is_evaluated_as_the_one_it_was_made_of():
    model, x = mlp()
    compiled = copy.copy(Loss(torch.compile(model), x, squares))
    assert compiled.notes == ("evaluated without torch.compile",)
    assert compiled.value() == Loss(model, x, squares).value()


class Drifting(nn.Linear):
    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x) + self.calls


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        return g * ctx.saved_tensors[0].cos()


class Kernel(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return Once.apply(super().forward(x))


class Flash(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        q = super().forward(x)[:, None]
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION):
            return nn.functional.scaled_dot_product_attention(q, q, q)


@pytest.mark.parametrize(
    ("model", "batch", "loss_fn", "said"),
    [
        (Quadratic(1.0, start=float("inf")), torch.zeros(1), own, "needs a finite loss"),
        (nn.Linear(2, 2).requires_grad_(False), torch.zeros(1, 2), squares, "are frozen"),
        (Drifting(2, 2), torch.ones(1, 2), squares, "the same twice"),
        (nn.Linear(2, 2), torch.ones(1, 2), lambda y, b: y, r"one number; got a tensor \[1, 2\]"),
        (nn.Linear(2, 2), torch.ones(1, 2), lambda y, b: y.detach().sum(), "has no gradient"),
        (nn.Linear(2, 2), torch.ones(1, 3), squares, r"float32 tensor \[1, 3\]"),
        (nn.Linear(2, 2, dtype=torch.complex64), torch.ones(1, 2, dtype=torch.complex64), own, "real parameters"),
        (Kernel(2, 2), torch.ones(1, 2), squares, r"Kernel Once cannot .*Replace it"),
        (Flash(4, 4), torch.randn(2, 3, 4), squares, r"Flash _scaled_dot_product_flash_attention\w* cannot"),
    ],
)
def test_what_has_no_hessian_is_said_in_one_message(model, batch, loss_fn, said):
    with pytest.raises(ModelError, match=said):
        sharpness(Loss(model, batch, loss_fn))


@pytest.mark.parametrize(
    ("model", "loss_fn", "said"),
    [
        (nn.LayerNorm(2).requires_grad_(False), squares, "all 2 of LayerNorm are frozen"),
        (nn.LayerNorm(2, elementwise_affine=False), squares, "the model has none"),
        (nn.LayerNorm(2), lambda y, b: y, r"one number; got a tensor \[1, 2\]"),
        (nn.LayerNorm(2), lambda y, b: y.sum().item(), "one number; got float"),
        (nn.LayerNorm(2), lambda y, b: y.detach().sum(), "has no gradient"),
    ],
)
def test_the_lens_says_the_same_of_a_loss_without_a_gradient(model, loss_fn, said):
    x = torch.randn(1, 2)
    for measured in (lambda: at_init(lambda: model, x, loss_fn, 1), lambda: Loss(model, x, loss_fn).gradient()):
        with pytest.raises(ModelError, match=said):
            measured()


def test_a_loss_that_the_user_did_not_give_is_noted():
    model, x = mlp()
    assert "the loss is the output's product with a fixed random direction" in Loss(model, x).notes
    assert not any("the loss is" in note for note in Loss(model, x, squares).notes)


def test_a_language_model_needs_two_tokens():
    model, _ = transformer()
    shifted = lambda y, b: nn.functional.cross_entropy(y[:, :-1].flatten(0, 1), b[:, 1:].flatten())  # noqa: E731
    with pytest.raises(ModelError, match="sequences of two tokens or more"):
        learning_rate_limit(model, torch.zeros(1, 1, dtype=torch.long), shifted)


def test_one_token_has_no_concentration():
    model, _ = transformer()
    with pytest.raises(GradlensError, match="at least two"):
        concentration(model, torch.zeros(1, 1, dtype=torch.long))
