"""Which steps are recorded, and who counts them."""

from contextlib import suppress

import pytest
import torch

import gradlens
from gradlens.errors import RecordingError
from tests.lens.networks import stack
from tests.lens.training_loop import train


def test_every_n_records_every_nth_step():
    model = stack()
    with gradlens.attach(model, every=3) as lens:
        train(model, steps=8, lens=lens)
    for table in ("steps", "norms", "params", "activations"):
        assert sorted(set(lens.recording.table(table)["step"])) == [0, 3, 6]


def test_a_number_given_by_name_is_kept_on_a_step_that_is_not_recorded(tmp_path):
    with gradlens.attach(stack(), out=tmp_path / "run", every=4) as lens:
        for step in range(7):
            lens.step(loss=1.0 + step, lr=0.5, **({"accuracy": step / 10} if step % 3 == 2 else {}))
    steps = gradlens.load(tmp_path / "run").steps.set_index("step")
    assert steps.index.tolist() == [0, 2, 4, 5]
    assert steps["accuracy"].dropna().to_dict() == {2: 0.2, 5: 0.5}
    assert steps["loss"].tolist() == [1.0, 3.0, 5.0, 6.0]


def test_steps_are_counted_by_the_optimizer_without_a_line_in_the_loop():
    model = stack()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.25)
    with gradlens.attach(model, optimizer=optimizer) as lens:
        train(model, steps=4, optimizer=optimizer)
    steps = lens.recording.steps
    assert steps["step"].tolist() == [0, 1, 2, 3]
    assert steps["lr"].tolist() == [0.25] * 4
    assert lens.recording.norms.groupby("step").size().tolist() == [4] * 4


def test_step_after_the_optimizer_adds_its_numbers_and_counts_once():
    model = stack()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.25)
    with gradlens.attach(model, optimizer=optimizer) as lens:
        losses = train(model, steps=3, lens=lens, optimizer=optimizer, accuracy=0.5)
    steps = lens.recording.steps
    assert steps["loss"].tolist() == losses
    assert steps["accuracy"].tolist() == [0.5] * 3


def test_micro_batches_of_unequal_size_merge_to_the_whole_batch():
    torch.manual_seed(0)
    model, x = stack().double(), torch.randn(7, 5, 16, dtype=torch.float64)

    def record(parts):
        with gradlens.attach(model) as lens:
            model.zero_grad()
            for part in parts:
                model(part).square().sum().backward()
            lens.step()
        return lens.recording

    whole, split = record([x]), record([x[:2], x[2:3], x[3:]])
    assert split.norms["call"].tolist() == [0] * 4
    for table in ("norms", "activations", "params"):
        expected = whole.table(table).select_dtypes("number")
        got = split.table(table)[expected.columns]
        assert got.to_numpy() == pytest.approx(expected.to_numpy(), rel=1e-9, abs=1e-25, nan_ok=True)


def test_an_evaluation_between_steps_is_not_recorded():
    model = stack()
    with gradlens.attach(model) as lens:
        for _ in range(2):
            model(torch.randn(4, 5, 16)).square().mean().backward()
            with torch.no_grad():
                model(torch.randn(9, 5, 16))
            lens.step()
    assert lens.recording.norms["call"].max() == 0
    assert set(lens.recording.norms["vectors"]) == {20}


def interrupted(model, folder, **options) -> None:
    with suppress(KeyboardInterrupt), gradlens.attach(model, out=folder, **options) as lens:
        train(model, steps=3, lens=lens)
        raise KeyboardInterrupt


@pytest.mark.parametrize(("blocks", "every", "what"), [(2, 1, "parameters"), (3, 2, "every 1, now 2")])
def test_an_interrupted_run_goes_on_with_the_same_model_and_cadence_only(tmp_path, blocks, every, what):
    interrupted(stack(), tmp_path / "run")
    with pytest.raises(RecordingError, match=what):
        gradlens.attach(stack(blocks=blocks), out=tmp_path / "run", every=every)
    assert gradlens.load(tmp_path / "run").steps["step"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("said", [True, False])
def test_a_recording_that_goes_on_says_so_unless_the_user_said_where(tmp_path, said):
    interrupted(stack(), tmp_path / "run")
    with gradlens.attach(stack(), out=tmp_path / "run") as lens:
        if said:
            lens.start_at(3)
        train(stack(), steps=1, lens=lens)
        assert any("goes on at step 3" in problem for problem in lens.audit().problems()) != said
