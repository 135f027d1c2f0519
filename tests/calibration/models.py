"""Whole networks as users write them: residual ones, and some without a residual stream."""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.calibration.batches import CLASSES, LENGTH, SIDE, VOCAB
from tests.calibration.blocks import ConvBlock, DenseBlock, MixerBlock, PostBlock, PreBlock, Wrong


class Tokens(nn.Module):
    """Token and position embedding, [B, T] to [B, T, D]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.token = nn.Embedding(VOCAB, width)
        self.position = nn.Parameter(torch.randn(LENGTH, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.token(x) + self.position[: x.shape[1]]


class Rows(nn.Module):
    """An image's rows as tokens, [B, 14, 14] to [B, 14, D]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(SIDE, width)
        self.position = nn.Parameter(0.5 * torch.randn(SIDE, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.project(x) + self.position


class Patches(nn.Module):
    """Convolutions down to 7 x 7 places, [B, 14, 14] to [B, 49, D]; with BatchNorm where they are more than one."""

    def __init__(self, width: int, convolutions: bool) -> None:
        super().__init__()
        body = (nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()) if convolutions else ()
        self.body = nn.Sequential(*body, nn.Conv2d(16 if convolutions else 1, width, 2, stride=2))
        self.position = nn.Parameter(0.5 * torch.randn((SIDE // 2) ** 2, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x[:, None]).flatten(2).transpose(1, 2) + self.position


class Network(nn.Module):
    """Stem, residual blocks, a norm, and a head; classifies images by the mean over tokens or places."""

    def __init__(self, stem: nn.Module, blocks: list[nn.Module], norm: nn.Module, outputs: int, pool: int = 1) -> None:
        super().__init__()
        self.stem, self.blocks, self.norm, self.pool = stem, nn.ModuleList(blocks), norm, pool
        width = blocks[0].mlp[-1].out_features if hasattr(blocks[0], "mlp") else blocks[0].body[0].out_channels
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return self.head(x.flatten(2).mean(-1) if x.dim() == 4 else x.mean(1) if self.pool else x)


def _final(wrong: Wrong, width: int) -> nn.Module:
    return nn.LayerNorm(width) if wrong.final_norm else nn.Identity()


def gpt(wrong: Wrong, width: int = 48, blocks: int = 5) -> nn.Module:
    body = [PreBlock(wrong, index, width, LENGTH, causal=True) for index in range(blocks)]
    return Network(Tokens(width), body, _final(wrong, width), VOCAB, pool=0)


def vit(wrong: Wrong, width: int = 32, blocks: int = 4) -> nn.Module:
    body = [PreBlock(wrong, index, width, 49) for index in range(blocks)]
    return Network(Patches(width, convolutions=False), body, _final(wrong, width), CLASSES)


def hybrid(wrong: Wrong, width: int = 32, blocks: int = 4) -> nn.Module:
    body = [PreBlock(wrong, index, width, 49) for index in range(blocks)]
    return Network(Patches(width, convolutions=True), body, _final(wrong, width), CLASSES)


def post(wrong: Wrong, width: int = 48, blocks: int = 4) -> nn.Module:
    body = [PostBlock(wrong, index, width, SIDE) for index in range(blocks)]
    return Network(Rows(width), body, nn.Identity(), CLASSES)


def mixer(wrong: Wrong, width: int = 32, blocks: int = 4) -> nn.Module:
    body = [MixerBlock(wrong, index, width, 49) for index in range(blocks)]
    return Network(Patches(width, convolutions=False), body, _final(wrong, width), CLASSES)


def dense(wrong: Wrong, width: int = 64, blocks: int = 8) -> nn.Module:
    stem = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, width))
    body = [DenseBlock(wrong, index, width, 32) for index in range(blocks)]
    network = Network(stem, body, _final(wrong, width), CLASSES, pool=0)
    return network


def resnet(wrong: Wrong, width: int = 16, blocks: int = 4) -> nn.Module:
    stem = nn.Sequential(nn.Unflatten(1, (1, SIDE)), nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width))
    return Network(nn.Sequential(*stem, nn.ReLU()), [ConvBlock(wrong, i, width) for i in range(blocks)],
                   nn.Identity(), CLASSES)  # fmt: skip


def mlp(wrong: Wrong, width: int = 64) -> nn.Module:
    hidden = [(nn.Linear(SIDE**2 if i == 0 else width, width), nn.LayerNorm(width), nn.ReLU()) for i in range(3)]
    return nn.Sequential(nn.Flatten(), *(layer for layers in hidden for layer in layers), nn.Linear(width, CLASSES))


def cnn(wrong: Wrong) -> nn.Module:
    sizes = (1, 16, 16, 32, 32)
    stages = [
        nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(), *[nn.MaxPool2d(2)] * (i % 2))
        for i, (a, b) in enumerate(itertools.pairwise(sizes))
    ]
    return nn.Sequential(nn.Unflatten(1, (1, SIDE)), *stages, nn.Flatten(), nn.Linear(32 * 9, CLASSES))


class LSTM(nn.Module):
    """A language model: two layers of LSTM and a norm."""

    def __init__(self, wrong: Wrong, width: int = 64) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, width)
        self.lstm = nn.LSTM(width, width, num_layers=2, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, VOCAB)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.lstm(self.embedding(x))[0]))


class GRU(nn.Module):
    """Reads an image row by row."""

    def __init__(self, wrong: Wrong, width: int = 48) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.Linear(SIDE, width), nn.LayerNorm(width))
        self.gru = nn.GRU(width, width, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.gru(self.project(x))[0][:, -1]))


class UNet(nn.Module):
    """Two levels with BatchNorm, joined by concatenation: removes the noise of an image."""

    def __init__(self, wrong: Wrong, width: int = 16) -> None:
        super().__init__()
        self.down1, self.down2 = self._stage(1, width), self._stage(width, 2 * width)
        self.middle = self._stage(2 * width, 2 * width)
        self.up = self._stage(3 * width, width)
        self.head = nn.Conv2d(width, 1, 1)

    @staticmethod
    def _stage(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        high = self.down1(x[:, None])
        low = self.middle(self.down2(F.max_pool2d(high, 2)))
        return self.head(self.up(torch.cat([high, F.interpolate(low, scale_factor=2)], 1)))[:, 0]


def autoencoder(wrong: Wrong, width: int = 64, code: int = 16) -> nn.Module:
    sizes = (SIDE**2, width, code, width)
    layers = [(nn.Linear(a, b), nn.LayerNorm(b), nn.ReLU()) for a, b in itertools.pairwise(sizes)]
    last = (nn.Linear(width, SIDE**2), nn.Unflatten(1, (SIDE, SIDE)))
    return nn.Sequential(nn.Flatten(), *(layer for three in layers for layer in three), *last)
