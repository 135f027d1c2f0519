"""torch.compile: one graph without a break, the numbers of eager mode, and never a silent miss."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.utils.checkpoint import checkpoint

import gradlens
from tests.lens.networks import WIDTH, Block, stack
from tests.lens.passes import loss_of, vectors

#: aot_eager runs the very graph that a compiler gets, forward and backward; inductor is asked once, for it is slow.
EAGER_GRAPH = "aot_eager"


class InPlace(Block):
    def branch(self, x):
        y = self.norm(x)
        y += 1
        return self.linear(torch.relu_(y))


class Twice(Block):
    def branch(self, x):
        return self.linear(self.norm(x)) + self.norm(3 * x).tanh()


class Keyword(Block):
    def branch(self, x):
        return self.linear(self.norm(input=x))


class HandWritten(Block):
    """A norm in Python: autograd sees its parts."""

    class RMSNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.eps = nn.Parameter(torch.ones(WIDTH)), 1e-6

        def forward(self, x: Tensor) -> Tensor:
            return self.weight * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps))

    def __init__(self) -> None:
        super().__init__()
        self.norm = self.RMSNorm()


class Checkpointed(Block):
    reentrant = False

    def forward(self, x):
        return x + checkpoint(self.branch, x, use_reentrant=self.reentrant)


class NestedCheckpoints(Checkpointed):
    def branch(self, x):
        return checkpoint(super().branch, x, use_reentrant=False)


class Channels(nn.Module):
    """BatchNorm and GroupNorm: vectors over several axes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(5, 6, 3, padding=1)
        self.batch, self.group = nn.BatchNorm1d(6), nn.GroupNorm(2, 6)

    def forward(self, x):
        return self.group(torch.relu(self.batch(self.conv(x))))


@dataclass
class Trained:
    recording: gradlens.Recording
    audit: Any
    losses: list[float]
    weights: list[Tensor]
    graphs: int
    breaks: int


def train(
    model, compiled: str = "", *, steps: int = 3, lens: bool = True, prepare=None, sizes=(4,), **options
) -> Trained:
    """Train a little; compiled before the lens is attached ("before"), after, in place ("module"), or not at all."""
    torch.compiler.reset()
    torch.manual_seed(0)
    options = {"backend": EAGER_GRAPH, "fullgraph": True} | options
    every = options.pop("every", 1)
    run = torch.compile(model, **options) if compiled in ("before", "wrapper") else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    if compiled in ("before", "wrapper"):
        loss_of(run(vectors(0))).backward()
        optimizer.zero_grad()
    watched = run if compiled == "wrapper" else model
    attached = gradlens.attach(watched, every=every, optimizer=optimizer) if lens else None
    if compiled == "after":
        run = torch.compile(model, **options)
    elif compiled == "module":
        model.compile(**options)
    elif compiled == "blocks":
        for block in model[1]:
            block.compile(**options)
    counters.clear()
    losses = []
    for step in range(steps):
        optimizer.zero_grad()
        loss = loss_of(run(vectors(step)[: sizes[step % len(sizes)]].clone()))
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    audit = attached.audit() if attached else None
    if attached:
        attached.detach()
    recording = attached.recording if attached else None
    return Trained(
        recording, audit, losses, [p.detach().clone() for p in model.parameters()],
        counters["stats"]["unique_graphs"], sum(counters["graph_break"].values()),
    )  # fmt: skip


@cache
def trained(block: type[nn.Module] = Block, compiled: str = "", **options) -> Trained:
    """Train a stack of two such blocks; what several tests look at is made once."""
    return train(stack(block, 2), compiled, **options)


def assert_same(got: gradlens.Recording, expected: gradlens.Recording, rel: float = 1e-4) -> None:
    for table in ("norms", "activations", "params"):
        keys = [key for key in ("step", "site", "call", "tensor", "name") if key in expected.table(table)]
        ordered = [recording.table(table).sort_values(keys).reset_index(drop=True) for recording in (got, expected)]
        numbers = ordered[1].select_dtypes("number").columns
        got_numbers, expected_numbers = (frame[numbers].to_numpy(float) for frame in ordered)
        assert got_numbers == pytest.approx(expected_numbers, rel=rel, abs=1e-6, nan_ok=True), table


BLOCKS = [Block, InPlace, Twice, Keyword, HandWritten, Checkpointed, NestedCheckpoints]


@pytest.mark.parametrize(
    ("block", "compiled"),
    [*((block, "after") for block in BLOCKS), (Block, "before"), (Block, "wrapper"), (Block, "module")],
)
def test_one_whole_graph_gives_the_numbers_of_eager_mode(block, compiled):
    fast = trained(block, compiled)
    assert (fast.graphs, fast.breaks) == (1, 0)
    assert_same(fast.recording, trained(block).recording)
    assert fast.audit.problems() == []
    assert len(fast.audit.setting["compiled"]) == len(fast.audit.norms)


