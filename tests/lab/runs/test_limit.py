"""Runs at multiples of the learning rate that was predicted to be the largest stable one for them."""

import dataclasses
import math

import pandas as pd
import pytest
import torch

from analyses.papers.xiong2020 import ANALYSES
from gradlens.errors import GradlensError, RecordingError, UnknownNameError
from gradlens.lab.runs.jobs import Run
from gradlens.lab.runs.limit import LimitRun
from gradlens.lab.runs.runner import run_jobs
from gradlens.lab.tasks import TASKS
from gradlens.lab.training.config import TrainingConfig
from gradlens.lab.training.seeding import fan_out
from gradlens.probes.learning_rate import learning_rate_limit
from gradlens.probes.reading import Reading
from gradlens.recording.folder import read_manifest
from tests.lab.runs.test_runner import MANIFEST

SIZE = {"width": 16, "blocks": 2, "heads": 2}
CONFIG = TrainingConfig(steps=4, batch_size=2, length=16, evaluate_every=0, device="cpu", seed=3)
OPTIMIZERS = {
    "sgd": dataclasses.replace(CONFIG, optimizer="sgd"),
    "momentum": dataclasses.replace(CONFIG, optimizer="sgd", momentum=0.9),
    "adam": CONFIG,
}


def planned(factor=0.5, config=OPTIMIZERS["sgd"], by="edge"):
    facts = {"task": "lm", "variant": "pre-ln", "size": SIZE}
    return LimitRun(key="a", label=f"x{factor}", config=config, by=by, factor=factor, **facts)


def grid(jobs, out):
    return run_jobs(jobs, out, MANIFEST, at_a_time=1)


def initially():
    """The task of the run, its model and its first batches, as the seeds have them."""
    task, seeds = TASKS["lm"](), fan_out(3)
    torch.manual_seed(seeds.model)
    return (
        task,
        task.model("pre-ln", **SIZE),
        [task.batch(i, seed=seeds.data, batch_size=2, length=16) for i in range(4)],
    )


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_learning_rate_is_a_multiple_of_the_limit_of_the_model_it_begins_with(tmp_path, optimizer):
    config = OPTIMIZERS[optimizer]
    (run,) = grid([planned(2, config)], tmp_path / "g")
    limit = run.meta["limit"]
    assert (limit["by"], limit["factor"], limit["optimizer"]) == ("edge", 2, optimizer)
    assert list(run.steps["lr"]) == [2 * limit["predicted"]] * 4
    # The same model and batches as the trainer's: its first loss is theirs.
    task, model, batches = initially()
    assert run.steps["loss"][0] == pytest.approx(task.loss(model(batches[0]), batches[0]).item(), rel=1e-6)
    reading = learning_rate_limit(model, batches, task.loss, optimizer=optimizer, momentum=0.9, seed=3)
    assert limit["predicted"] == pytest.approx(reading.value, rel=1e-3)
    assert [row["name"] for row in limit["readings"]] == [reading.name]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_by_trial_it_is_a_multiple_of_the_largest_rate_that_twenty_steps_survive(tmp_path, optimizer):
    """The oracle trains by hand: twenty steps end below the first loss at that rate, and do not at twice that."""
    config = OPTIMIZERS[optimizer]
    (run,) = grid([planned(2, config, "trial")], tmp_path / "g")
    limit = run.meta["limit"]
    assert limit["by"] == "trial"
    assert list(run.steps["lr"]) == [2 * limit["predicted"]] * 4
    edge, survived = limit["readings"]
    assert (edge["probe"], survived["probe"], survived["value"]) == ("learning_rate", "trial", limit["predicted"])
    factor = math.log2(survived["value"] / edge["value"])
    assert factor == pytest.approx(round(factor), abs=1e-6)
    assert survives_by_hand(config, limit["predicted"])
    assert not survives_by_hand(config, 2 * limit["predicted"])


