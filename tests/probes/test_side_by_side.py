"""Two implementations beside each other: each place is off by what a closed form says, and nothing else is."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradlens.probes.side_by_side import differences, share_weights

WIDTH = 16


class Net(nn.Module):
    """A norm, an attention, a norm and an FFN, each in a skip."""

    def __init__(self, eps: float = 1e-5, gelu: str = "none", scale: float = WIDTH**-0.5, detach: bool = False) -> None:
        super().__init__()
        self.embed = nn.Linear(4, WIDTH)
        self.norm1 = nn.LayerNorm(WIDTH, eps=eps)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.norm2 = nn.LayerNorm(WIDTH)
        self.w1, self.w2 = nn.Linear(WIDTH, 64), nn.Linear(64, WIDTH)
        self.drop = nn.Dropout(0.1)
        self.gelu, self.scale, self.detach = gelu, scale, detach

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        q, k, v = self.qkv(self.norm1(x)).chunk(3, -1)
        weights = (q @ k.transpose(-1, -2) * self.scale).softmax(-1)
        x = x + self.drop(self.out((weights.detach() if self.detach else weights) @ v))
        return x + self.drop(self.w2(F.gelu(self.w1(self.norm2(x)), approximate=self.gelu)))


class Fused(Net):
    """The same, with torch's attention."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        q, k, v = self.qkv(self.norm1(x)).chunk(3, -1)
        x = x + self.drop(self.out(F.scaled_dot_product_attention(q, k, v)))
        return x + self.drop(self.w2(F.gelu(self.w1(self.norm2(x)))))


