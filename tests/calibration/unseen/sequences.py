"""Networks over sequences, as a user would write them. Options are what goes wrong."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.calibration.batches import CLASSES, SIDE, VOCAB
from tests.calibration.blocks import Wrong


class GatedBlock(nn.Module):
    """Dilated causal convolution, gated; residual and skip outputs."""

    def __init__(self, width: int, dilation: int, wiring: str, gate: float) -> None:
        super().__init__()
        self.pad, self.wiring = dilation, wiring
        self.filter, self.gate = (nn.Conv1d(width, width, 2, dilation=dilation) for _ in range(2))
        self.residual, self.skip = nn.Conv1d(width, width, 1), nn.Conv1d(width, width, 1)
        nn.init.constant_(self.gate.bias, gate)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        past = F.pad(x, (self.pad, 0))
        h = torch.tanh(self.filter(past)) * torch.sigmoid(self.gate(past))
        out = self.residual(h)
        return {"": x + out, "missing": out, "minus": out - x}[self.wiring], self.skip(h)


class WaveNet(nn.Module):
    """Language model over bytes [B, T] without any norm."""

    def __init__(self, wrong: Wrong, width: int = 48, blocks: int = 6, wiring: str = "", gate: float = 0.0) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCAB, width)
        self.layers = nn.ModuleList(
            GatedBlock(width, 2 ** (i % 4), wiring if i == 3 else "", gate if i == 3 else 0.0) for i in range(blocks)
        )
        self.post = nn.Sequential(nn.ReLU(), nn.Conv1d(width, width, 1), nn.ReLU(), nn.Conv1d(width, VOCAB, 1))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens).transpose(1, 2)
        total = torch.zeros(())
        for layer in self.layers:
            x, skip = layer(x)
            total = total + skip
        return self.post(total).transpose(1, 2)


class Seq2Seq(nn.Module):
    """GRU that reads, GRU that writes, and attention of the second over the first."""

    def __init__(self, wrong: Wrong, words: int = 16, width: int = 64, sharp: float = 1.0, cut: bool = False) -> None:
        super().__init__()
        self.sharp, self.cut = sharp, cut
        self.source, self.target = nn.Embedding(words, width), nn.Embedding(words, width)
        self.encoder = nn.GRU(width, width, batch_first=True)
        self.decoder = nn.GRU(width, width, batch_first=True)
        self.query = nn.Linear(width, width, bias=False)
        self.mix = nn.Linear(2 * width, width)
        self.out = nn.Linear(width, words)

    def forward(self, source: Tensor, before: Tensor, pad: Tensor) -> Tensor:
        memory, state = self.encoder(self.source(source))
        if self.cut:
            memory, state = memory.detach(), state.detach()
        h, _ = self.decoder(self.target(before), state)
        scores = self.sharp * self.query(h) @ memory.transpose(1, 2) / h.shape[-1] ** 0.5
        weights = scores.masked_fill(pad[:, None], float("-inf")).softmax(-1)
        return self.out(torch.tanh(self.mix(torch.cat([h, weights @ memory], -1))))


class ConformerBlock(nn.Module):
    """Half an MLP, attention, a convolution, half an MLP, and a norm."""

    def __init__(self, width: int, mask: str, skip: bool, twice: bool, gate: float) -> None:
        super().__init__()
        self.mask, self.skip = mask, skip
        self.ff1, self.ff2 = self._half(width), self._half(width)
        if twice:
            self.ff1.insert(1, nn.LayerNorm(width))
        self.attn_norm, self.qkv, self.proj = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.conv_norm, self.pointwise1 = nn.LayerNorm(width), nn.Conv1d(width, 2 * width, 1)
        self.depthwise = nn.Conv1d(width, width, 5, padding=2, groups=width)
        self.bn, self.pointwise2 = nn.BatchNorm1d(width), nn.Conv1d(width, width, 1)
        self.norm_out = nn.LayerNorm(width)
        if gate:
            nn.init.constant_(self.pointwise1.bias[width:], gate)

    @staticmethod
    def _half(width: int) -> nn.Sequential:
        return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width))

    def attention(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (4, -1)).transpose(1, 2) for part in self.qkv(self.attn_norm(x)).chunk(3, -1))
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        if self.mask:
            hidden = torch.arange(x.shape[1]) < (x.shape[1] - 1 if self.mask == "inverted" else x.shape[1])
            # With a finite number, as in float16; where all are hidden they come out alike.
            scores = torch.where(hidden, -1e9, scores)
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))

    def convolution(self, x: Tensor) -> Tensor:
        h = F.glu(self.pointwise1(self.conv_norm(x).transpose(1, 2)), 1)
        return self.pointwise2(F.silu(self.bn(self.depthwise(h)))).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x + 0.5 * self.ff1(x)
        x = x + self.attention(x)
        x = x + self.convolution(x) if self.skip else self.convolution(x)
        return self.norm_out(x + 0.5 * self.ff2(x))


class Conformer(nn.Module):
    """Reads an image row by row, as frames of a spectrogram."""

    def __init__(
        self, wrong: Wrong, width: int = 32, blocks: int = 3, mask: str = "", no_skip: bool = False,
        twice: bool = False, gate: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.subsample = nn.Sequential(nn.Linear(SIDE, width), nn.SiLU(), nn.Linear(width, width))
        self.layers = nn.ModuleList(
            ConformerBlock(width, mask, not (no_skip and i == 1), twice and i == 1, gate if i == 1 else 0.0)
            for i in range(blocks)
        )
        self.classifier = nn.Linear(width, CLASSES)

    def forward(self, frames: Tensor) -> Tensor:
        x = self.subsample(frames)
        x = x + torch.linspace(-1, 1, x.shape[1])[:, None]
        for layer in self.layers:
            x = layer(x)
        return self.classifier(x.mean(1))


class RMSNorm(nn.Module):
    """By hand."""

    def __init__(self, width: int, dim: int = -1, detached: bool = False) -> None:
        super().__init__()
        self.weight, self.dim, self.detached = nn.Parameter(torch.ones(width)), dim, detached

    def forward(self, x: Tensor) -> Tensor:
        square = x.float().pow(2).mean(self.dim, keepdim=True)
        scale = torch.rsqrt((square.detach() if self.detached else square) + 1e-6)
        return (x * scale).type_as(x) * self.weight


def rotated(x: Tensor) -> Tensor:
    """Turn pairs of features [..., T, D] by angles that grow with the place."""
    half = x.shape[-1] // 2
    angles = torch.outer(torch.arange(x.shape[-2]), 1e4 ** (-torch.arange(half) / half))
    a, b = x.chunk(2, -1)
    return torch.cat([a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()], -1).type_as(x)


class RopeBlock(nn.Module):
    def __init__(self, width: int, norm: RMSNorm, gain: float) -> None:
        super().__init__()
        self.input_norm, self.post_norm = norm, RMSNorm(width)
        self.q_norm, self.k_norm = RMSNorm(width // 4), RMSNorm(width // 4)
        self.wq, self.wk, self.wv, self.wo = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.gate, self.up = (nn.Linear(width, 2 * width, bias=False) for _ in range(2))
        self.down = nn.Linear(2 * width, width, bias=False)
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        h = self.input_norm(x)
        q, k, v = (w(h).unflatten(-1, (4, -1)).transpose(1, 2) for w in (self.wq, self.wk, self.wv))
        q, k = rotated(self.q_norm(q)), rotated(self.k_norm(k))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=self.gain / q.shape[-1] ** 0.5)
        x = x + self.wo(out.transpose(1, 2).flatten(2))
        h = self.post_norm(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class TiedGPT(nn.Module):
    """A small GPT of today: RMSNorm, RoPE, QK-norm, SwiGLU, and one matrix for embedding and head."""

    def __init__(
        self, wrong: Wrong, width: int = 48, layers: int = 4, std: float = 0.02, gain: float = 1.0, dim: int = -1,
        detached: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.wte = nn.Embedding(VOCAB, width)
        self.layers = nn.ModuleList(
            RopeBlock(width, RMSNorm(width, dim, detached) if i == 1 else RMSNorm(width), gain) for i in range(layers)
        )
        self.norm = RMSNorm(width)
        self.lm_head = nn.Linear(width, VOCAB, bias=False)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)
        nn.init.normal_(self.wte.weight, std=std)
        self.lm_head.weight = self.wte.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.wte(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.lm_head(self.norm(x))
