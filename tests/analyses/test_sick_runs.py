"""Real trainings: what is healthy is told nothing, and a planted fault is found by its own code."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gradlens.analysis import Finding
from gradlens.recording import Recording
from tests.analyses.trained import (
    CODES,
    CURVES,
    Batches,
    cnn,
    images,
    judged,
    mlp,
    points,
    sequences,
    train,
    transformer,
)

HEALTHY: dict[str, Callable[[], Recording]] = {
    "mlp, Adam": lambda: train(mlp(), points()),
    "mlp, SGD": lambda: train(mlp(), points(), "SGD", 0.1),
    "mlp, a dozen steps": lambda: train(mlp(), points(), steps=12),
    "cnn, Adam": lambda: train(cnn(), images()),
    "cnn, SGD": lambda: train(cnn(), images(), "SGD", 0.1, momentum=0.9),
    "transformer, Adam": lambda: train(transformer(), sequences(), lr=3e-3, steps=40),
    "transformer, SGD, clipped": lambda: train(transformer(), sequences(), "SGD", 0.3, steps=40, clip=5.0),
    "rezero, Adam": lambda: train(transformer("rezero"), sequences(), lr=3e-3, steps=40),
    "learned by heart": lambda: train(mlp(), lambda step: points()(0), steps=120),
    "converged to nothing": lambda: fitted(lambda step: line(0.0)(0)),
    "converged to noise": lambda: fitted(line(1.0)),
}


def fitted(batches: Batches) -> Recording:
    loss_fn = nn.functional.mse_loss
    return train(nn.Linear(16, 1), batches, "SGD", 0.1, steps=150, updates=False, loss_fn=loss_fn)


def line(noise: float) -> Batches:
    """The sum of the inputs, with noise."""

    def of(step: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(32, 16, generator=generator)
        return x, x.sum(1, keepdim=True) + noise * torch.randn(32, 1, generator=generator)

    return of


class Detached(nn.Module):
    """A Transformer whose second block is cut off from the gradient: its branches, or all before it."""

    def __init__(self, whole: bool) -> None:
        super().__init__()
        self.inside = transformer()
        cut = lambda x, out: out.detach() if whole else x + (out - x).detach()  # noqa: E731
        self.inside.blocks[1].register_forward_hook(lambda module, args, out: cut(args[0], out))

    def forward(self, x: Tensor) -> Tensor:
        return self.inside(x)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_run_is_told_nothing(name: str) -> None:
    found = judged(HEALTHY[name]())
    assert {code for code, finding in found.items() if finding.status in ("warn", "fail")} == set()
    assert set(found) >= set(CODES) - {"GL204"}
    if name.startswith("converged"):
        assert found["GL306"].status == "pass"


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_a_loss_that_is_climbed_has_not_fallen(optimizer: str) -> None:
    found = judged(train(mlp(), points(), optimizer, sign=-1.0))["GL306"]
    assert found.status == "fail"
    assert found.low is not None
    assert found.low > 0


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_a_learning_rate_of_a_thousand_is_seen(optimizer: str) -> None:
    found = judged(train(mlp(), points(), optimizer, 1e3, steps=30))
    assert found["GL306"].status == "fail" or "(GL301)" in found["GL306"].claim
    assert found["GL404"].status == "warn"


def test_a_rate_that_moves_nothing_is_seen() -> None:
    found = judged(train(mlp(), points(), lr=1e-9, steps=120))
    assert found["GL306"].status == "warn"
    assert found["GL404"].status == "warn"
    assert found["GL404"].value == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(("whole", "named"), [(True, "inside.blocks.0"), (False, "inside.blocks.1")])
def test_a_detached_block_is_named(whole: bool, named: str) -> None:
    found = judged(train(Detached(whole), sequences(), lr=3e-3, steps=20))["GL401"]
    assert found.status == "fail"
    assert named in found.sites


def test_a_backbone_that_is_frozen_on_purpose_is_no_fault() -> None:
    model = mlp()
    model[0].requires_grad_(False)
    assert judged(train(model, points(), steps=20))["GL401"].status == "pass"


def test_units_that_never_fire_leave_what_is_before_them_without_a_gradient() -> None:
    model = mlp()
    nn.init.constant_(model[4].bias, -100.0)
    found = judged(train(model, points(), steps=20))["GL401"]
    assert found.status == "warn"
    assert {"0.weight", "1.weight", "3.weight", "4.weight", "4.bias", "6.weight"} <= set(found.sites)
    assert "6.bias" not in found.sites


def test_clipping_far_below_the_gradient_is_seen() -> None:
    found = judged(train(mlp(), points(), "SGD", 0.1, clip=1e-4, steps=60))["GL403"]
    assert found.status == "warn"
    assert found.value == pytest.approx(1e-4, rel=2.0)


def test_an_eps_that_drowns_small_inputs_is_seen_and_names_the_norm() -> None:
    def small(step: int) -> tuple[Tensor, Tensor]:
        x, y = points()(step)
        return 0.1 * x, y

    found = judged(train(mlp(eps=1.0), small, "SGD", 1e-3, steps=20))["GL204"]
    assert found.status == "warn"
    assert "1" in found.sites
    assert found.value is not None
    assert 0.5 < found.value <= 1.0


def fell(recording: Recording) -> Finding:
    found = {finding.code: finding for finding in CURVES.judge(CURVES.compute([recording]))}
    return found["GL306"]


def test_the_loss_unit_and_zero_change_no_verdict_on_a_real_run() -> None:
    recording = train(mlp(), points(), steps=40, updates=False)
    tables, one = {name: recording.table(name) for name in ("sites", "norms", "steps")}, fell(recording)
    for times, plus in ((1e-6, 0.0), (1e6, 0.0), (1.0, 1000.0), (1.0, -1000.0)):
        steps = tables["steps"].assign(loss=lambda t, a=times, b=plus: a * t["loss"] + b)
        other = Recording.from_tables(recording.meta, **tables | {"steps": steps})
        moved = fell(other)
        assert moved.status == one.status
        assert moved.value == pytest.approx(times * (one.value or 0.0), rel=1e-6)
        assert moved.details["given back"] == pytest.approx(one.details["given back"], abs=1e-6)
