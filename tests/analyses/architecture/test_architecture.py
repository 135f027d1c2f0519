"""Faults of the wiring are named by their own codes and places; what is sound is told nothing."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.analyses.architecture.wired import (
    LENGTH,
    WIDTH,
    Encoder,
    Mixer,
    ResNet,
    UNet,
    flagged,
    judged,
)
from tests.analyses.trained import sequences, train, transformer


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def own_norm_too() -> nn.Module:
    """An attention that begins with a norm, in blocks that begin with one."""
    model = Encoder()
    model.blocks[1].attention = nn.Sequential(nn.LayerNorm(WIDTH), model.blocks[1].attention)
    return model


def _torch(first: bool, final: bool, head: bool = True) -> nn.Module:
    layer = nn.TransformerEncoderLayer(WIDTH, 2, 16, norm_first=first, batch_first=True)
    stack = nn.TransformerEncoder(layer, 3, nn.LayerNorm(WIDTH) if final else None, enable_nested_tensor=False)
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), stack, *[nn.Linear(WIDTH, 3)] * head, Mean())


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


class Bottleneck(nn.Module):
    """MobileNet's: a skip where nothing changes its size."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, stride, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1))
        self.skips = stride == 1

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.skips else self.body(x)


class Dense(nn.Module):
    """DenseNet's layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(width), nn.Conv2d(width, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(torch.relu(self.norm(x)))], 1)


class ConvNeXt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mixed, self.norm, self.scale = (
            nn.Conv2d(8, 8, 3, 1, 1, groups=8),
            nn.LayerNorm(8),
            nn.Parameter(torch.full((8,), 0.1)),
        )
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.mixed(x).permute(0, 2, 3, 1))
        return x + (self.scale * self.down(torch.relu(self.up(y)))).permute(0, 3, 1, 2)


class Pooled(nn.Module):
    def __init__(self, *body: nn.Module, width: int = 8) -> None:
        super().__init__()
        self.into, self.body, self.head = nn.Conv2d(1, 8, 1), nn.Sequential(*body), nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.into(x)).mean((2, 3)))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.norm, self.head = (
            nn.LSTM(WIDTH, WIDTH, 2, batch_first=True),
            nn.LayerNorm(WIDTH),
            nn.Linear(WIDTH, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.lstm(x)[0][:, -1]))


HEALTHY: dict[str, Callable[[], nn.Module]] = {
    "encoder": Encoder,
    "encoder, Post-LN": lambda: Encoder(post=True),
    "encoder, Post-LN and a final norm": lambda: Encoder(post=True, final=nn.LayerNorm(WIDTH)),
    "encoder, blocks as attributes": lambda: Encoder(named=True),
    "encoder, RMSNorm": lambda: Encoder(norm=lambda: nn.RMSNorm(WIDTH)),
    "encoder, x - f": lambda: Encoder(odd=lambda x, f: x - f),
    "ResNet": ResNet,
    "U-Net": UNet,
    "mixer": Mixer,
    "torch, Pre-LN, final": lambda: _torch(True, True),
    "torch, Post-LN": lambda: _torch(False, False),
    "torch, Post-LN, final": lambda: _torch(False, True),
    "torch, Pre-LN, its stream handed out": lambda: nn.Sequential(_torch(True, False, head=False)),
    "parts that end and begin with norms": lambda: nn.Sequential(
        nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH)),
        nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3)), Mean(),
    ),
    "VGG": lambda: Pooled(*(nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU()) for _ in range(4))),
    "MobileNet": lambda: Pooled(*(Bottleneck(stride) for stride in (1, 1, 2, 1))),
    "DenseNet": lambda: Pooled(*(Dense(8 + 4 * i) for i in range(4)), width=24),
    "ConvNeXt": lambda: Pooled(*(ConvNeXt() for _ in range(4))),
    "LSTM": Recurrent,
}  # fmt: skip


@pytest.mark.parametrize("name", HEALTHY)
def test_a_sound_network_is_told_nothing(name: str) -> None:
    assert flagged(HEALTHY[name]()) == {}


@pytest.mark.parametrize("variant", ["pre-ln", "post-ln", "peri-ln", "deepnorm", "b2t", "rezero"])
def test_nor_is_the_zoo(variant: str) -> None:
    found = judged(train(transformer(variant), sequences(), steps=2, updates=False))
    assert {code for code, finding in found.items() if finding.status in ("warn", "fail")} == set()


# ------------------------------------------------------------------ skips

alone = lambda x, f: f  # noqa: E731
NETWORKS: dict[str, tuple[Callable[..., nn.Module], str]] = {
    "encoder": (Encoder, "blocks.1"),
    "decoder with its blocks as attributes": (lambda **k: Encoder(named=True, **k), "h1"),
    "encoder, Post-LN": (lambda **k: Encoder(post=True, **k), "blocks.1"),
    "ResNet": (ResNet, "layers.2"),
    "U-Net": (UNet, "down2"),
    "mixer": (Mixer, "blocks.1"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_block_without_its_skip_is_named(name: str) -> None:
    build, place = NETWORKS[name]
    found = flagged(build(odd=alone))["GL801"]
    assert (found.status, found.sites, found.expected) == ("fail", (place,), 1.0 + (found.value == 1.0))


@pytest.mark.parametrize("wrong", [lambda x, f: f - x, lambda x, f: -x + f, lambda x, f: -x - f, lambda x, f: f.sub(x)])
@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "U-Net"])
def test_a_skip_with_the_wrong_sign_is_named(name: str, wrong: Callable[[Tensor, Tensor], Tensor]) -> None:
    build, place = NETWORKS[name]
    found = flagged(build(odd=wrong))
    assert set(found) == {"GL802"}
    assert found["GL802"].status == "fail"
    assert found["GL802"].sites[0].startswith(place)


def test_where_most_blocks_do_without_nobody_is_at_fault() -> None:
    model = Encoder()
    for block in model.blocks[:2]:
        block.odd = alone
    assert "GL801" not in flagged(model)


# ------------------------------------------------------------------ norms twice, missing, over another axis


@pytest.mark.parametrize(
    ("build", "pair"),
    [
        (lambda: Encoder(final=nn.Sequential(nn.LayerNorm(WIDTH), nn.Dropout(0.1), nn.LayerNorm(WIDTH))), "final.2"),
        (lambda: Encoder(named=True, odd_norm=lambda: nn.Sequential(nn.RMSNorm(WIDTH), nn.RMSNorm(WIDTH))), "h1.a.1"),
        (lambda: ResNet(behind=lambda: nn.BatchNorm2d(8)), "stem.2"),
        (lambda: UNet(behind=lambda: nn.GroupNorm(2, 8)), "behind"),
        (lambda: nn.Sequential(_torch(True, True, False)[:2], nn.LayerNorm(WIDTH), Mean(), nn.Linear(WIDTH, 3)), "1"),
        (own_norm_too, "blocks.1.attention.0"),
    ],
    ids=["encoder", "decoder", "ResNet", "U-Net", "torch", "attention"],
)  # fmt: skip
def test_a_norm_twice_is_named(build: Callable[[], nn.Module], pair: str) -> None:
    found = flagged(build())
    assert found["GL803"].status == "warn"
    assert pair in found["GL803"].sites


class TwiceCalled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.norm(x).unsqueeze(0).squeeze(0))


def test_so_is_one_that_is_called_twice() -> None:
    assert flagged(Encoder(final=TwiceCalled()))["GL803"].sites == ("final.norm",)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Encoder(final=nn.Identity()),
        lambda: Encoder(final=nn.Dropout(0.1), named=True, norm=lambda: nn.RMSNorm(WIDTH)),
        lambda: Mixer(final=nn.Identity()),
        lambda: _torch(True, False),
    ],
    ids=["encoder", "decoder", "mixer", "torch"],
)
def test_a_pre_ln_stack_without_its_final_norm_is_named(build: Callable[[], nn.Module]) -> None:
    found = flagged(build())
    assert set(found) == {"GL804"}
    assert found["GL804"].status == "warn"


class Functional(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.layer_norm(x, (WIDTH,))


def test_a_final_norm_that_no_module_shows_is_one() -> None:
    assert flagged(Encoder(final=Functional())) == {}


class Turned(nn.Module):
    """A norm of the transposed."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.transpose(1, 2)).transpose(1, 2)


