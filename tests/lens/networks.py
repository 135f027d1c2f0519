"""Tiny networks, and one for each way of calling a norm and of wrapping an output."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

WIDTH = 16


class Block(nn.Module):
    """A Pre-LN block."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)

    def branch(self, x: Tensor) -> Tensor:
        return self.linear(self.norm(x))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


def stir(model: nn.Module) -> nn.Module:
    """Give every gain its own value: with gains of one, a gain that is read wrongly would not show."""
    for module in model.modules():
        if "norm" in type(module).__name__.lower() and getattr(module, "weight", None) is not None:
            nn.init.uniform_(module.weight, 0.3, 1.7)
    return model


def stack(block: Any = Block, blocks: int = 3) -> nn.Module:
    """A linear layer, a stack of blocks, a last norm."""
    torch.manual_seed(0)
    middle = nn.Sequential(*[block() for _ in range(blocks)])
    return stir(nn.Sequential(nn.Linear(WIDTH, WIDTH), middle, nn.LayerNorm(WIDTH)))


# ---------------------------------------------------------------------- calls


class Keyword(Block):
    def branch(self, x):
        return self.linear(self.norm(input=x))


class Thrice(Block):
    """The same norm three times in a step, at inputs of different scale."""

    def branch(self, x):
        return self.linear(self.norm(x)) + self.norm(3 * x).tanh() + self.norm(input=x.square())


class Shared(nn.Module):
    """One norm, two parents."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Block(), Block()
        self.second.norm = self.first.norm

    def forward(self, x):
        return self.second(self.first(x))


def shared() -> nn.Module:
    torch.manual_seed(0)
    return stir(Shared())


class NormWithExtras(nn.LayerNorm):
    """Returns what it normalized by as well, as some fused norms do."""

    like = nn.LayerNorm

    def forward(self, x, scale=1.0):
        return super().forward(x), x.mean(-1), {"scale": scale}


class Extras(Block):
    def __init__(self) -> None:
        super().__init__()
        self.norm = NormWithExtras(WIDTH)

    def branch(self, x):
        y, mean, _ = self.norm(x, scale=2.0)
        return self.linear(y) + 0 * mean.unsqueeze(-1)


class Transposed(Block):
    """The norm's input does not lie in memory as it is seen."""

    def branch(self, x):
        return self.linear(self.norm(x.transpose(0, 1)).transpose(0, 1))


class Recurrent(nn.Module):
    """A recurrent cell with a norm: one call a time step."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.norm = nn.GRUCell(WIDTH, WIDTH), nn.LayerNorm(WIDTH)
        self.rnn, self.out = nn.LSTM(WIDTH, WIDTH, batch_first=True), nn.RMSNorm(WIDTH)

    def forward(self, x):
        h = x.new_zeros(x.shape[0], WIDTH)
        states = []
        for t in range(x.shape[1]):
            h = self.norm(self.cell(x[:, t], h))
            states.append(h)
        return self.out(self.rnn(torch.stack(states, 1))[0])


def recurrent() -> nn.Module:
    torch.manual_seed(0)
    return stir(Recurrent())


def encoder(norm_first: bool, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(WIDTH, 2, 32, dropout=dropout, norm_first=norm_first, batch_first=True)
    return stir(nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(WIDTH), enable_nested_tensor=False))


class Seq2Seq(nn.Module):
    """torch's whole transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = nn.Transformer(WIDTH, 2, 1, 1, 32, dropout=0.0, batch_first=True)

    def forward(self, x):
        return self.transformer(x, x.flip(1))


def seq2seq() -> nn.Module:
    torch.manual_seed(0)
    return stir(Seq2Seq())


class Attention(Block):
    """The norm's output goes into attention three times over."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)

    def branch(self, x):
        y = self.norm(x)
        return self.linear(self.attention(y, y, y, need_weights=False)[0])


# ---------------------------------------------------------------------- outputs of the model


@dataclass
class Output:
    """As people write them: the loss is not the first field, and the first is not part of the loss."""

    hidden: Tensor
    loss: Tensor


class ModelOutput(dict):
    """As transformers writes them: a mapping with attributes, here unknown to pytrees."""

    __getattr__ = dict.__getitem__


class Result:
    """A class of the user's own that nothing knows how to look into."""

    def __init__(self, loss: Tensor) -> None:
        self.loss = loss


def direction(y: Tensor) -> Tensor:
    """A fixed direction: the gradient of the product with it is not removed by a last norm."""
    return torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float32).to(y.dtype) + 0.2


class Returning(nn.Module):
    """Computes its loss itself and returns it in some wrapping."""

    def __init__(self, wrap: Any) -> None:
        super().__init__()
        self.network, self.wrap = stack(), wrap

    def forward(self, x):
        h = self.network(x)
        # A tensor that needs a gradient and never gets one.
        return self.wrap(hidden=self.network[0](x).square(), loss=(h * direction(h)).mean())


OUTPUTS = {
    "a tuple": lambda hidden, loss: (hidden, loss),
    "a nested list": lambda hidden, loss: [[hidden], {"losses": [loss]}],
    "a dict": lambda hidden, loss: {"hidden": hidden, "loss": loss},
    "a dataclass": Output,
    "a ModelOutput": ModelOutput,
    "an object": lambda hidden, loss: Result(loss),
}


def loss_in(output: Any) -> Tensor:
    """Find the loss in any of OUTPUTS."""
    if isinstance(output, tuple):
        return output[1]
    if isinstance(output, list):
        return output[1]["losses"][0]
    return output["loss"] if isinstance(output, dict) else output.loss
