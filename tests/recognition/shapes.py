"""Norms as they are written in the wild: one small class for each shape of behaviour, and what it computes.

Written for these tests; gains are drawn at random, so that they can be told from one.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.oracles import Case

C = 16


def drawn(size: int | tuple[int, ...] = C) -> nn.Parameter:
    return nn.Parameter(torch.empty(size).uniform_(0.3, 1.7))


class UnitLength(nn.Module):
    """x / max(‖x‖, 1e-12) √H (g + 1): no eps that an attribute tells, a gain that starts at 0."""

    shape, dims, centered, eps = (4, 5, C), (-1,), False, 0.0

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.g = C**0.5, drawn()

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1) * self.scale * (self.g + 1)

    def case(self, x: Tensor) -> Case:
        return Case((-1,), 0.0, centered=False, gain=self.g.detach() + 1)


class IntegerShape(nn.Module):
    """Says its normalized_shape as a number."""

    shape = (4, 5, C)

    def __init__(self) -> None:
        super().__init__()
        self.normalized_shape, self.weight, self.eps = C, drawn(), 1e-5

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (self.normalized_shape,), self.weight, self.eps)

    def case(self, x: Tensor) -> Case:
        return Case((-1,), 1e-5, centered=False, gain=self.weight.detach())


class ScalarGain(nn.Module):
    """g x / ‖x‖ with one number g."""

    shape = (4, 5, C)

    def __init__(self) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.tensor(3.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.g * x / x.norm(dim=-1, keepdim=True).clamp(min=1e-5)

    def case(self, x: Tensor) -> Case:
        return Case((-1,), 0.0, centered=False, gain=self.g.detach().expand(C) / C**0.5)


class NoParameters(nn.Module):
    """LayerNorm as a function, its eps in the code alone."""

    shape = (4, 5, C)

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, (C,), None, None, eps=1e-3)

    def case(self, x: Tensor) -> Case:
        return Case((-1,), 1e-3)


NoParameters.__name__, ScalarGain.__name__ = "PlainNorm", "ScaleNorm"


class ChannelsFirst(nn.Module):
    """LayerNorm over axis 1, as in code for speech and images."""

    shape = (4, C, C)  # where axes are equally long a wrong one shows in the numbers alone

    def __init__(self) -> None:
        super().__init__()
        self.gamma, self.beta, self.eps = drawn(), drawn(), 1e-4

    def forward(self, x: Tensor) -> Tensor:
        c = x - x.mean(1, keepdim=True)
        ones = [1] * (x.dim() - 2)
        x = c * torch.rsqrt(c.square().mean(1, keepdim=True) + self.eps)
        return x * self.gamma.view(1, -1, *ones) + self.beta.view(1, -1, *ones)

    def case(self, x: Tensor) -> Case:
        return Case((1,), 1e-4, gain=self.gamma.detach().view(-1, *([1] * (x.dim() - 2))))


class ChannelsFirst2d(ChannelsFirst):
    shape = (4, C, 3, C)


class PermutedLayerNorm(nn.LayerNorm):
    """A subclass of torch's with a forward of its own, over axis 1."""

    shape = (4, C, 3, C)

    def __init__(self) -> None:
        super().__init__(C)
        self.weight, self.bias = drawn(), drawn()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def case(self, x: Tensor) -> Case:
        return Case((1,), 1e-5, gain=self.weight.detach().view(-1, 1, 1))


class OneGroup(nn.GroupNorm):
    """GroupNorm of one group, with a forward of its own: over everything of a sample."""

    shape = (4, C, 4, 3)

    def __init__(self) -> None:
        super().__init__(1, C)
        self.weight, self.bias = drawn(), drawn()

    def forward(self, x: Tensor) -> Tensor:
        return F.group_norm(x, 1, self.weight, self.bias, self.eps)

    def case(self, x: Tensor) -> Case:
        return Case((1, 2, 3), 1e-5, gain=self.weight.detach().view(-1, 1, 1))