def survives_by_hand(config, lr):
    task, model, batches = initially()
    if config.optimizer == "adam":
        optimizer = torch.optim.Adam(model.parameters(), lr=lr, betas=config.betas)
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=config.momentum)
    losses = [task.loss(model(batch), batch).item() for batch in batches]
    before = sum(losses) / 4
    for step in range(20):
        batch = batches[step % 4]
        optimizer.zero_grad()
        loss = task.loss(model(batch), batch)
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
    return all(map(math.isfinite, losses)) and sum(losses[-4:]) / 4 < before


def test_a_finished_run_is_reused_without_another_prediction(tmp_path, monkeypatch):
    (run,) = grid([planned()], tmp_path / "g")
    monkeypatch.setattr("gradlens.probes.learning_rate.learning_rate_limit", None)
    (again,) = grid([planned()], tmp_path / "g")
    pd.testing.assert_frame_equal(run.steps, again.steps)


def test_one_that_was_cut_off_goes_on_at_the_same_learning_rate(tmp_path, monkeypatch):
    config = dataclasses.replace(CONFIG, checkpoint_every=2)

    def interrupt(event):
        if event.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_jobs([planned(config=config)], tmp_path / "g", MANIFEST, at_a_time=1, on_event=interrupt)
    begun = read_manifest(tmp_path / "g/runs/a")["limit"]
    monkeypatch.setattr("gradlens.probes.learning_rate.learning_rate_limit", None)
    (run,) = grid([planned(config=config)], tmp_path / "g")
    assert run.meta["limit"] == begun
    assert run.steps["lr"].nunique() == 1
    assert run.meta["status"] == "complete"


def test_another_multiple_of_it_is_another_run(tmp_path):
    grid([planned(0.5)], tmp_path / "g")
    with pytest.raises(RecordingError, match=r"training\.lr is"):
        grid([planned(0.25)], tmp_path / "g")


def test_another_prediction_of_it_is_another_run(tmp_path):
    grid([planned()], tmp_path / "g")
    with pytest.raises(RecordingError, match=r"training\.lr is"):
        grid([planned(by="trial")], tmp_path / "g")


NOTHING = {
    "edge": ("learning_rate.learning_rate_limit", lambda *_, **__: Reading(probe="p", name="n", value=math.inf)),
    "trial": ("trial.trial", lambda *_, **__: (_ for _ in ()).throw(GradlensError("no rate is survived"))),
}


@pytest.mark.parametrize("by", NOTHING)
def test_where_nothing_can_be_predicted_the_grid_goes_on_and_no_analysis_takes_it(tmp_path, monkeypatch, by):
    name, instead = NOTHING[by]
    monkeypatch.setattr(f"gradlens.probes.{name}", instead)
    plain = Run(key="b", label="plain", config=CONFIG, task="lm", variant="pre-ln", size=SIZE)
    without, trained = grid([planned(by=by), plain], tmp_path / "g")
    assert (without.meta["kind"], without.meta["status"]) == ("unpredicted", "complete")
    assert without.steps.empty
    assert ("upwards" if by == "edge" else "survived") in without.meta["no_limit"]
    assert len(trained.steps) == 4
    assert not any(without.meta["kind"] in analysis.kinds for analysis in ANALYSES)
    monkeypatch.undo()  # it is not predicted again
    (again, _) = grid([planned(by=by), plain], tmp_path / "g")
    assert again.meta["no_limit"] == without.meta["no_limit"]
    with pytest.raises(RecordingError, match=r"operand\.factor is 0\.5, not 2"):
        grid([planned(2, by=by)], tmp_path / "g")


def test_a_model_that_cannot_be_predicted_for_by_mistake_is_an_error(tmp_path):
    config = dataclasses.replace(CONFIG, optimizer="adamw")
    with pytest.raises(UnknownNameError):
        grid([planned(config=config)], tmp_path / "g")
