"""Activation checkpoints: measured once, and still worth having."""

import gc
import weakref

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import gradlens
from tests.lens.networks import WIDTH, Block, stack
from tests.lens.passes import backward, loss_of, needing_gradient, record, vectors
from tests.lens.twists import Checkpointed

both_modes = pytest.mark.parametrize("reentrant", [True, False], ids=["reentrant", "not reentrant"])


class Remembering(Checkpointed):
    """Keeps weak references to what it computes in its checkpoint."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__(reentrant)
        self.seen: list[weakref.ref] = []

    def branch(self, x):
        h = torch.tanh(x)
        y = self.norm(h)
        z = self.linear(y)
        self.seen += [weakref.ref(tensor) for tensor in (h, y)]
        return z


def alive(model: nn.Module) -> int:
    gc.collect()
    return sum(ref() is not None for block in model[1] for ref in block.seen)


@both_modes
def test_no_activation_is_kept_that_the_checkpoint_would_free(reentrant):
    model = stack(lambda: Remembering(reentrant))
    with gradlens.attach(model) as lens:
        loss = loss_of(model(vectors(0)))
        assert sum(len(block.seen) for block in model[1]) == 6
        assert alive(model) == 0
        loss.backward()
        assert alive(model) == 0
        lens.step()


def test_no_activation_is_kept_after_backward_by_the_lens_itself():
    seen: list[weakref.ref] = []

    class Plain(Block):
        def branch(self, x):
            y = self.norm(x)
            seen.extend((weakref.ref(x), weakref.ref(y)))
            return self.linear(y)

    model = stack(Plain)
    with gradlens.attach(model, functional=True) as lens:
        backward(model, vectors(0))
        gc.collect()
        assert [ref() for ref in seen] == [None] * 6
        lens.step()


@both_modes
def test_saved_bytes_are_those_without_the_lens(reentrant):
    def saved(attached: bool) -> int:
        """What autograd keeps between forward and backward, outside of the checkpoints."""
        model, total = stack(lambda: Checkpointed(reentrant)), []
        lens = gradlens.attach(model) if attached else None
        keep = lambda tensor: total.append(tensor.nbytes) or tensor  # noqa: E731
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model(vectors(0))
        if lens:
            lens.detach()
        return sum(total)

    assert saved(True) == saved(False) > 0


@both_modes
def test_vectors_and_calls_count_the_forward_pass_once(reentrant):
    recording = record(stack(lambda: Checkpointed(reentrant)), 2, backward=needing_gradient).recording
    assert recording.norms.groupby("step").size().tolist() == [4, 4]
    assert (recording.norms["vectors"] == 20).all()
    assert (recording.activations["numel"] == 20 * WIDTH).all()
    assert (recording.norms["call"] == 0).all()


@both_modes
def test_a_norm_whose_calls_lie_in_several_checkpoints_keeps_them_apart(reentrant):
    class Shared(nn.Module):
        """One block, called in three checkpoints, at inputs of growing scale."""

        def __init__(self, checkpointed: bool) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.block, self.checkpointed = nn.Linear(WIDTH, WIDTH), Block(), checkpointed

        def forward(self, x):
            x = self.first(x)
            for _ in range(3):
                x = 2 * (checkpoint(self.block, x, use_reentrant=reentrant) if self.checkpointed else self.block(x))
            return x

    got, expected = (record(Shared(checkpointed)).recording.norms for checkpointed in (True, False))
    assert got["call"].tolist() == [0, 1, 2]
    exact = expected.select_dtypes("number").to_numpy()
    assert got[expected.select_dtypes("number").columns].to_numpy() == pytest.approx(exact, rel=1e-4, abs=1e-9)


@both_modes
def test_an_evaluation_inside_the_forward_pass_does_not_disturb_the_checkpoints_around_it(reentrant):
    """A target network's pass without gradients (BYOL, distillation) through a block that is checkpointed too."""

    class Target(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = stack(lambda: Checkpointed(reentrant))

        def forward(self, x):
            y = self.network(x)
            with torch.no_grad():
                target = self.network(x + 1)
            return y * target

    class Plain(Target):
        def __init__(self) -> None:
            super().__init__()
            self.network = stack()

    columns = ["kept", "recentering", "grad_input_norm", "inv_sigma"]
    got, expected = (record(model(), backward=needing_gradient).recording.norms for model in (Target, Plain))
    got, expected = (norms.query("call == 0").set_index("site")[columns] for norms in (got, expected))
    assert got.to_numpy() == pytest.approx(expected.to_numpy(), rel=1e-4, abs=1e-9)


def test_a_reentrant_checkpoint_around_the_whole_model_is_recorded_or_said_not_to_be():
    """Its first pass looks like an evaluation: no graph is made."""

    def run(model, x):
        loss_of(checkpoint(model, x.requires_grad_(), use_reentrant=True)).backward()

    lens = record(stack(), backward=run)
    if lens.recording.norms.empty:
        assert any("checkpoint" in problem for problem in lens.audit().problems())
    else:
        assert lens.recording.norms["grad_input_norm"].notna().all()


def test_parameter_gradients_are_read_when_the_last_checkpoint_is_done():
    model = stack(lambda: Checkpointed(True), 4)
    params = record(model, backward=needing_gradient).recording.params.set_index("name")
    for name, parameter in model.named_parameters():
        assert params.loc[name, "grad_norm"] == pytest.approx(float(parameter.grad.norm()), rel=1e-5), name
