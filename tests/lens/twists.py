"""Twists of the networks: in-place operations, checkpoints, norms called as functions.

The witness of a twist watches the same mathematics written plainly, which stands beside it.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from tests.lens.networks import WIDTH, Block, Thrice, stir

# ---------------------------------------------------------------------- in-place operations


class InPlaceAfter(Block):
    def branch(self, x):
        y = self.norm(x)
        y += 1
        return self.linear(torch.relu_(y))


class PlainAfter(Block):
    def branch(self, x):
        return self.linear(torch.relu(self.norm(x) + 1))


class InPlaceOnViews(Block):
    """Half of the output is scaled through a slice, a row of it through another view."""

    def branch(self, x):
        y = self.norm(x)
        y[..., : WIDTH // 2] *= 2
        y.view(-1, WIDTH)[0].add_(1)
        return self.linear(y)


class PlainOnViews(Block):
    def branch(self, x):
        factor, shift = torch.ones(WIDTH), torch.zeros(x.shape)
        factor[: WIDTH // 2], shift.view(-1, WIDTH)[0] = 2, 1
        return self.linear(self.norm(x) * factor + shift)


class InPlaceBefore(Block):
    """What goes into the norm was changed in place: a view of a tensor, and the tensor itself."""

    def branch(self, x):
        h = torch.tanh(x)
        h = h * 1
        h[..., 0].mul_(3)
        h += x
        return self.linear(self.norm(h))


class PlainBefore(Block):
    def branch(self, x):
        factor = torch.ones(WIDTH)
        factor[0] = 3
        return self.linear(self.norm(torch.tanh(x) * factor + x))


class UpcastRMSNorm(nn.Module):
    """Keeps a copy in another precision, as Llama's does, so that its input may be changed afterwards."""

    like = nn.RMSNorm

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(WIDTH)), 1e-6

    def forward(self, x):
        y = x.double()
        return self.weight * (y * torch.rsqrt(y.square().mean(-1, keepdim=True) + self.eps)).to(x.dtype)


class InPlaceOnInput(Block):
    """The residual stream is added to in place, after the norm has read it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = UpcastRMSNorm()

    def forward(self, x):
        x = x * 1
        x += self.branch(x)
        return x


class PlainOnInput(InPlaceOnInput):
    def forward(self, x):
        return x + self.branch(x)


class ConvBlock(nn.Module):
    """ResNet's basic block."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=inplace)

    def forward(self, x):
        identity = x
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += identity
        return self.relu(y)


def resnet(inplace: bool = True) -> nn.Module:
    torch.manual_seed(0)
    stem = [nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=inplace)]
    return stir(nn.Sequential(*stem, ConvBlock(inplace), ConvBlock(inplace), nn.GroupNorm(2, 4)))


# ---------------------------------------------------------------------- checkpoints


class Checkpointed(Block):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.reentrant = reentrant

    def forward(self, x):
        return x + checkpoint(self.branch, x, use_reentrant=self.reentrant)


class CheckpointedThrice(Thrice):
    """The same norm three times in one checkpointed region."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.reentrant = reentrant

    def forward(self, x):
        return x + checkpoint(super().branch, x, use_reentrant=self.reentrant)


class NestedCheckpoint(Block):
    """A checkpoint in a checkpoint, and a norm in each."""

    def __init__(self, outer: bool, inner: bool) -> None:
        super().__init__()
        self.inside, self.outer, self.inner = Checkpointed(inner), outer, inner

    def branch(self, x):
        return self.linear(self.inside(self.norm(x)))

    def forward(self, x):
        return x + checkpoint(self.branch, x, use_reentrant=self.outer)


class NestedPlain(Block):
    def __init__(self) -> None:
        super().__init__()
        self.inside = Block()

    def branch(self, x):
        return self.linear(self.inside(self.norm(x)))


# ---------------------------------------------------------------------- norms called as functions


class FunctionalBlock(Block):
    """Keeps the norm's parameters in a module that is never called."""

    def branch(self, x):
        return self.linear(F.layer_norm(x, (WIDTH,), self.norm.weight, self.norm.bias, self.norm.eps))


class ForwardBlock(Block):
    """Calls ``forward`` itself, which runs no hooks."""

    def branch(self, x):
        return self.linear(self.norm.forward(x))


class FunctionalCheckpoint(FunctionalBlock):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.reentrant = reentrant

    def forward(self, x):
        return x + checkpoint(self.branch, x, use_reentrant=self.reentrant)


class Images(nn.Module):
    """Every norm of images, as a module or as a function."""

    def __init__(self, functional: bool) -> None:
        super().__init__()
        self.conv, self.functional = nn.Conv2d(2, 4, 3, padding=1), functional
        self.batch, self.group, self.instance = nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.InstanceNorm2d(4, affine=True)
        self.rms = nn.RMSNorm(5, eps=1e-5)

    def forward(self, x):
        x = self.conv(x)
        if not self.functional:
            return self.rms(self.instance(self.group(self.batch(x).tanh()).tanh()).tanh())
        b, g, i, r = self.batch, self.group, self.instance, self.rms
        x = F.batch_norm(x, None, None, b.weight, b.bias, training=True, eps=b.eps).tanh()
        x = F.group_norm(x, 2, weight=g.weight, bias=g.bias, eps=g.eps).tanh()
        x = F.instance_norm(x, weight=i.weight, bias=i.bias, eps=i.eps).tanh()
        return F.rms_norm(x, [5], r.weight, r.eps)


def images(functional: bool) -> nn.Module:
    torch.manual_seed(0)
    return stir(Images(functional))
