"""What the recorded steps show: norms that are not at work, blocks that are initialized too large."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import gradlens
from gradlens.recording import Recording
from tests.analyses.architecture.test_architecture import HEALTHY, Mean, alone
from tests.analyses.architecture.wired import IMAGES, SEQUENCES, WIDTH, Encoder, ResNet, flagged, judged, run
from tests.analyses.trained import train


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def evaluated(model: nn.Module, since: int, *, freeze: bool = False) -> Recording:
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    if freeze:
        [norm.requires_grad_(False) for norm in norms]

    def batches(step: int) -> tuple[Tensor, Tensor]:
        if step >= since:
            [norm.eval() for norm in norms]
        return IMAGES(step)

    return train(model, batches, lr=1e-3, steps=4, updates=False)


@pytest.mark.parametrize("since", [0, 2])
@pytest.mark.parametrize("build", [ResNet, HEALTHY["VGG"], HEALTHY["MobileNet"], HEALTHY["DenseNet"]])
def test_norms_in_evaluation_mode_are_named_with_the_step(build: Callable[[], nn.Module], since: int) -> None:
    found = judged(evaluated(build(), since))["GL806"]
    assert (found.status, found.onset) == ("warn", since or None)
    assert found.value == len(found.sites) > 0


def test_those_whose_parameters_are_frozen_too_are_not() -> None:
    assert judged(evaluated(ResNet(), 0, freeze=True))["GL806"].status == "pass"


class Constant(nn.Module):
    """LayerNorm or RMSNorm whose statistics have no gradient."""

    def __init__(self, centered: bool = True) -> None:
        super().__init__()
        self.weight, self.eps, self.centered = nn.Parameter(torch.ones(WIDTH)), 1e-5, centered

    def forward(self, x: Tensor) -> Tensor:
        x = x - x.mean(-1, keepdim=True).detach() if self.centered else x
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps).detach() * self.weight


@pytest.mark.parametrize("centered", [True, False])
@pytest.mark.parametrize(
    "build",
    [
        lambda norm: Encoder(norm=norm),
        lambda norm: Encoder(norm=norm, named=True),
        lambda norm: Encoder(norm=norm, post=True),
        lambda norm: nn.Sequential(nn.Linear(WIDTH, WIDTH), norm(), nn.ReLU(), norm(), nn.Linear(WIDTH, 3), Mean()),
    ],
    ids=["encoder", "decoder", "Post-LN", "MLP"],
)  # fmt: skip
def test_detached_statistics_are_named(build: Callable[..., nn.Module], centered: bool) -> None:
    found = flagged(build(lambda: Constant(centered)))
    assert set(found) == {"GL807"}


def initialized(build: Callable[[], nn.Module]) -> Recording:
    return gradlens.at_init(build, SEQUENCES(0)[0], lambda output, batch: output.square().mean(), seeds=2)


def _large(model: nn.Module, block: int, factor: float = 12.0) -> nn.Module:
    with torch.no_grad():
        for layer in (model.blocks[block].up, model.blocks[block].down):
            layer.weight.mul_(factor)
    return model


@pytest.mark.parametrize("post", [True, False])
@pytest.mark.parametrize("block", [0, 2])
def test_a_block_that_is_initialized_large_is_named(post: bool, block: int) -> None:
    for recording in (initialized(lambda: _large(Encoder(post=post), block)), run(_large(Encoder(post=post), block))):
        found = judged(recording)["GL808"]
        assert (found.status, found.sites) == ("warn", (f"blocks.{block}",))


def test_what_was_not_recorded_is_not_judged() -> None:
    recording = run(Encoder(odd=alone))
    meta = {name: value for name, value in recording.meta.items() if name != "structure"}
    tables = {name: recording.table(name) for name in ("sites", "norms", "steps")}
    found = judged(Recording.from_tables(meta, **tables))
    assert found["GL801"].status == "not applicable"
    assert not {"GL802", "GL803", "GL804", "GL805", "GL808"} & set(found)


def test_inspecting_shows_the_wiring_before_any_training() -> None:
    found = judged(initialized(lambda: Encoder(odd=alone, final=nn.Identity())))
    assert (found["GL801"].status, found["GL804"].status) == ("fail", "warn")
