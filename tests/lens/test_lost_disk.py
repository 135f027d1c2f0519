"""A disk that is full or gone ends the recording, never the training."""

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import gradlens
from gradlens import GradlensError
from gradlens.errors import RecordingError
from tests.lens.networks import stack
from tests.lens.passes import loss_of, vectors

STEPS, BROKEN = 6, 3


def descriptors(folder: Path) -> list[int]:
    """Those of this process that stand for a segment."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{number}").endswith(".arrows"):
                found.append(int(number))
        except OSError:
            pass  # the one of the listing itself
    assert found
    return found


def fill(folder: Path) -> None:
    """No file may grow any further: what a write returns on a full disk, by a limit that needs no disk of one's own."""
    size = max(path.stat().st_size for path in (folder / "segments").iterdir())
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def close_descriptors(folder: Path) -> None:
    for number in descriptors(folder):
        os.close(number)


def replace(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))
    shutil.copytree(folder.with_name("elsewhere"), folder)


def take_the_right_to_write(folder: Path) -> None:
    """The folder is a file now."""
    shutil.rmtree(folder)
    folder.write_text("taken")


FAULTS = {
    "full": fill,
    "descriptors closed": close_descriptors,
    "renamed": lambda folder: folder.rename(folder.with_name("elsewhere")),
    "deleted": shutil.rmtree,
    "replaced by a copy": replace,
    "replaced by a file": take_the_right_to_write,
}
#: After these the folder holds what was recorded until then.
KEPT = ("full", "descriptors closed")


@pytest.fixture
def limits():
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def train(lens_of, fault=lambda: None) -> tuple[nn.Module, object, list[float], list[torch.Tensor]]:
    model = stack()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    lens, by_step = lens_of(model, optimizer)
    losses = []
    for step in range(STEPS):
        if step == BROKEN:
            fault()
        optimizer.zero_grad()
        loss = loss_of(model(vectors(step)))
        loss.backward()
        optimizer.step()
        if lens is not None and by_step:
            lens.step(loss=loss)
        losses.append(float(loss.detach()))
    return model, lens, losses, [p.detach().clone() for p in model.parameters()]


def hooks(model: nn.Module) -> int:
    kinds = [key for key in vars(nn.Module()) if "hooks" in key]
    return sum(len(getattr(module, kind) or ()) for module in model.modules() for kind in kinds)


@pytest.mark.parametrize("by_step", [True, False], ids=["by step()", "by the optimizer"])
@pytest.mark.parametrize("fault", FAULTS)
def test_the_training_goes_on_to_its_end_with_the_same_bits(tmp_path, fault, by_step, limits, capfd):
    folder = tmp_path / "run"

    def attach(model, optimizer):
        lens = gradlens.attach(model, out=folder, optimizer=None if by_step else optimizer)
        return lens, by_step

    _, _, losses, weights = train(lambda model, optimizer: (None, False))
    model, lens, seen_losses, seen_weights = train(attach, lambda: FAULTS[fault](folder))
    assert seen_losses == losses
    assert all(torch.equal(a, b) for a, b in zip(weights, seen_weights, strict=True))
    assert hooks(model) == 0
    said = capfd.readouterr().err
    assert said.count("The recording stopped at step 3: A run folder must be ") == 1 == said.count("\n")
    if by_step:
        lens.step(loss=1.0)
    assert any("stopped at step 3" in problem for problem in lens.audit().problems())
    if fault in KEPT:
        # With an optimizer the row of a step is written when the next one begins.
        whole = BROKEN if by_step else BROKEN - 1
        assert lens.recording.steps["step"].tolist()[:whole] == list(range(whole))
        assert gradlens.load(folder).norms.groupby("step").size().tolist()[:whole] == [4] * whole
    elif fault != "replaced by a copy":
        with pytest.raises(RecordingError, match=r"The recording stopped at step 3: .* Nothing can be read now"):
            _ = lens.recording
    lens.detach()
    lens.detach()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("fault", FAULTS)