class OfEachSample(nn.Module):
    """Over both axes of a sample, with a gain along the channels; its eps is a default of forward."""

    shape = (4, C, C)

    def __init__(self) -> None:
        super().__init__()
        self.gamma, self.beta = drawn(), drawn()

    def forward(self, x: Tensor, EPS: float = 1e-8) -> Tensor:
        c = x - x.mean((1, 2), keepdim=True)
        x = c / (c.square().mean((1, 2), keepdim=True) + EPS).sqrt()
        return (self.gamma * x.transpose(1, 2) + self.beta).transpose(1, 2)

    def case(self, x: Tensor) -> Case:
        return Case((1, 2), 1e-8, gain=self.gamma.detach().view(-1, 1))


class OfEverything(nn.Module):
    """Over all nodes and features of a graph at once; eps beside σ, which it is nothing of here."""

    shape = (20, C)

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = drawn(), drawn(), 1e-5

    def forward(self, x: Tensor, batch: Tensor | None = None) -> Tensor:
        if batch is not None:
            x = torch.cat([self._normalized(x[batch == graph]) for graph in batch.unique()])
        else:
            x = self._normalized(x)
        return x * self.weight + self.bias

    def _normalized(self, x: Tensor) -> Tensor:
        x = x - x.mean()
        return x / (x.std(unbiased=False) + self.eps)

    def case(self, x: Tensor) -> Case:
        return Case((0, 1), 0.0, gain=self.weight.detach())


class OverTheBatch(nn.Module):
    """Each feature over the batch and time, the features last."""

    shape = (6, 5, C)

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = drawn(), drawn(), 1e-3

    def forward(self, x: Tensor) -> Tensor:
        c = x - x.mean((0, 1), keepdim=True)
        return c * torch.rsqrt(c.square().mean((0, 1), keepdim=True) + self.eps) * self.weight + self.bias

    def case(self, x: Tensor) -> Case:
        return Case((0, 1), 1e-3, gain=self.weight.detach())


class Chunks(nn.Module):
    """RMSNorm of each group of the last axis."""

    shape = (4, 5, C)

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.group_size, self.variance_epsilon = drawn(), 4, 1e-6

    def forward(self, x: Tensor) -> Tensor:
        x = x.unflatten(-1, (-1, self.group_size))
        return self.weight * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)).flatten(-2)

    def case(self, x: Tensor) -> Case:
        split = lambda x: x.unflatten(-1, (-1, 4))  # noqa: E731
        return Case((-1,), 1e-6, centered=False, gain=split(self.weight.detach()), to_view=split)


SHAPES = (
    UnitLength, IntegerShape, ScalarGain, NoParameters, ChannelsFirst, ChannelsFirst2d, PermutedLayerNorm, OneGroup,
    OfEachSample, OfEverything, OverTheBatch, Chunks,
)  # fmt: skip


class GateFirst(nn.Module):
    """RMSNorm, in groups of the last axis, of x silu(z)."""

    first, groups, centered = True, 4, False

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.variance_epsilon, self.group_size = drawn(), 1e-6, C // self.groups

    def forward(self, hidden_states: Tensor, gate: Tensor | None = None) -> Tensor:
        x = hidden_states.float()
        if gate is not None and self.first:
            x = x * F.silu(gate.float())
        x = x.unflatten(-1, (self.groups, -1))
        x = x - x.mean(-1, keepdim=True) if self.centered else x
        x = (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon)).flatten(-2) * self.weight
        if gate is not None and not self.first:
            x = x * F.silu(gate.float())
        return x.to(hidden_states.dtype)


class GateAfter(GateFirst):
    """RMSNorm of x, times silu(z)."""

    first, groups = False, 1


class GateFirstCentered(GateFirst):
    """LayerNorm of x silu(z)."""

    groups, centered = 1, True
