"""Networks over images: what a user would write who knows nothing of this calibration. Options are what goes wrong."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.calibration.batches import CLASSES, SIDE
from tests.calibration.blocks import Wrong


class TimeBlock(nn.Module):
    """Residual block of a denoiser, told the time."""

    def __init__(self, width: int, eps: float, zeros: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(4, width, eps=eps), nn.GroupNorm(4, width)
        self.conv1, self.conv2 = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.time = nn.Linear(32, width)
        for module in (self.conv2, self.conv1, self.time)[:zeros]:
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x))) + self.time(time)[:, :, None, None]
        return x + self.conv2(F.silu(self.norm2(h)))


class Denoiser(nn.Module):
    """Small U-Net that guesses the noise in an image [B, 14, 14] from it and the time in [0, 1]."""

    def __init__(self, wrong: Wrong, width: int = 16, eps: float = 1e-5, zeros: int = 1, deaf: bool = False) -> None:
        super().__init__()
        self.deaf = deaf
        self.time_mlp = nn.Sequential(nn.Linear(32, 32), nn.SiLU(), nn.Linear(32, 32))
        self.conv_in = nn.Conv2d(1, width, 3, padding=1)
        self.down = TimeBlock(width, 1e-5, 1)
        self.downsample = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.mid1, self.mid2 = TimeBlock(width, eps, zeros), TimeBlock(width, 1e-5, 1)
        self.upsample = nn.Conv2d(width, width, 3, padding=1)
        self.join = nn.Conv2d(2 * width, width, 1)
        self.up = TimeBlock(width, 1e-5, 1)
        self.norm_out = nn.GroupNorm(4, width)
        self.conv_out = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        angles = t[:, None] * 1000 * torch.exp(-math.log(1e4) * torch.arange(16) / 16)
        time = self.time_mlp(torch.cat([angles.sin(), angles.cos()], 1))
        time = time.detach() if self.deaf else time
        high = self.down(self.conv_in(x[:, None]), time)
        low = self.mid2(self.mid1(self.downsample(high), time), time)
        low = self.upsample(F.interpolate(low, scale_factor=2.0))
        h = self.up(self.join(torch.cat([low, high], 1)), time)
        return self.conv_out(F.silu(self.norm_out(h)))[:, 0]


class ChannelsFirst(nn.LayerNorm):
    """LayerNorm over the channels of [B, C, H, W]."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNextBlock(nn.Module):
    def __init__(self, dim: int, side: int, drop_path: float, norm: str, skip: bool, scale: str) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        eps = {"eps": 1.0, "large eps": 100.0}.get(norm, 1e-6)
        self.norm = nn.LayerNorm(side, eps=eps) if norm == "side" else nn.LayerNorm(dim, eps=eps)
        self.pwconv1, self.pwconv2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        if scale == "buffer":
            self.register_buffer("gamma", torch.zeros(dim))
        else:
            self.gamma = nn.Parameter(1e-6 * torch.ones(dim))
        self.drop_path, self.side_norm, self.skip = drop_path, norm == "side", skip

    def forward(self, x: Tensor) -> Tensor:
        h = self.dwconv(x)
        h = self.norm(h).permute(0, 2, 3, 1) if self.side_norm else self.norm(h.permute(0, 2, 3, 1))
        h = (self.gamma * self.pwconv2(F.gelu(self.pwconv1(h)))).permute(0, 3, 1, 2)
        if self.training and self.drop_path:
            keep = (torch.rand(len(x), 1, 1, 1) >= self.drop_path).float()
            h = h * keep / max(1 - self.drop_path, 1e-3)
        return x + h if self.skip else h