def test_with_strict_it_is_an_error_in_one_sentence(tmp_path, fault, limits):
    folder = tmp_path / "run"

    def attach(model, optimizer):
        return gradlens.attach(model, out=folder, strict=True), True

    with pytest.raises(RecordingError, match="A run folder must be "):
        train(attach, lambda: FAULTS[fault](folder))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_disk_that_is_lost_before_the_end_is_met_at_the_end(tmp_path, fault, limits, capfd):
    folder = tmp_path / "run"
    with gradlens.attach(stack(), out=folder) as lens:
        lens.step()
        FAULTS[fault](folder)
    said = capfd.readouterr().err
    if fault != "descriptors closed":  # all had been written
        assert said.count("The recording stopped at step 1: A run folder must be ") == 1 == said.count("\n")
    assert lens.audit().problems()


def test_nothing_is_written_to_a_file_of_the_users_that_got_the_descriptor(tmp_path, capfd):
    folder, taken = tmp_path / "run", []

    def reuse() -> None:
        numbers = descriptors(folder)
        close_descriptors(folder)
        for index in numbers:
            taken.append((tmp_path / f"user{index}.txt").open("w"))
        assert {file.fileno() for file in taken} == set(numbers)

    _, lens, *_ = train(lambda model, optimizer: (gradlens.attach(model, out=folder), True), reuse)
    lens.detach()
    for file in taken:
        file.write("mine")
        file.close()  # still open: nobody closed it
        assert Path(file.name).read_text() == "mine"


def test_the_folder_is_the_one_of_attaching_wherever_the_program_goes(tmp_path, monkeypatch, capfd):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    _, lens, *_ = train(
        lambda model, optimizer: (gradlens.attach(model, out="run"), True), lambda: os.chdir(tmp_path / "there")
    )
    lens.detach()
    assert lens.recording.steps["step"].tolist() == list(range(STEPS))
    assert gradlens.load(tmp_path / "here" / "run").meta["status"] == "complete"
    assert [*(tmp_path / "there").iterdir()] == []
    assert capfd.readouterr().err == ""


def test_the_users_own_error_is_not_replaced_by_one_of_the_disk(tmp_path):
    def fail() -> None:
        with gradlens.attach(stack(), out=tmp_path / "run", strict=True) as lens:
            lens.step()
            shutil.rmtree(tmp_path / "run")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()


@pytest.mark.parametrize("logged", ["not at all", "to a file", "to the terminal", "disabled"])
def test_it_is_said_once_on_the_terminal_and_in_the_log(tmp_path, logged):
    setup = {
        "not at all": "",
        "to a file": "logging.basicConfig(filename='log.txt')",
        "to the terminal": "logging.basicConfig()",
        "disabled": "logging.getLogger('gradlens').disabled = True",
    }[logged]
    program = f"""
import logging, shutil, torch, gradlens
{setup}
model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4))
with gradlens.attach(model, out="run") as lens:
    for step in range(4):
        model(torch.randn(2, 4)).square().sum().backward()
        lens.step()
        if step == 1:
            shutil.rmtree("run")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, env=os.environ)
    assert done.returncode == 0
    assert done.stderr.count("The recording stopped at step 2") == 1
    log = tmp_path / "log.txt"
    assert not log.exists() or log.read_text().count("The recording stopped at step 2") == 1
    assert log.exists() == (logged == "to a file")


class FullFile:
    """Where stderr goes: a file on the same disk."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")

    flush = write


@pytest.mark.parametrize("stderr", [FullFile(), None])
def test_nothing_is_raised_where_it_cannot_be_said(tmp_path, stderr, monkeypatch):
    with gradlens.attach(stack(), out=tmp_path / "run") as lens:
        shutil.rmtree(tmp_path / "run")
        monkeypatch.setattr(sys, "stderr", stderr)
        lens.step()
    assert any("stopped at step 0" in problem for problem in lens.audit().problems())


def test_a_lens_in_memory_needs_no_disk(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with gradlens.attach(stack()) as lens:
        lens.step()
    assert len(lens.recording.steps) == 1
    with pytest.raises(GradlensError, match="must be writable"):
        gradlens.attach(stack(), out="run")
