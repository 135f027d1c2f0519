"""Other threads: an evaluation beside training, two forward passes at once, workers that load data."""

import threading

import pytest
import torch
from torch import nn

import gradlens
from tests.lens.networks import WIDTH, stack
from tests.lens.passes import backward, loss_of, record, vectors


def numbers(recording: gradlens.Recording):
    return recording.norms.select_dtypes("number").to_numpy()


def in_thread(target) -> threading.Thread:
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread


class Meeting(nn.Module):
    """Calls ``wait`` in the middle of the forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.wait = lambda: None

    def forward(self, x):
        self.wait()
        return x


def test_an_evaluation_in_another_thread_does_not_stop_the_recording_of_training():
    meeting = Meeting()
    model = nn.Sequential(meeting, stack())
    inside, trained = threading.Event(), threading.Event()

    def evaluate() -> None:
        with torch.no_grad():
            model(vectors(9))

    def wait() -> None:
        if threading.current_thread() is not threading.main_thread():
            inside.set()
            trained.wait(10)

    meeting.wait = wait
    with gradlens.attach(model) as lens:
        thread = in_thread(evaluate)
        assert inside.wait(10)
        backward(model, vectors(0))
        lens.step()
        trained.set()
        thread.join()
        model.zero_grad()
        backward(model, vectors(1))
        lens.step()
    assert lens.recording.norms.groupby("step").size().tolist() == [4, 4]
    assert (lens.recording.norms["vectors"] == 20).all()


class MeetingNorm(nn.LayerNorm):
    """Two threads meet inside of it."""

    barrier = threading.Barrier(1)

    def forward(self, x):
        self.barrier.wait(10)
        return super().forward(x)


def test_two_threads_inside_one_norm_do_not_mix_their_calls():
    gradlens.register_norm(MeetingNorm, axes=-1)
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), MeetingNorm(WIDTH))
    losses = [None, None]

    def forward(index: int) -> None:
        losses[index] = loss_of((1 + index) * model(vectors(index)))

    with gradlens.attach(model) as lens:
        MeetingNorm.barrier = threading.Barrier(2)  # attaching runs a copy of the norm, to see what it does
        threads = [in_thread(lambda index=index: forward(index)) for index in (0, 1)]
        for thread in threads:
            thread.join()
        sum(losses).backward()
        lens.step()
    MeetingNorm.barrier = threading.Barrier(1)
    norms = lens.recording.norms
    assert norms["call"].tolist() == [0, 1]
    assert norms[["kept", "grad_output_norm", "grad_input_norm"]].notna().all(axis=None)
    # The shares of each call are those of a call alone: input and gradient are of the same thread.
    alone = [record(model, batch=lambda step, i=i: vectors(i)).recording.norms["kept"][0] for i in (0, 1)]
    assert sorted(norms["kept"]) == pytest.approx(sorted(alone), rel=1e-5)


def test_backward_in_another_thread_is_recorded():
    model = stack()
    with gradlens.attach(model) as lens:
        loss = loss_of(model(vectors(0)))
        in_thread(loss.backward).join()
        lens.step()
    assert numbers(lens.recording) == pytest.approx(numbers(record(stack()).recording), rel=1e-5, nan_ok=True)
    assert lens.audit().problems() == []


class Numbers(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index):
        return torch.full((5, WIDTH), float(index)) + torch.arange(WIDTH).sin()


def test_data_loader_workers_take_no_part(tmp_path):
    model = stack()
    with gradlens.attach(model, out=tmp_path / "run") as lens:
        for x in torch.utils.data.DataLoader(Numbers(), batch_size=4, num_workers=1):
            model.zero_grad()
            backward(model, x)
            lens.step()
    assert gradlens.load(tmp_path / "run").norms.groupby("step").size().tolist() == [4, 4]
