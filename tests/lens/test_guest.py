"""Whatever goes wrong in the lens stays in the lens: planted in each of its functions that a training step runs."""

import gc
import inspect
import sys
import warnings
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import gradlens
import gradlens.lens
from gradlens import GradlensError
from gradlens.lens.taps import NormTap
from gradlens.lens.taps.norm_call import NormCall
from tests.lens.networks import WIDTH, Block, stack
from tests.lens.passes import loss_of, record, vectors

ROOM = str(Path(inspect.getfile(gradlens.lens)).parent)
#: What a user calls by name: there an exception is an answer. And what catches the others.
NOT_PLANTED = {"Lens.step", "wrong", "Hook.__call__", "_run", "Guard.around", "Guard.around.<locals>.run", "Guard.end"}
#: What says that something went wrong.
NOT_PLANTED |= {"Tap.failed", "Tap.give_up", "Lens._step_aside", "warn", "weakly.<locals>.call"}
#: What stands where the user's own function stood, and hands on to what is caught.
NOT_PLANTED |= {"Watcher.call", "_wrapped.<locals>.run", "_bound", "_bound.<locals>.<lambda>"}


class Functional(Block):
    def branch(self, x):
        return self.linear(nn.functional.layer_norm(x, (WIDTH,), self.norm.weight, self.norm.bias))


class Checkpointed(Block):
    def forward(self, x):
        return x + checkpoint(self.branch, x, use_reentrant=False)


def network() -> nn.Module:
    torch.manual_seed(0)
    middle = nn.Sequential(Block(), Functional(), Checkpointed())
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), middle, nn.RMSNorm(WIDTH))


WAYS = {
    "step()": {},
    "optimizer": {"watch": ("norms", "blocks", "params", "updates")},
    "functional": {"functional": True},
}


def train(way: str, lens: bool = True, steps: int = 3, at: Callable[[int], None] = lambda step: None, **options: Any):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    attached = None
    if lens:
        given = {"optimizer": optimizer} if way == "optimizer" else {}
        attached = gradlens.attach(model, **WAYS[way], **given, **options)
    losses = []
    for step in range(steps):
        at(step)
        optimizer.zero_grad()
        loss = loss_of(model(vectors(step)))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        if attached is not None and way != "optimizer":
            attached.step(loss=loss, accuracy=0.5)
        losses.append(loss.item())
    return losses, [p.detach().clone() for p in model.parameters()], attached


def functions_that_run(way: str) -> dict[str, FunctionType]:
    """The functions of the room ``lens`` that run in training, by their qualified name."""
    codes = set()

    def saw(frame, event, arg):
        if event == "call" and frame.f_code.co_filename.startswith(ROOM):
            codes.add(frame.f_code)

    def begin(step: int) -> None:
        sys.setprofile({1: saw}.get(step))

    try:
        train(way, at=begin)
    finally:
        sys.setprofile(None)
    places = [module for name, module in sys.modules.items() if name.startswith("gradlens.lens")]
    owners = {*places, *(one for place in places for one in vars(place).values() if isinstance(one, type))}
    found = {one for owner in owners for one in vars(owner).values() if isinstance(one, FunctionType)}
    return {f.__qualname__: f for f in found if f.__code__ in codes and f.__qualname__ not in NOT_PLANTED}


def plant(monkeypatch, function: FunctionType, broken: list[bool]) -> None:
    """Make a function raise while ``broken`` is not empty, wherever it goes by its name."""

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if broken:
            raise RuntimeError("planted")
        return function(*args, **kwargs)

    for name, module in list(sys.modules.items()):
        if not name.startswith("gradlens."):
            continue
        for owner in (module, *(one for one in vars(module).values() if isinstance(one, type))):
            for key, value in list(vars(owner).items()):
                if value is function:
                    monkeypatch.setattr(owner, key, wrapper)


_CLOSING = ("StepRecorder", "ParameterReader", "Switch", "Watcher")


def breaks(broken: list[bool], step: int) -> None:
    if step == 1:
        broken.append(True)


@pytest.mark.parametrize("way", WAYS)
def test_an_error_in_any_function_leaves_the_training_as_it_is_and_is_named(way, monkeypatch):
    losses, weights, _ = train(way, lens=False)
    rows = len(train(way, steps=2)[2].recording.norms.query("step == 0"))
    functions, unnamed = functions_that_run(way), []
    assert len(functions) > 90
    if way != "step()":  # what differs: who closes the step, which calls are seen
        there = {*functions_that_run("step()")}
        functions = {n: f for n, f in functions.items() if n not in there or n.startswith(_CLOSING)}
    for name, function in functions.items():
        broken: list[bool] = []
        with monkeypatch.context() as patch:
            plant(patch, function, broken)
            seen, seen_weights, lens = train(way, at=partial(breaks, broken))
            broken.clear()
            assert seen == losses, name
            assert all(torch.equal(a, b) for a, b in zip(weights, seen_weights, strict=True)), name
            lens.detach()
            if not any("planted" in problem for problem in lens.audit().problems()):
                unnamed.append(name)
            assert len(lens.recording.norms.query("step == 0")) == rows, name
    assert unnamed == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_a_program_passes_through(error, monkeypatch):
    def interrupted(*args: Any) -> None:
        raise error

    monkeypatch.setattr("gradlens.lens.taps.norm_call.NormCall.measure", interrupted)
    monkeypatch.setattr("gradlens.lens.taps.norm_input.keeps_moments", lambda kind, module: False)
    model = stack()
    with gradlens.attach(model), pytest.raises(error):
        model(vectors(0))