def _whole() -> nn.Module:
    return nn.LayerNorm((LENGTH, WIDTH))


AXES: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "encoder, over time": (lambda: Encoder(odd_norm=lambda: Turned(nn.LayerNorm(LENGTH))), "blocks.1.a.norm"),
    "encoder, over a whole sample": (lambda: Encoder(odd_norm=_whole), "blocks.1.b"),
    "decoder, all norms over time": (
        lambda: Encoder(named=True, norm=lambda: Turned(nn.LayerNorm(LENGTH))),
        "h3.b.norm",
    ),
    "Post-LN, all over a whole sample": (lambda: Encoder(post=True, norm=_whole), "blocks.0.a"),
    "encoder, tokens as channels": (lambda: Encoder(odd_norm=lambda: nn.BatchNorm1d(LENGTH)), "blocks.1.a"),
    "mixer, over time": (lambda: Mixer(odd_norm=lambda: nn.LayerNorm(LENGTH)), "blocks.1.a"),
}


@pytest.mark.parametrize("name", AXES)
def test_a_norm_over_another_axis_is_named(name: str) -> None:
    build, place = AXES[name]
    found = flagged(build())
    assert set(found) == {"GL805"}
    assert place in found["GL805"].sites
    assert all(site.endswith(("a", "b", "norm", "final")) for site in found["GL805"].sites)
