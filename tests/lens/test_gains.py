"""Gains that are computed: the very one of the forward pass is seen, and nothing of the user's runs once more."""

import warnings
from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.utils.checkpoint import checkpoint

import gradlens
from tests.lens.networks import WIDTH, Block, stack
from tests.lens.passes import loss_of, vectors
from tests.oracles import SHARES, Case, expected_row

runs = Counter()


class Counted(nn.Module):
    """Counts how often it runs."""

    def forward(self, weight):
        runs["forward"] += 1
        return 1.0 + 0.5 * weight.tanh()


class Drawn(nn.Module):
    def forward(self, weight):
        return nn.functional.dropout(weight, 0.5)


class Moving(nn.Module):
    """Keeps a state that every run changes."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("factor", torch.ones(()))

    def forward(self, weight):
        self.factor.mul_(1.1)
        return self.factor * weight


def old(function):
    def apply(norm):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            function(norm)

    return apply


WAYS = {
    "counted": lambda norm: parametrize.register_parametrization(norm, "weight", Counted()),
    "drawn": lambda norm: parametrize.register_parametrization(norm, "weight", Drawn()),
    "with a state": lambda norm: parametrize.register_parametrization(norm, "weight", Moving()),
    "spectral norm": lambda norm: parametrizations.spectral_norm(norm, "weight"),
    "weight norm": lambda norm: parametrizations.weight_norm(norm, "weight", dim=None),
    "old spectral norm": old(nn.utils.spectral_norm),
    "old weight norm": old(lambda norm: nn.utils.weight_norm(norm, dim=None)),
}
every_way = pytest.mark.parametrize("way", WAYS)


class Checkpointed(Block):
    reentrant = False

    def forward(self, x):
        return x + checkpoint(self.branch, x, use_reentrant=self.reentrant)


class Reentrant(Checkpointed):
    reentrant = True


class Direct(Block):
    """Calls the norm's forward, which no hook of a module sees."""

    def branch(self, x):
        return self.linear(self.norm.forward(x))


def network(way: str, block=Block) -> nn.Module:
    model = stack(block, 2)
    model[1][1].norm = nn.LayerNorm(WIDTH)
    nn.init.uniform_(model[1][1].norm.weight, 0.3, 1.7)
    WAYS[way](model[1][1].norm)
    return model


def train(model: nn.Module, lens=None, steps: int = 3, run=None) -> list:
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    found = []
    for step in range(steps):
        optimizer.zero_grad()
        loss = loss_of((run or model)(vectors(step)))
        loss.backward()
        optimizer.step()
        if lens is not None:
            lens.step()
        found += [loss.item(), *(t.sum().item() for t in model.state_dict().values())]
    return found


@every_way
@pytest.mark.parametrize("block", [Block, Checkpointed, Reentrant])
def test_losses_weights_and_states_are_those_without_a_lens(way, block):
    without = train(network(way, block))
    model = network(way, block)
    with gradlens.attach(model) as lens:
        assert train(model, lens) == without


@pytest.mark.parametrize("functional", [False, True])
def test_a_parametrization_runs_as_often_as_the_model_runs_it(functional):
    def count(attached: bool) -> int:
        runs.clear()
        model = network("counted", Direct)
        if not attached:
            train(model)
            return runs["forward"]
        with gradlens.attach(model, functional=functional) as lens:
            train(model, lens)
            lens.audit()
        return runs["forward"]

    assert count(True) == count(False) > 0


class Watched(nn.LayerNorm):
    """Keeps the gain that its output was computed with."""

    def forward(self, x):
        weight = self.weight
        self.used, self.seen = weight.detach().clone(), x.detach().clone()
        y = nn.functional.layer_norm(x, self.normalized_shape, weight, self.bias, self.eps)
        if y.requires_grad:
            y.register_hook(lambda grad: setattr(self, "came", grad.detach().clone()))
        return y


@pytest.mark.parametrize("way", [way for way in WAYS if not way.startswith("old")])
def test_the_shares_are_those_of_the_gain_that_the_forward_pass_used(way):
    torch.manual_seed(0)
    norm = Watched(WIDTH)
    nn.init.uniform_(norm.weight, 0.3, 1.7)
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), norm)
    gradlens.register_norm(type(norm), axes=-1)
    WAYS[way](norm)
    with gradlens.attach(model) as lens:
        for step in range(3):
            model.zero_grad()
            (1 + model(vectors(step))).square().mean().backward()
            lens.step()
            expected = expected_row(norm.seen, norm.came, Case((-1,), norm.eps, gain=norm.used))
            row = lens.recording.norms.query(f"step == {step}").iloc[0]
            for name in SHARES:
                assert row[name] == pytest.approx(expected[name], abs=1e-4), (step, name)
    assert lens.audit().problems() == []


@pytest.mark.parametrize("way", ["old spectral norm", "old weight norm"])
def test_a_gain_that_a_hook_of_torch_leaves_is_the_one_of_this_call(way):
    """Also where that hook was registered after the lens', and runs after it."""

    def kept(attach_first: bool):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH))
        nn.init.uniform_(model[1].weight, 0.3, 1.7)
        if not attach_first:
            WAYS[way](model[1])
        with gradlens.attach(model) as lens:
            if attach_first:
                WAYS[way](model[1])
            train(model, lens)
        return lens.recording.norms["kept"].tolist()

    assert kept(True) == pytest.approx(kept(False), abs=1e-6)


def test_inside_of_cached_the_gain_is_the_cached_one():
    def kept(cached: bool):
        model = network("counted")
        with gradlens.attach(model) as lens:
            if cached:
                with parametrize.cached():
                    for step in range(2):
                        model.zero_grad()
                        loss_of(model(vectors(step))).backward(retain_graph=True)
                        lens.step()
            else:
                for step in range(2):
                    model.zero_grad()
                    loss_of(model(vectors(step))).backward()
                    lens.step()
        assert lens.audit().problems() == []
        return lens.recording.norms["kept"].tolist()

    runs.clear()
    assert kept(True) == pytest.approx(kept(False), abs=1e-6)


@pytest.mark.parametrize("way", ["counted", "spectral norm", "with a state"])
def test_in_a_compiled_graph_such_a_norm_is_named_and_nothing_runs_twice(way):
    def run(attached: bool) -> list:
        torch.compiler.reset()
        model = network(way)
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        if not attached:
            return train(model, run=compiled)
        with gradlens.attach(model) as lens:
            found = train(model, lens, run=compiled)
        assert any("1.1.norm: its gain is computed in a compiled graph" in one for one in lens.audit().problems())
        assert set(lens.recording.norms["site"]) == {"1.0.norm", "2"}
        return found

    assert run(True) == run(False)


def test_a_gain_that_is_a_property_is_not_read_but_named():
    class Exponential(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.log, self.eps = nn.Parameter(torch.zeros(WIDTH)), 1e-5

        @property
        def weight(self):
            runs["property"] += 1
            return self.log.exp()

        def forward(self, x):
            return nn.functional.layer_norm(x, (WIDTH,), self.weight, None, self.eps)

    gradlens.register_norm(Exponential, axes=-1)
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), Exponential())
    with gradlens.attach(model) as lens:
        runs.clear()
        train(model, lens)
    assert runs["property"] == 3
    assert any("Nothing is recorded at 1: " in one and "whenever it is read" in one for one in lens.audit().problems())
    assert lens.recording.norms.empty


def test_after_detach_no_hook_is_left_on_the_parametrization():
    model = network("counted")
    gradlens.attach(model).detach()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