def break_at(monkeypatch, path: str, when: str) -> None:
    """One site's hook raises."""
    owner = NormTap if hasattr(NormTap, when) else NormCall
    original = getattr(owner, when)

    def broken(self, *args: Any, **kwargs: Any) -> Any:
        tap = self if isinstance(self, NormTap) else self._tap
        if tap.site.path == path:
            raise ValueError("the planted one\nwith a second line")
        return original(self, *args, **kwargs)

    monkeypatch.setattr(owner, when, broken)


@pytest.mark.parametrize("when", ["before", "after", "_grad_output", "grad_input"])
def test_a_site_whose_hook_raises_goes_silent_alone(when, monkeypatch):
    break_at(monkeypatch, "1.1.norm", when)
    lens = record(stack(), steps=3)
    problems = [problem for problem in lens.audit().problems() if "1.1.norm" in problem]
    assert len(problems) == 1
    said = "Nothing is recorded at 1.1.norm: a hook failed in step 0 (ValueError: the planted one"
    assert problems[0].startswith(said)
    assert "second line" not in problems[0]
    assert set(lens.recording.norms["site"]) == {"1.0.norm", "1.2.norm", "2"}
    assert lens.recording.norms["kept"].notna().all()


@pytest.mark.parametrize("when", ["before", "_grad_output"])
def test_with_strict_it_is_raised(when, monkeypatch):
    break_at(monkeypatch, "1.1.norm", when)
    with pytest.raises(GradlensError, match=r"failed at 1\.1\.norm: ValueError: the planted one"):
        record(stack(), strict=True)


@pytest.mark.parametrize("when", ["_traced_grad_output", "_traced_grad_input", "_traced_hooks"])
@pytest.mark.parametrize("kind", ["python", "tensors"])
def test_an_error_while_a_graph_is_traced_costs_the_site_alone(when, kind, monkeypatch):
    """What Python raises dynamo follows; what a fake tensor raises it does not, and would hand to the user."""
    original = getattr(NormTap, when)

    def broken(self, *args: Any) -> Any:
        if self.site.path == "1.1.norm":
            if kind == "python":
                raise ValueError("planted")
            torch.zeros(3) + torch.zeros(7)
        return original(self, *args)

    monkeypatch.setattr(NormTap, when, broken)

    def train(attached: bool):
        torch.compiler.reset()
        model = stack()
        lens = gradlens.attach(model) if attached else None
        run = torch.compile(model, backend="aot_eager", fullgraph=True)
        found = []
        for step in range(3):
            model.zero_grad()
            loss = loss_of(run(vectors(step)))
            loss.backward()
            if lens is not None:
                lens.step()
            found += [loss.item(), *(p.grad.norm().item() for p in model.parameters())]
        return found, lens

    found, lens = train(True)
    assert found == train(False)[0]
    assert any("Nothing is recorded at 1.1.norm: a hook failed when a graph" in one for one in lens.audit().problems())
    assert set(lens.recording.norms["site"]) == {"1.0.norm", "1.2.norm", "2"}
    lens.detach()


# ---------------------------------------------------------------------- warnings


plain_vectors = vectors


def odd(step: int) -> torch.Tensor:
    x = plain_vectors(step)
    if step == 1:
        x[0] = float("nan")
    elif step == 2:
        x[:] = 0
    elif step == 3:
        x *= 1e30
    return x


@pytest.mark.parametrize("way", WAYS)
def test_no_warning_of_the_lens_shows_and_none_raises(way, tmp_path, monkeypatch):
    monkeypatch.setattr("tests.lens.test_guest.vectors", odd)
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        losses, _, lens = train(way, steps=4, out=tmp_path / "run")
        lens.detach()
        recording = lens.recording
        assert recording.norms.notna().any(axis=None)
        assert len(recording.params) > 0 < len(recording.activations)
        lens.audit()
    assert not any("failed" in problem for problem in lens.audit().problems())
    assert recording.steps["step"].tolist() == [0, 1, 2, 3]
    plain = train(way, lens=False, steps=4)[0]
    assert np.array_equal(losses, plain, equal_nan=True)


