"""Sums that are no residual additions, coupled streams, attention without a softmax, and numbers on skip and branch."""

from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gradlens.lens import Lens
from tests.lens.test_architecture import X, nameless, recorded, said

__all__ = ["nameless"]
pytestmark = pytest.mark.usefixtures("nameless")


def additions(lens: Lens) -> list[list[list[str]]]:
    found: list[list[list[str]]] = lens.recording.meta["structure"]["additions"]
    return found


# ------------------------------------------------------------------ feature pyramids


class Basic(nn.Module):
    """A ResNet's block, with a projected skip where it makes the map smaller."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        stride = 1 if width == out else 2
        self.c1, self.n1 = nn.Conv2d(width, out, 3, stride, 1), nn.BatchNorm2d(out)
        self.c2, self.n2 = nn.Conv2d(out, out, 3, 1, 1), nn.BatchNorm2d(out)
        self.down = nn.Conv2d(width, out, 1, 2) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = F.relu(self.down(x) + self.n2(self.c2(F.relu(self.n1(self.c1(x))))))
        return y


class Pyramid(nn.Module):
    """Lin et al. 2017: to each lateral map the coarser one is added, made larger."""

    def __init__(self, residual: bool, mode: str) -> None:
        super().__init__()
        widths, self.mode = ((4, 4), (4, 8), (8, 16)), mode

        def stage(width: int, out: int) -> nn.Module:
            plain = nn.Sequential(nn.Conv2d(width, out, 3, out // width, 1), nn.BatchNorm2d(out), nn.ReLU())
            return nn.Sequential(Basic(width, out), Basic(out, out)) if residual else plain

        self.stem = nn.Conv2d(3, 4, 3, 1, 1)
        self.stages = nn.ModuleDict({str(at): stage(*pair) for at, pair in enumerate(widths)})
        self.lateral = nn.ModuleDict(
            {str(at): nn.Sequential(nn.Conv2d(out, 6, 1), nn.GroupNorm(2, 6)) for at, (_, out) in enumerate(widths)}
        )
        self.larger = nn.ConvTranspose2d(6, 6, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        maps, x = [], self.stem(x)
        for at, stage in self.stages.items():
            x = stage(x)
            maps.append(self.lateral[at](x))
        out = maps.pop()
        while maps:
            up = self.larger(out) if self.mode == "learned" else F.interpolate(out, scale_factor=2.0, mode=self.mode)
            out = maps.pop() + up
        return out


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "learned"])
@pytest.mark.parametrize("residual", [True, False])
def test_the_sums_of_a_feature_pyramid_are_no_residual_additions(residual: bool, mode: str) -> None:
    lens = recorded(Pyramid(residual, mode), torch.randn(2, 3, 16, 16))
    held = [holder for stack in additions(lens) for holder, _ in stack]
    blocks = [f"stages.{stage}.{block}" for stage in range(3) for block in range(2)]
    assert sorted(held) == (blocks if residual else [])
    words = said(lens)
    assert {words[f"lateral.{at}.1"] for at in range(3)} == {"unknown"}
    inside = {"n1": "in_branch", "n2": "post_branch"} if residual else {"1": "unknown"}
    assert {words[site] for site in words if site.startswith("stages")} == set(inside.values())
    assert all(words[f"{block}.{norm}"] == word for block in blocks * residual for norm, word in inside.items())


# ------------------------------------------------------------------ two streams


class Coupling(nn.Module):
    """Gomez et al. 2017: y₁ = x₁ + f(x₂), y₂ = x₂ + g(y₁)."""

    def __init__(self) -> None:
        super().__init__()
        self.f, self.g = (nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4)) for _ in "fg")

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        a = a + self.f(b)
        return a, b + self.g(a)


class Reversible(nn.Module):
    def __init__(self, begin: Callable[[Tensor], Sequence[Tensor]], end: Callable[..., Tensor]) -> None:
        super().__init__()
        self.stem, self.begin, self.end = nn.Linear(8, 8), begin, end
        self.a, self.b, self.c = Coupling(), Coupling(), Coupling()

    def forward(self, x: Tensor) -> Tensor:
        streams = tuple(self.begin(self.stem(x)))
        for block in (self.a, self.b, self.c):
            streams = block(*streams)
        return self.end(*streams)


BEGINNINGS: dict[str, Callable[[Tensor], Sequence[Tensor]]] = {
    "one cut": lambda x: x.chunk(2, -1),
    "slices": lambda x: (x[..., :4], x[..., 4:]),
    "the same twice": lambda x: [x.unflatten(-1, (2, 4)).mean(-2)] * 2,
}


@pytest.mark.parametrize("end", [lambda a, b: torch.cat([a, b], -1), torch.mul])
@pytest.mark.parametrize("begin", BEGINNINGS)
def test_coupled_streams_have_a_branch_each(begin: str, end: Callable[..., Tensor]) -> None:
    lens = recorded(Reversible(BEGINNINGS[begin], end), X)
    expected = {tuple(f"{block}.{branch}" for block in "abc") for branch in "fg"}
    assert {tuple(holder for holder, _ in stack) for stack in additions(lens)} == expected
    assert said(lens) == {f"{block}.{branch}.0": "pre_branch" for block in "abc" for branch in "fg"}
    blocks = lens.recording.sites.query("kind == 'block'")
    assert list(blocks["site"]) == ["a", "b", "c"]


def test_what_is_added_over_time_is_no_coupling() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.x, self.h = nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            first, *later = self.x(x).unbind(1)
            h = torch.tanh(first)
            for at in later:
                h = torch.tanh(at + self.h(self.norm(h)))
            return h

    lens = recorded(Recurrent(), X)
    assert additions(lens) == []
    assert said(lens) == {"norm": "unknown"}


# ------------------------------------------------------------------ attention without a softmax


class Attention(nn.Module):
    """With norms of queries, keys and values; ``mix`` makes the output of them."""

    def __init__(self, mix: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.pre, self.qkv, self.out, self.mix = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8), mix
        self.q_n, self.k_n, self.v_n = nn.LayerNorm(4), nn.LayerNorm(4), nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in self.qkv(self.pre(x)).chunk(3, -1))
        mixed = self.mix(self.q_n(q), self.k_n(k), self.v_n(v))
        return x + torch.as_tensor(self.out(mixed.transpose(1, 2).flatten(2)))


_LATER = torch.ones(5, 5).triu(1).bool()
WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": lambda scores: torch.sigmoid(scores - 1.6),
    "masked": lambda scores: torch.sigmoid(scores.masked_fill(_LATER, -1e9)),
    "ReLU": lambda scores: F.relu(scores) / 5,
    "squared ReLU": lambda scores: F.relu(scores).square(),
    "none": lambda scores: scores / 5,
}


@pytest.mark.parametrize("weights", WEIGHTS)
def test_norms_of_queries_and_keys_are_told_without_a_softmax(weights: str) -> None:
    bent = WEIGHTS[weights]
    attention = Attention(lambda q, k, v: bent(q @ k.transpose(-1, -2) / 2) @ v)
    found = said(recorded(nn.Sequential(nn.Linear(8, 8), attention), X))
    assert found == {"1.pre": "pre_branch", "1.q_n": "qk", "1.k_n": "qk", "1.v_n": "in_branch"}


def test_and_where_keys_meet_values_first_none_is_called_so() -> None:
    attention = Attention(lambda q, k, v: F.elu(q) @ (k.transpose(-1, -2) @ v))
    found = said(recorded(nn.Sequential(nn.Linear(8, 8), attention), X))
    assert found == {"1.pre": "pre_branch", **dict.fromkeys(("1.q_n", "1.k_n", "1.v_n"), "in_branch")}


# ------------------------------------------------------------------ numbers on skip and branch


class Weighed(nn.Module):
    def __init__(self, add: Callable[[Tensor, Tensor], Tensor], post: bool) -> None:
        super().__init__()
        self.norm, self.f, self.add, self.post = nn.LayerNorm(8), nn.Linear(8, 8), add, post

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.add(x, self.f(x))) if self.post else self.add(x, self.f(self.norm(x)))
        return y


SUMS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], str]] = {
    "by numbers": (lambda x, f: x * 0.8 + f * 0.5, "0.8·x + 0.5·f"),
    "by tensors": (lambda x, f: torch.tensor(0.8) * x + f * torch.tensor(0.5), "0.8·x + 0.5·f"),
    "by alpha": (lambda x, f: torch.add(0.8 * x, f, alpha=0.5), "0.8·x + 0.5·f"),
    "by less": (lambda x, f: torch.sub(x / 1.25, f, alpha=-0.5), "0.8·x + 0.5·f"),
    "lerp": (lambda x, f: torch.lerp(x, f, 0.25), "0.75·x + 0.25·f"),
    "addcmul": (lambda x, f: torch.addcmul(x, f, torch.tensor(0.5)), "x + 0.5·f"),
    "two signs": (lambda x, f: f - (x * -0.8), "0.8·x + f"),
    "taken away": (lambda x, f: f + x * -1.0, "f - x"),
    "taken away in part": (lambda x, f: f + x * -0.8, "f - 0.8·x"),
    "all of it": (lambda x, f: (x + f) / 2**0.5, "x + f"),
}


@pytest.mark.parametrize("post", [False, True])
@pytest.mark.parametrize("way", SUMS)
def test_numbers_on_skip_and_branch_are_read(way: str, post: bool) -> None:
    add, written = SUMS[way]
    lens = recorded(nn.Sequential(nn.Linear(8, 8), *(Weighed(add, post) for _ in range(3)), nn.Linear(8, 8)), X)
    assert [text for stack in additions(lens) for _, text in stack] == [written] * 3
    words = said(lens)
    assert {words[f"{at}.norm"] for at in (1, 2, 3)} == {"post_add" if post else "pre_branch"}


def test_what_a_checkpoint_keeps_is_not_asked_for() -> None:
    runs = []

    def add(x: Tensor, f: Tensor) -> Tensor:
        runs.append(1)
        return torch.tensor(0.8) * x + f * 0.5

    class Kept(Weighed):
        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = checkpoint(super().forward, x, use_reentrant=False)
            return y

    recorded(nn.Sequential(nn.Linear(8, 8), Kept(add, False), Kept(add, False)), X)
    assert len(runs) == 4  # forward and once again in backward, for each
