"""The weight, sign and label that a gradient names are those of the loss it was taken of, by float64 autograd."""

import itertools
from collections.abc import Callable
from math import inf, sqrt

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gradlens.lens.output_fits import Fit, Kind, Named, fit, reduced

N, C = 24, 7
LABELS = torch.randint(C, (N,), generator=torch.Generator().manual_seed(1))
IGNORED = torch.where(torch.arange(N) % 3 == 0, -100, LABELS)
BITS = torch.randint(2, (N, 1), generator=torch.Generator().manual_seed(2)).double()
Loss = Callable[[Tensor], Tensor]


def logits(classes: int = C, scale: float = 1.5, dtype: torch.dtype = torch.float64) -> Tensor:
    z = scale * torch.randn(N, classes, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return z.to(dtype)


def fitted(z: Tensor, loss: Loss, kind: Kind = "softmax") -> Fit:
    z = z.detach().requires_grad_()
    (g,) = torch.autograd.grad(loss(z), z)
    return told(z.detach(), g, kind)


def told(z: Tensor, g: Tensor, kind: Kind = "softmax") -> Fit:
    z, g = (x if x.dtype == torch.float64 else x.float() for x in (z, g))
    return fit(reduced(z, g, kind).double().numpy(), 2 if kind == "binary" else z.shape[1], kind)


def weight_of(named: Named) -> float:
    return named.weight / named.n


def spread_of(named: Named) -> float:
    mean = weight_of(named)
    return sqrt(max(0.0, named.weight_squares / named.n - mean**2)) / abs(mean)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("loss", "weight"),
    [
        (lambda z: F.cross_entropy(z, LABELS), 1 / N),
        (lambda z: F.cross_entropy(z, LABELS, reduction="sum"), 1.0),
        (lambda z: 3.0 * F.nll_loss(F.log_softmax(z, 1), LABELS), 3 / N),
        (lambda z: F.cross_entropy(F.log_softmax(z, 1), LABELS), 1 / N),
    ],
    ids=["mean", "sum", "log-softmax and NLL", "log-softmax twice"],
)
def test_each_row_of_a_cross_entropy_has_its_weight_and_its_label(
    loss: Loss, weight: float, dtype: torch.dtype
) -> None:
    z = logits(dtype=dtype)
    found = fitted(z, loss)
    assert found.least.n == found.asked == N
    assert found.largest.n == 0
    assert weight_of(found.least) == pytest.approx(weight, rel=1e-4)
    assert spread_of(found.least) < 1e-3
    assert found.least.labels.tolist() == LABELS.tolist()
    assert found.least.cross_entropy == pytest.approx(F.cross_entropy(z, LABELS, reduction="sum").item(), rel=1e-5)
    assert found.least.correct == (z.argmax(1) == LABELS).sum()
    assert found.row_sum < 1e-5


@pytest.mark.parametrize("taken", [F.cross_entropy, F.nll_loss])
def test_log_probabilities_are_seen_and_fit_both_losses(taken: Callable[[Tensor, Tensor], Tensor]) -> None:
    found = fitted(logits().log_softmax(1), lambda z: taken(z, LABELS))
    assert found.log_probabilities == found.least.n == N
    assert found.probabilities == 0
    assert weight_of(found.least) == pytest.approx(1 / N, rel=1e-6)


@pytest.mark.parametrize("kind", ["softmax", "twice"])
def test_a_maximized_loss_has_negative_weights_of_the_same_labels(kind: Kind) -> None:
    z = logits(scale=0.5)
    found = fitted(z, lambda z: -F.cross_entropy(z.softmax(1) if kind == "twice" else z, LABELS), kind)
    assert found.least.n == 0
    assert weight_of(found.largest) == pytest.approx(-1 / N, rel=1e-6)
    known = [
        (label, true) for label, true in zip(found.largest.labels.tolist(), LABELS.tolist(), strict=True) if label >= 0
    ]
    assert len(known) > N // 2
    assert all(label == true for label, true in known)


def test_rows_that_are_ignored_have_no_gradient_and_no_label() -> None:
    found = fitted(logits(), lambda z: F.cross_entropy(z, IGNORED))
    assert found.live == found.least.n == (IGNORED >= 0).sum()
    assert weight_of(found.least) == pytest.approx(1 / int((IGNORED >= 0).sum()))
    assert found.least.labels.tolist() == torch.where(IGNORED >= 0, IGNORED, -1).tolist()


