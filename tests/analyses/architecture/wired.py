"""Small networks of four designs, each healthy or with one fault of its wiring."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from analyses.architecture import ANALYSIS
from gradlens.analysis import Finding
from gradlens.recording import Recording
from tests.analyses.trained import train

WIDTH, LENGTH, CLASSES = 12, 5, 3
#: What a block does with its skip: from the stream and the branch to the new stream.
Sum = Callable[[Tensor, Tensor], Tensor]


def add(x: Tensor, f: Tensor) -> Tensor:
    return x + f


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        return self.out(F.scaled_dot_product_attention(q, k, v))


class Block(nn.Module):
    """Of an encoder, Pre-LN or Post-LN; ``odd`` is what its first sub-layer does in place of an addition."""

    def __init__(self, norm: Callable[[], nn.Module], post: bool = False, odd: Sum = add) -> None:
        super().__init__()
        self.a, self.b, self.attention, self.odd, self.post = norm(), norm(), Attention(), odd, post
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        if self.post:
            x = self.a(self.odd(x, self.attention(x)))
            return self.b(x + self.down(F.gelu(self.up(x))))
        x = self.odd(x, self.attention(self.a(x)))
        return x + self.down(F.gelu(self.up(self.b(x))))


class Encoder(nn.Module):
    """Blocks one by one under their own names, or in a list, and a head.

    Args:
        post: Post-LN in place of Pre-LN, without a final norm.
        odd: what the second block's first sub-layer does.
        final: the final norm.
        norm: makes the norms.
        odd_norm: makes those of the second block.
        named: blocks as attributes.
    """

    def __init__(
        self,
        *,
        post: bool = False,
        odd: Sum = add,
        final: nn.Module | None = None,
        norm: Callable[[], nn.Module] = lambda: nn.LayerNorm(WIDTH),
        odd_norm: Callable[[], nn.Module] | None = None,
        named: bool = False,
    ) -> None:
        super().__init__()
        made = [Block(norm, post)] + [Block(odd_norm or norm, post, odd)] + [Block(norm, post) for _ in range(2)]
        self.embed, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, CLASSES)
        self.final = final or (nn.Identity() if post else norm())
        for index, block in enumerate(made if named else ()):
            setattr(self, f"h{index}", block)
        self.blocks = nn.ModuleList([] if named else made)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for block in self.blocks or (self.h0, self.h1, self.h2, self.h3):
            x = block(x)
        return self.head(self.final(x)).mean(1)


class Residual(nn.Module):
    """A ResNet's basic block."""

    def __init__(self, odd: Sum = add) -> None:
        super().__init__()
        self.c1, self.n1 = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.c2, self.n2, self.odd = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), odd

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.odd(x, self.n2(self.c2(F.relu(self.n1(self.c1(x)))))))


class ResNet(nn.Module):
    def __init__(self, odd: Sum = add, behind: Callable[[], nn.Module] = nn.Identity) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), behind(), nn.ReLU())
        self.layers = nn.Sequential(Residual(), Residual(), Residual(odd), Residual())
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(self.stem(x)).mean((2, 3)))


class Double(nn.Module):
    """A U-Net's two convolutions, with a skip."""

    def __init__(self, odd: Sum = add) -> None:
        super().__init__()
        self.first, self.norm, self.second, self.odd = (
            nn.Conv2d(8, 8, 3, 1, 1),
            nn.GroupNorm(2, 8),
            nn.Conv2d(8, 8, 3, 1, 1),
            odd,
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.odd(x, self.second(F.silu(self.norm(self.first(x)))))


class UNet(nn.Module):
    """Down and up by concatenation, its parts under their own names."""

    def __init__(self, odd: Sum = add, behind: Callable[[], nn.Module] = nn.Identity) -> None:
        super().__init__()
        self.into, self.down1, self.down2, self.middle, self.up1 = (
            nn.Conv2d(1, 8, 1),
            Double(),
            Double(odd),
            Double(),
            Double(),
        )
        self.joined, self.norm, self.behind, self.out = (
            nn.Conv2d(16, 8, 1),
            nn.GroupNorm(2, 8),
            behind(),
            nn.Conv2d(8, CLASSES, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        high = self.down1(self.into(x))
        low = self.middle(self.down2(F.avg_pool2d(high, 2)))
        x = self.up1(self.joined(torch.cat([high, F.interpolate(low, scale_factor=2.0)], 1)))
        return self.out(F.silu(self.behind(self.norm(x)))).mean((2, 3))


class Mixing(nn.Module):
    """An MLP-mixer's block: over tokens, then over features."""

    def __init__(self, odd: Sum = add, norm: Callable[[], nn.Module] = lambda: nn.LayerNorm(WIDTH)) -> None:
        super().__init__()
        self.a, self.tokens, self.b, self.features, self.odd = (
            norm(),
            nn.Linear(LENGTH, LENGTH),
            nn.LayerNorm(WIDTH),
            nn.Linear(WIDTH, WIDTH),
            odd,
        )

    def forward(self, x: Tensor) -> Tensor:
        y = (
            self.a(x)
            if getattr(self.a, "normalized_shape", None) == (WIDTH,)
            else self.a(x.transpose(1, 2)).transpose(1, 2)
        )
        x = self.odd(x, self.tokens(y.transpose(1, 2)).transpose(1, 2))
        return x + self.features(F.gelu(self.b(x)))


class Mixer(nn.Module):
    def __init__(
        self,
        odd: Sum = add,
        final: nn.Module | None = None,
        odd_norm: Callable[[], nn.Module] = lambda: nn.LayerNorm(WIDTH),
    ) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, CLASSES)
        self.blocks = nn.Sequential(Mixing(), Mixing(odd, odd_norm), Mixing(), Mixing())
        self.final = final or nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.final(self.blocks(self.embed(x))).mean(1))


def shaped(*shape: int) -> Callable[[int], tuple[Tensor, Tensor]]:
    """Random inputs and labels of a step."""

    def of(step: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(step)
        return torch.randn(8, *shape, generator=generator), torch.randint(CLASSES, (8,), generator=generator)

    return of


SEQUENCES, IMAGES = shaped(LENGTH, WIDTH), shaped(1, 8, 8)


def run(model: nn.Module, steps: int = 2) -> Recording:
    """Train for a few steps, on what the model takes."""
    images = any(isinstance(module, nn.Conv2d) for module in model.modules())
    return train(model, IMAGES if images else SEQUENCES, lr=1e-3, steps=steps, updates=False)


def judged(recording: Recording) -> dict[str, Finding]:
    return {finding.code: finding for finding in ANALYSIS.judge(ANALYSIS.compute([recording]))}


def flagged(model: nn.Module, steps: int = 2) -> dict[str, Finding]:
    """What warns or fails, by code."""
    return {code: finding for code, finding in judged(run(model, steps)).items() if finding.status in ("warn", "fail")}