@pytest.mark.parametrize("block", [Block, InPlace, HandWritten, Checkpointed])
def test_compiled_training_is_that_without_the_lens(block):
    """To the last bits: the alias and the sums may change how a compiler orders a sum."""
    fast, plain = trained(block, "after"), trained(block, "after", lens=False)
    assert fast.losses == pytest.approx(plain.losses, rel=1e-5)
    for got, expected in zip(fast.weights, plain.weights, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_norms_over_channels_are_right_in_a_graph():
    def network():
        torch.manual_seed(0)
        return Channels()

    assert_same(train(network(), "after").recording, train(network()).recording)


def test_what_inductor_makes_of_the_graph_is_right():
    fast = trained(Block, "after", backend="inductor")
    assert (fast.graphs, fast.breaks) == (1, 0)
    assert_same(fast.recording, trained().recording, rel=1e-3)


def test_a_cadence_needs_two_graphs_and_no_more():
    fast = trained(Block, "after", every=3, steps=10)
    assert (fast.graphs, fast.breaks) == (2, 0)
    assert_same(fast.recording, trained(every=3, steps=10).recording)
    assert fast.recording.norms["step"].unique().tolist() == [0, 3, 6, 9]


def test_dynamic_shapes_are_one_graph():
    fast = trained(Block, "after", dynamic=True, steps=4, sizes=(4, 2, 3))
    assert (fast.graphs, fast.breaks) == (1, 0)
    assert_same(fast.recording, trained(steps=4, sizes=(4, 2, 3)).recording)


def test_blocks_that_are_compiled_one_by_one_are_recorded_with_what_is_not():
    fast = trained(Block, "blocks")
    assert fast.breaks == 0
    assert_same(fast.recording, trained().recording)
    assert len(fast.audit.setting["compiled"]) == 2


def test_default_mode_with_a_graph_break_of_the_users_own_is_recorded():
    class Broken(Block):
        def branch(self, x):
            y = self.norm(x)
            torch._dynamo.graph_break()
            return self.linear(y)

    assert_same(trained(Broken, "after", fullgraph=False).recording, trained(Broken).recording)


def test_the_names_of_a_compiled_model_are_those_of_the_model_inside():
    fast, plain = trained(Block, "wrapper"), trained()
    for table, name in (("sites", "site"), ("norms", "site"), ("params", "name")):
        assert set(fast.recording.table(table)[name]) == set(plain.recording.table(table)[name])


def test_graphs_made_before_the_lens_are_dropped_and_the_audit_says_so():
    assert trained(Block, "before").audit.setting["graphs_dropped"]
    assert not trained(Block, "after").audit.setting["graphs_dropped"]


def test_gradient_accumulation_in_graphs_merges_exactly():
    def run(compiled: bool) -> gradlens.Recording:
        torch.compiler.reset()
        model = stack()
        with gradlens.attach(model) as lens:
            fast = torch.compile(model, backend=EAGER_GRAPH, fullgraph=True, dynamic=False) if compiled else model
            for part in vectors(0).split([3, 1]):
                loss_of(fast(part)).backward()
            lens.step()
        return lens.recording

    assert_same(run(True), run(False))


def test_the_true_end_of_a_compiled_backward_is_seen_before_clipping():
    torch.compiler.reset()
    model = stack()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradlens.attach(model, optimizer=optimizer) as lens:
        loss_of(torch.compile(model, backend=EAGER_GRAPH, fullgraph=True)(vectors(0))).backward()
        norm = float(nn.utils.clip_grad_norm_(model.parameters(), 1e-3))
        optimizer.step()
    steps = lens.recording.steps
    assert steps["grad_norm"].item() == pytest.approx(norm, rel=1e-5)
    assert steps["clip_coef"].item() == pytest.approx(1e-3 / norm, rel=1e-2)


def test_after_detach_a_compiled_model_runs_without_the_lens():
    torch.compiler.reset()
    model = stack()
    fast = torch.compile(model, backend=EAGER_GRAPH, fullgraph=True)
    with gradlens.attach(model) as lens:
        loss_of(fast(vectors(0))).backward()
        lens.step()
    rows = len(lens.recording.norms)
    twin = stack()
    for network in (fast, twin):
        network.zero_grad()
        loss_of(network(vectors(1))).backward()
    assert len(lens.recording.norms) == rows
    for got, expected in zip(model.parameters(), twin.parameters(), strict=True):
        np.testing.assert_allclose(got.grad, expected.grad, rtol=1e-5, atol=1e-7)


def test_an_evaluation_of_a_compiled_model_is_not_recorded():
    torch.compiler.reset()
    model = stack()
    with gradlens.attach(model) as lens:
        fast = torch.compile(model, backend=EAGER_GRAPH, fullgraph=True)
        loss_of(fast(vectors(0))).backward()
        with torch.no_grad():
            fast(vectors(1))
        lens.step()
    assert (lens.recording.norms["call"] == 0).all()
    assert (lens.recording.norms["vectors"] == 20).all()
