"""A lens that is told to go back: what it records from there on replaces what it recorded before."""

import pytest
import torch

import gradlens
from tests.lens.networks import stack
from tests.lens.passes import backward, vectors


def train(model, lens, numbers, scale: float = 1.0) -> None:
    for number in numbers:
        model.zero_grad()
        (scale * backward_of(model, number)).backward()
        lens.step(loss=scale * number)


def backward_of(model, number: int) -> torch.Tensor:
    return model(vectors(number)).square().mean()


@pytest.mark.parametrize("where", ["memory", "folder", "folder, closed"])
@pytest.mark.parametrize("every", [1, 2])
def test_going_back_within_one_attachment_replaces(tmp_path, where, every):
    def record(name, parts):
        model = stack()
        out = None if where == "memory" else tmp_path / name
        with gradlens.attach(model, out=out, every=every) as lens:
            for numbers, scale in parts:
                lens.start_at(numbers[0])
                train(model, lens, numbers, scale)
            recording = lens.recording
        return recording if "closed" not in where else gradlens.load(out)

    # Step 2 twice: what was told of it first is worth nothing.
    got = record("again", [(range(6), 1.0), (range(2, 5), 3.0), (range(4, 8), 2.0)])
    exact = record("once", [(range(2), 1.0), (range(2, 4), 3.0), (range(4, 8), 2.0)])
    for table in ("steps", "norms", "activations", "params"):
        columns = [name for name in exact.table(table) if name != "seconds"]
        numbers = exact.table(table)[columns]
        assert got.table(table)[columns].equals(numbers), table
    assert got.steps["step"].tolist() == list(range(0, 8, every))


def test_going_forward_replaces_nothing(tmp_path):
    model = stack()
    with gradlens.attach(model, out=tmp_path / "run") as lens:
        train(model, lens, range(2))
        lens.start_at(10)
        train(model, lens, range(2))
    recording = gradlens.load(tmp_path / "run")
    assert recording.steps["step"].tolist() == [0, 1, 10, 11]
    assert recording.meta["attempts"] == 1


def test_a_step_that_is_open_is_written_before_it_is_replaced(tmp_path):
    """The optimizer has closed it, and its row waits for what step() may add."""
    model = stack()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with gradlens.attach(model, out=tmp_path / "run", optimizer=optimizer) as lens:
        for back in (None, 1):
            if back is not None:
                lens.start_at(back)
            for number in range(2):
                optimizer.zero_grad()
                backward(model, vectors(number))
                optimizer.step()
    steps = gradlens.load(tmp_path / "run").steps
    assert steps["step"].tolist() == [0, 1, 2]
    first, second = gradlens.load(tmp_path / "run").norms.groupby("step")["grad_output_norm"].first()[:2]
    assert first == pytest.approx(second, rel=1e-6), "the first batch again, now as step 1"