class ConvNext(nn.Module):
    """Two stages of three blocks with a LayerScale of 1e-6, as the paper has it."""

    def __init__(
        self, wrong: Wrong, dim: int = 24, drop_path: float = 0.0, norm: str = "", no_skip: int = -1, buffers: int = -1
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, dim, 2, stride=2), ChannelsFirst(dim, eps=1e-6))

        def stage(first: int, dim: int, side: int) -> nn.Sequential:
            return nn.Sequential(
                *(
                    ConvNextBlock(
                        dim, side, drop_path * i / 5, norm if i == 1 else "", i != no_skip,
                        "buffer" if i == buffers else "",
                    )
                    for i in range(first, first + 3)
                )
            )  # fmt: skip

        down = nn.Sequential(ChannelsFirst(dim, eps=1e-6), nn.Conv2d(dim, 2 * dim, 2, stride=2))
        self.stages = nn.Sequential(stage(0, dim, 7), down, stage(3, 2 * dim, 3))
        self.norm = nn.LayerNorm(2 * dim, eps=1e-6)
        self.head = nn.Linear(2 * dim, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.stages(self.stem(x[:, None])).mean((-2, -1))))


class VAE(nn.Module):
    """Variational autoencoder of pixels in [0, 1]; returns logits, means and log-variances."""

    def __init__(self, wrong: Wrong, width: int = 128, code: int = 8, sample: bool = False) -> None:
        super().__init__()
        self.sample = sample
        self.encoder = nn.Sequential(nn.Linear(SIDE**2, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.mu, self.logvar = nn.Linear(width, code), nn.Linear(width, code)
        self.decoder = nn.Sequential(
            nn.Linear(code, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, SIDE**2)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = self.encoder(x.flatten(1))
        mu, logvar = self.mu(h), self.logvar(h)
        normal = torch.distributions.Normal(mu, (0.5 * logvar).exp(), validate_args=False)
        return self.decoder(normal.sample() if self.sample else normal.rsample()), mu, logvar


class Siamese(nn.Module):
    """CLIP-like: one encoder for two views of an image; logits of all pairs [B, B]."""

    def __init__(self, wrong: Wrong, width: int = 32, times: float = 1.0, unsafe: bool = False) -> None:
        super().__init__()
        sizes = ((1, width // 2), (width // 2, width), (width, width))
        layers = [(nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()) for a, b in sizes]
        self.encoder = nn.Sequential(*(one for three in layers for one in three), nn.Flatten())
        self.projector = nn.Sequential(nn.Linear(4 * width, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 32))
        self.times, self.unsafe = times, unsafe
        self.logit_scale = nn.Parameter(torch.tensor(math.log(10.0) / times))

    def embed(self, x: Tensor) -> Tensor:
        z = self.projector(self.encoder(x[:, None]))
        return z / z.pow(2).sum(-1, keepdim=True).sqrt().clamp_min(1e-8) if self.unsafe else F.normalize(z, dim=-1)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        za, zb = self.embed(torch.cat([a, b])).chunk(2)
        return (self.logit_scale * self.times).exp() * za @ zb.T


class Critic(nn.Module):
    """Critic of a Wasserstein GAN: convolutions with LayerNorm; scores and the gradients' norms between the images."""

    def __init__(self, wrong: Wrong, width: int = 16, zero_head: bool = False, safe: bool = True) -> None:
        super().__init__()
        self.safe = safe
        self.body = nn.Sequential(
            nn.Conv2d(1, width, 3, 2, 1), nn.LayerNorm([width, 7, 7]), nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 3, 2, 1), nn.LayerNorm([2 * width, 4, 4]), nn.LeakyReLU(0.2), nn.Flatten(),
        )  # fmt: skip
        self.head = nn.Linear(32 * width, 1)
        if zero_head:
            nn.init.zeros_(self.head.weight)

    def score(self, x: Tensor) -> Tensor:
        return self.head(self.body(x[:, None]))[:, 0]

    def forward(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        between = torch.lerp(fake, real, torch.rand(len(real), 1, 1)).requires_grad_()
        (grad,) = torch.autograd.grad(self.score(between).sum(), between, create_graph=True)
        squared = grad.pow(2).sum((1, 2))
        return self.score(real), self.score(fake), (squared + 1e-12 if self.safe else squared).sqrt()