# ---------------------------------------------------------------------- odd numbers given to step()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"loss": torch.ones(8)}, r"step\(loss=...\) takes one number; got a tensor \[8\]\. Reduce it"),
        ({"loss": "low"}, r"step\(loss=...\) takes one number; got a str"),
        ({"loss": [1.0]}, "got a list"),
        ({"loss": {"total": 1.0}}, "got a dict"),
        ({"accuracy": np.ones(3)}, r"step\(accuracy=...\) takes one number; got a ndarray"),
        ({"lr": "fast"}, r"step\(lr=...\)"),
        ({"grad_norm": 1.0}, "step\\(\\) fills grad_norm itself"),
    ],
)
def test_what_is_no_number_is_refused_at_the_first_step_and_left_out_later(given, said):
    with gradlens.attach(stack()) as lens:
        with pytest.raises(GradlensError, match=said):
            lens.step(**given)
        lens.step(loss=1.0)
        lens.step(**given)
        lens.step(loss=3.0, lr=0.5)
    assert any("Such values are left out" in problem for problem in lens.audit().problems())
    steps = lens.recording.steps
    assert steps["step"].tolist() == [0, 1, 2]
    assert steps["loss"].tolist() == pytest.approx([1.0, np.nan, 3.0], nan_ok=True)


@pytest.mark.parametrize(
    ("loss", "kept"),
    [
        (None, np.nan),
        (2, 2.0),
        (np.float32(0.5), 0.5),
        (np.array(0.5), 0.5),
        (torch.tensor([0.25]), 0.25),
        (torch.ones((), dtype=torch.float16, requires_grad=True), 1.0),
        (True, 1.0),
        (float("inf"), float("inf")),
    ],
)
def test_what_is_one_number_is_taken(loss, kept):
    with gradlens.attach(stack()) as lens:
        lens.step(loss=loss)
    assert lens.recording.steps["loss"].tolist() == pytest.approx([kept], nan_ok=True)


# ---------------------------------------------------------------------- lenses that were forgotten


@pytest.mark.parametrize("same", [True, False], ids=["the same model", "another model"])
def test_a_lens_that_was_forgotten_in_a_notebook_is_taken_over(tmp_path, same, capfd):
    model = stack()
    lens = gradlens.attach(model, out=tmp_path / "run")
    for step in range(2):  # the cell is interrupted in the third step
        model.zero_grad()
        loss_of(model(vectors(step))).backward()
        lens.step()
    forgotten = lens
    model = model if same else stack()
    with gradlens.attach(model, out=tmp_path / "run") as lens:
        loss_of(model(vectors(5))).backward()
        lens.step()
        with pytest.raises(GradlensError, match="is detached: another one was attached with the same run folder"):
            forgotten.step()
        forgotten.detach()
    said = capfd.readouterr().err
    assert said.count("is detached: the new one goes on with the run") == 1
    assert lens.recording.steps["step"].tolist() == [0, 1, 2]
    assert lens.recording.meta["status"] == "complete"
    assert len(lens.recording.norms.query("step == 2")) == 4
    assert not any(module._forward_hooks for module in model.modules())


def test_two_lenses_with_folders_of_their_own_stay_both(tmp_path):
    model = stack()
    with gradlens.attach(model, out=tmp_path / "a") as a, gradlens.attach(model, out=tmp_path / "b") as b:
        loss_of(model(vectors(0))).backward()
        a.step()
        b.step()
    assert len(a.recording.norms) == len(b.recording.norms) == 4


def test_a_folder_that_another_process_writes_is_still_refused(tmp_path):
    from gradlens.recording import RunWriter

    writer = RunWriter(tmp_path / "run", {})
    with pytest.raises(GradlensError, match="One process writes a run folder at a time"):
        gradlens.attach(stack(), out=tmp_path / "run")
    writer.close("interrupted")


def test_a_lens_that_nobody_holds_and_nobody_can_ask_leaves_the_model():
    model = stack()
    lens = gradlens.attach(model)
    gone = weakref.ref(lens)
    lens = gradlens.attach(model)
    gc.collect()
    assert gone() is None
    assert sum(len(module._forward_hooks) for module in model.modules()) == 4 + 3 + 1  # norms, blocks, the root
    lens.detach()
    assert not any(module._forward_hooks for module in model.modules())


def test_a_lens_with_a_folder_or_an_open_block_needs_nobody_to_hold_it(tmp_path):
    model = stack()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    gradlens.attach(model, out=tmp_path / "run", optimizer=optimizer)
    gc.collect()
    for step in range(3):
        loss_of(model(vectors(step))).backward()
        optimizer.step()
    assert gradlens.load(tmp_path / "run").steps["step"].tolist() == [0, 1]  # the last one is open still