def test_class_weights_fit_row_by_row_but_not_with_one_weight() -> None:
    weights = torch.arange(1.0, C + 1, dtype=torch.float64)
    found = fitted(logits(), lambda z: F.cross_entropy(z, LABELS, weight=weights))
    own = weights[LABELS] / weights[LABELS].sum()
    assert found.least.n == N
    assert found.least.weight == pytest.approx(own.sum().item())
    assert found.least.weight_squares == pytest.approx(own.square().sum().item())
    assert spread_of(found.least) > 0.3


@pytest.mark.parametrize(
    "loss",
    [
        lambda z: F.cross_entropy(z, LABELS, label_smoothing=0.1),
        lambda z: F.mse_loss(z, F.one_hot(LABELS, C).double()),
        lambda z: F.cross_entropy(z, torch.softmax(logits(scale=3.0).flip(0), 1)),
        lambda z: (z * logits().flip(1)).sum(),
        lambda z: F.multi_margin_loss(z, LABELS),
        lambda z: F.nll_loss(z.softmax(1), LABELS),
    ],
    ids=["smoothed labels", "squares", "soft labels", "a direction", "margins", "NLL of probabilities"],
)
def test_another_loss_is_not_taken_for_a_cross_entropy(loss: Loss) -> None:
    for kind, scale in itertools.product(("softmax", "twice"), (0.5, 1.5)):
        found = fitted(logits(scale=scale), loss, kind)
        named = min(found.least, found.largest, key=lambda one: -one.n)
        spread = spread_of(named) if named.n > 1 else inf
        assert found.fitted < 0.9 * found.asked or spread > 0.05 or named.n < 4


@pytest.mark.parametrize("scale", [0.3, 2.0])
def test_softmax_outside_of_the_model_is_told_from_one_softmax(scale: float) -> None:
    z = logits(scale=scale)
    twice, once = (lambda z: F.cross_entropy(z.softmax(1), LABELS)), (lambda z: F.cross_entropy(z, LABELS))
    assert weight_of(fitted(z, twice, "twice").least) == pytest.approx(1 / N, rel=1e-6)
    assert spread_of(fitted(z, twice, "twice").least) < 1e-6
    for loss, kind in ((once, "twice"), (twice, "softmax")):
        found = fitted(z, loss, kind)
        assert found.least.n < 4 or spread_of(found.least) > 0.05


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("classes", [1, 3])
def test_independent_entries_are_weighed_as_two_classes_whose_names_only_one_sign_makes_equal(
    sign: int, classes: int
) -> None:
    bits = BITS.expand(N, classes)
    z = logits(classes)
    found = fitted(z, lambda z: sign * F.binary_cross_entropy_with_logits(z, bits), "binary")
    right, wrong = (found.least, found.largest)[::sign]
    assert weight_of(right) == pytest.approx(sign / (N * classes), rel=1e-6)
    assert spread_of(right) < 1e-3
    assert spread_of(wrong) > 0.2
    if classes == 1:
        assert right.labels.tolist() == BITS[:, 0].int().tolist()


def test_rows_that_are_sure_of_their_label_are_no_ignored_ones() -> None:
    z = 40.0 * F.one_hot(LABELS, C).float()
    found = fitted(z, lambda z: F.cross_entropy(z, LABELS))
    assert found.live == (found.least.labels >= 0).sum() == found.least.correct == N
    assert found.asked == 0
    assert found.least.labels.tolist() == LABELS.tolist()


def test_rows_that_are_not_finite_are_left_out_and_masked_classes_are_none_of_them() -> None:
    z = logits()
    z[:, 0] = -inf
    labels = LABELS.clamp_min(1)
    g = torch.autograd.functional.jacobian(lambda z: F.cross_entropy(z, labels), z)
    g[3] = torch.nan
    found = told(z, g)
    assert found.finite == found.least.n == N - 1
    assert weight_of(found.least) == pytest.approx(1 / N, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_blurs_weights_by_less_than_is_allowed_for(dtype: torch.dtype) -> None:
    z = logits(dtype=dtype)
    found = fitted(z, lambda z: F.cross_entropy(z.float(), LABELS))
    assert found.least.n >= 0.95 * found.asked
    assert weight_of(found.least) == pytest.approx(1 / N, rel=0.01)
    assert spread_of(found.least) < 0.05