class OwnNorm(nn.Module):
    """LayerNorm by hand, its parameters under other names."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(WIDTH)), nn.Parameter(torch.zeros(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, -1, correction=0, keepdim=True)
        return (x - mean) / (variance + 1e-5).sqrt() * self.gamma + self.beta


def own_norms() -> Net:
    net = Net()
    net.norm1, net.norm2 = OwnNorm(), OwnNorm()  # type: ignore[assignment]
    return net


@pytest.fixture
def batch() -> Tensor:
    return torch.randn(5, 7, 4, generator=torch.Generator().manual_seed(0))


def made(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build()


def rows(second: nn.Module, batch: Tensor, first: nn.Module | None = None) -> list[dict[str, Any]]:
    first = made(Net) if first is None else first
    return differences(first, second, share_weights(first, second), batch, None, 0)


def off(found: list[dict[str, Any]], most: float = 1e-12) -> list[tuple[str, str]]:
    return [(row["site"], row["name"]) for row in found if row["value"] > most]


@pytest.mark.parametrize("build", [Net, Fused, own_norms])
def test_the_same_model_built_in_another_way_and_from_another_seed_is_off_nowhere(build: Any, batch: Tensor) -> None:
    found = rows(made(build, seed=1), batch)
    assert off(found) == []
    assert len(found) == len({(row["site"], row["name"]) for row in found})
    # Eight modules, the dropout twice, and the whole; both ways; and fourteen parameters.
    assert len(found) == 2 * 10 + 14


def test_a_norm_with_another_eps_is_off_by_the_closed_form(batch: Tensor) -> None:
    net = made(Net)
    x = net.double().embed(batch.double())
    variance = x.detach().var(-1, correction=0)
    # x̂ scales with 1/√(σ² + eps), and its squares sum to Hσ²/(σ² + eps).
    one, other = (variance.sqrt() / (variance + eps).sqrt() for eps in (1e-5, 1e-3))
    expected = float((one - other).norm() / one.norm())
    found = rows(made(lambda: Net(eps=1e-3)), batch)
    assert off(found)[0] == ("norm1", "output")
    (value,) = (row["value"] for row in found if (row["site"], row["name"]) == ("norm1", "output"))
    assert value == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("build", "first"),
    [
        (lambda: Net(gelu="tanh"), ("w2", "output")),
        (lambda: Net(scale=1.0), ("out", "output")),
        (lambda: Net(detach=True), ("qkv", "gradient at the output")),
    ],
)
def test_the_first_place_that_is_off_is_the_first_behind_the_difference(
    build: Any, first: tuple[str, str], batch: Tensor
) -> None:
    assert off(rows(made(build), batch))[0] == first


def test_gradients_are_those_of_autograd(batch: Tensor) -> None:
    found = {(row["site"], row["name"]): row["value"] for row in rows(made(lambda: Net(scale=1.0)), batch)}
    gradients = []
    for scale in (WIDTH**-0.5, 1.0):
        net = made(lambda scale=scale: Net(scale=scale)).double()
        torch.manual_seed(0)
        output = net(batch.double())
        direction = torch.randn(output.shape, generator=torch.Generator().manual_seed(0)).double()
        ((output * direction).sum() / direction.norm()).backward()
        assert net.qkv.weight.grad is not None
        gradients.append(net.qkv.weight.grad)
    one, other = gradients
    expected = float((one - other).norm() / max(one.norm(), other.norm()))
    assert found["qkv.weight", "gradient"] == pytest.approx(expected, rel=1e-5)  # the direction is float32


def test_a_gradient_that_is_0_but_for_rounding_is_off_by_nothing(batch: Tensor) -> None:
    class Keys(nn.Module):
        """The bias of the keys drops out of softmax: its gradient is rounding."""

        def __init__(self, turned: bool) -> None:
            super().__init__()
            self.q, self.k, self.turned = nn.Linear(4, 8), nn.Linear(4, 8), turned

        def forward(self, x: Tensor) -> Tensor:
            scores = (self.k(x) @ self.q(x).mT).mT if self.turned else self.q(x) @ self.k(x).mT
            return scores.softmax(-1) @ x

    found = rows(made(lambda: Keys(True)), batch, made(lambda: Keys(False)))
    assert off(found) == []
    assert ("k.bias", "gradient") in [(row["site"], row["name"]) for row in found]


def test_a_model_that_cannot_run_in_float64_runs_in_its_own_precision(batch: Tensor) -> None:
    class Picky(Net):
        def forward(self, x: Tensor) -> Tensor:
            if x.dtype == torch.float64:
                raise RuntimeError("no kernel for float64")
            return super().forward(x)

    found = rows(made(Picky), batch)
    assert {row["unit"] for row in found} == {"of the norm, own"}
    assert max(row["value"] for row in found) == 0
    assert {row["unit"] for row in rows(made(Net), batch)} == {"of the norm, float64"}


def test_a_value_that_is_no_number_in_one_of_them_is_off_as_a_whole(batch: Tensor) -> None:
    class Broken(Net):
        def forward(self, x: Tensor) -> Tensor:
            x = x.clone()
            x[0, 0, 0] = torch.nan
            return super().forward(x)

    found = rows(made(Broken), batch)
    assert found[0]["value"] == 1
    assert off(rows(made(Broken), batch, made(Broken))) == []


def test_weights_hooks_and_random_numbers_are_left_as_they_were(batch: Tensor) -> None:
    first, second = made(Net), made(Net)
    kept = copy.deepcopy(first.state_dict())
    state = torch.get_rng_state()
    rows(second, batch, first)
    assert torch.equal(torch.get_rng_state(), state)
    for net in (first, second):
        assert all(torch.equal(tensor, kept[name]) for name, tensor in net.state_dict().items())
        assert all(p.dtype == torch.float32 and not p._post_accumulate_grad_hooks for p in net.parameters())
        assert not any(module._forward_hooks for module in net.modules())


def test_weights_are_shared_where_names_and_shapes_map() -> None:
    first, second = made(Net), made(own_norms, seed=1)
    second.head = nn.Linear(WIDTH, 3)
    found = share_weights(first, second)
    assert found.added == ("head.weight", "head.bias")
    assert found.renamed["norm1.weight"] == "norm1.gamma"
    ours, theirs = first.state_dict(), second.state_dict()
    assert len(found.pairs) == len(ours)
    assert all(torch.equal(ours[own], theirs[name]) for own, name in found.pairs.items())
