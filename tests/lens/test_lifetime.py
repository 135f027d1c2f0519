"""What a lens refuses, and what it leaves behind: nothing, in copies, graphs and programs neither."""

import copy
import gc
import itertools
import pickle
import weakref

import pytest
import torch
from torch import nn

import gradlens
from gradlens import GradlensError
from tests.lens.networks import WIDTH, stack
from tests.lens.passes import backward, loss_of, vectors


def test_a_parameter_that_the_model_returns_keeps_no_hook():
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network, self.scale = stack(), nn.Parameter(torch.ones(()))

        def forward(self, x):
            return self.network(x), self.scale

    model = Scaled()
    with gradlens.attach(model) as lens:
        y, scale = model(vectors(0))
        (loss_of(y) * scale).backward()
        lens.step()
    assert not model.scale._backward_hooks
    assert lens.recording.params["grad_norm"].notna().all()


def test_a_graph_that_outlives_its_lens_runs_backward():
    model = stack()
    lens = gradlens.attach(model)
    loss = loss_of(torch.compile(model, backend="aot_eager")(vectors(0)))
    gone = weakref.ref(lens)
    lens.detach()
    del lens
    torch._dynamo.reset()
    gc.collect()
    assert gone() is None
    loss.backward()


def test_an_exported_program_knows_nothing_of_the_lens():
    model = stack().eval()

    def nodes() -> int:
        return len(torch.export.export(model, (vectors(0),)).graph.nodes)

    expected = nodes()
    with gradlens.attach(model):
        assert nodes() == expected


def test_what_holds_a_lens_or_a_recording_can_be_copied_and_pickled():
    model = stack()
    model.lens = gradlens.attach(model)
    backward(model, vectors(0))
    model.lens.step()
    assert copy.deepcopy(model).lens is None
    assert pickle.loads(pickle.dumps(model)).lens is None
    recording = pickle.loads(pickle.dumps(model.lens.recording))
    assert recording.norms.equals(model.lens.recording.norms)
    assert recording.meta["label"] == model.lens.recording.meta["label"]


def test_many_shapes_leave_nothing_behind():
    model = stack()
    with gradlens.attach(model) as lens:
        for length in range(1, 30):
            loss_of(model(torch.randn(2, length, WIDTH))).backward()
            lens.step()
        buffers = list(lens._state.buffers.values())
    held = [value for buffer in buffers for value in vars(buffer).values() if isinstance(value, dict)]
    assert not any(itertools.chain.from_iterable(held))


def test_a_norm_that_raises_does_not_keep_its_input():
    model = stack()
    with gradlens.attach(model):
        x = torch.randn(2, 3, WIDTH + 1)
        gone = weakref.ref(x)
        with pytest.raises(RuntimeError):
            model(x)
        with pytest.raises(RuntimeError):
            model[2](x)
        del x
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize(
    ("options", "message"),
    [({"out": 5}, "path of a run folder"), ({"optimizer": 3}, "must be a torch.optim.Optimizer; got int")],
)
def test_an_argument_of_another_kind_is_refused(options, message):
    with pytest.raises(GradlensError, match=message):
        gradlens.attach(stack(), **options)


def test_compiled_autograd_is_refused_with_what_to_do():
    torch.compile(lambda x: x, backend="eager")  # imports its configuration
    refused = pytest.raises(GradlensError, match="compiled_autograd to False")
    with torch._dynamo.config.patch(compiled_autograd=True), refused:
        gradlens.attach(stack())
