import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import gradlens
from gradlens.errors import GradlensError, ModelError
from gradlens.lab.training.seeding import fan_out
from gradlens.lab.training.trainer import Progress, choose_device


def same_weights(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def _initial(trial, variant: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(fan_out(0).model)
    return trial.build(variant).state_dict()


class Spy:
    """A task that remembers the batches it gave, and lets a test replace the loss."""

    def __init__(self, task, loss=None):
        self.task, self.batches, self.replaced = task, [], loss
        self.name, self.uniform_loss = task.name, task.uniform_loss

    def __getattr__(self, name):
        return getattr(self.task, name)

    def batch(self, index, **how):
        self.batches.append(self.task.batch(index, **how))
        return self.batches[-1]

    def loss(self, output, batch):
        loss = self.task.loss(output, batch)
        return loss if self.replaced is None else self.replaced(loss)


def test_a_recording_has_one_row_a_step_with_its_loss_and_learning_rate(trial):
    recording = trial(steps=5, warmup=4, lr=0.4)
    assert recording.steps["step"].tolist() == list(range(5))
    assert recording.steps["lr"].tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])
    assert np.isfinite(recording.steps["loss"]).all()
    assert set(recording.norms["step"]) == set(recording.params["step"]) == set(range(5))


def test_the_metadata_says_what_was_trained_on_what_and_how(trial):
    meta = trial(variant="post-ln/adanorm", steps=2, warmup=1, seed=3, label="a name").meta
    assert (meta["kind"], meta["status"], meta["label"]) == ("training", "complete", "a name")
    assert (meta["variant"], meta["schedule"], meta["seeds"]) == ("post-ln/adanorm", "warm-up", [3])
    assert meta["model"] == trial.models[-1].describe()
    assert meta["task"] == trial.task.describe()
    assert meta["training"]["lr"] == 3e-3
    assert meta["device"] == "cpu"


def test_training_is_the_loop_anybody_would_write_bit_for_bit(trial):
    recording = trial(steps=6, warmup=3, clip=0.5)

    config, seeds = trial.config(steps=6, warmup=3, clip=0.5), fan_out(0)
    torch.manual_seed(seeds.model)
    model = trial.build()
    optimizer = torch.optim.Adam(model.parameters(), betas=(0.9, 0.98))
    losses = []
    for step in range(6):
        optimizer.param_groups[0]["lr"] = config.lr * min(1.0, (step + 1) / 3)
        torch.manual_seed(seeds.dropout(step))
        tokens = trial.task.batch(step, seed=seeds.data, batch_size=2, length=16)
        loss = trial.task.loss(model(tokens), tokens)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert recording.steps["loss"].tolist() == losses
    assert same_weights(trial.models[0].state_dict(), model.state_dict())


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(trial):
    first, weights = trial(seed=4), trial.weights()
    torch.manual_seed(123)
    second = trial(seed=4)
    assert first.steps["loss"].equals(second.steps["loss"])
    assert first.params["grad_norm"].equals(second.params["grad_norm"])
    assert same_weights(weights, trial.weights())
    assert not np.isclose(trial(seed=5).steps["loss"], first.steps["loss"]).any()


def test_every_variant_starts_from_the_same_matrices_and_sees_the_same_batches(trial):
    seen = []
    for variant in ("pre-ln", "post-ln/none"):
        spy = Spy(trial.task)
        trial(variant=variant, task=spy, steps=3)
        seen.append(spy.batches)
    assert len(seen[0]) == 3
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))
    pre, post = (_initial(trial, variant) for variant in ("pre-ln", "post-ln/none"))
    shared = pre.keys() & post.keys()
    assert {"embedding", "head", "blocks"} <= {name.split(".")[0] for name in shared}
    assert same_weights({n: pre[n] for n in shared}, {n: post[n] for n in shared})


def test_accumulated_micro_batches_act_as_one_batch_of_their_mean_loss(trial):
    recording = trial(steps=2, accumulation=3, clip=None)
    seeds = fan_out(0)
    torch.manual_seed(seeds.model)
    model = trial.build()
    torch.manual_seed(seeds.dropout(0))
    batches = [trial.task.batch(i, seed=seeds.data, batch_size=2, length=16) for i in range(3)]
    loss = torch.stack([trial.task.loss(model(tokens), tokens) for tokens in batches]).mean()
    loss.backward()
    assert recording.steps["loss"][0] == pytest.approx(float(loss.detach()), rel=1e-6)
    recorded = recording.params.query("step == 0").set_index("name")["grad_norm"]
    for name, parameter in model.named_parameters():
        assert recorded[name] == pytest.approx(float(parameter.grad.norm()), rel=1e-4)


def test_no_batch_is_used_twice_with_accumulation(trial):
    spy = Spy(trial.task)
    trial(task=spy, steps=4, accumulation=3)
    assert len({batch.numpy().tobytes() for batch in spy.batches}) == 12


def test_the_gradient_is_recorded_before_clipping_and_the_coefficient_beside_it(trial):
    free, clipped = trial(steps=1, clip=1e9), trial(steps=1, clip=0.01)
    assert clipped.steps["grad_norm"][0] == free.steps["grad_norm"][0] > 0.01
    assert clipped.steps["clip_coef"][0] == pytest.approx(0.01 / free.steps["grad_norm"][0], rel=1e-3)
    assert free.steps["clip_coef"][0] == pytest.approx(1, rel=1e-6)
    assert clipped.steps.columns.is_unique


def test_held_out_metrics_are_there_on_the_steps_they_are_due_and_the_last(trial):
    steps = trial(steps=5, evaluate_every=2, evaluation_batches=2).steps.set_index("step")
    assert steps["valid_loss"].dropna().index.tolist() == [1, 3, 4]
    metrics = trial.task.evaluate(trial.models[-1], batches=2, batch_size=2, length=16, device="cpu")
    assert steps["valid_loss"][4] == metrics["valid_loss"]
    assert steps["bits_per_byte"][4] == metrics["bits_per_byte"]


def test_evaluation_changes_nothing_that_is_trained_or_recorded(trial):
    without, weights = trial(steps=4), trial.weights()
    with_it = trial(steps=4, evaluate_every=1)
    assert same_weights(weights, trial.weights())
    for table in ("norms", "activations", "params"):
        pd.testing.assert_frame_equal(with_it.table(table), without.table(table))


def test_a_loss_that_is_not_finite_ends_the_run_as_diverged(trial):
    recording = trial(optimizer="sgd", lr=1e6, steps=30, variant="pre-ln/none")
    losses = recording.steps["loss"]
    assert recording.meta["status"] == "diverged"
    assert len(losses) < 30
    assert np.isfinite(losses[:-1]).all()
    assert not math.isfinite(losses.iloc[-1])


def test_a_finite_loss_far_above_chance_for_twenty_steps_is_divergence_too(trial):
    chance = trial.task.uniform_loss

    def high_after_five(loss, count=[0]):  # noqa: B006
        count[0] += 1
        return loss + (4 * chance if count[0] > 5 else 0)

    recording = trial(task=Spy(trial.task, high_after_five), steps=60)
    assert recording.meta["status"] == "diverged"
    assert len(recording.steps) == 25


def test_where_a_run_diverged_is_known_whichever_steps_are_recorded(trial):
    assert trial().meta["diverged_at"] is None
    diverged = trial(lr=1e4, steps=60, every=50)
    assert diverged.meta["status"] == "diverged"
    assert diverged.meta["diverged_at"] == trial(lr=1e4, steps=60).steps["step"].max()


def test_a_high_loss_that_comes_down_again_is_no_divergence(trial):
    chance = trial.task.uniform_loss

    def high_for_nineteen(loss, count=[0]):  # noqa: B006
        count[0] += 1
        return loss + (4 * chance if count[0] % 20 else 0)

    assert trial(task=Spy(trial.task, high_for_nineteen), steps=60).meta["status"] == "complete"


def test_a_run_that_ends_with_broken_weights_is_diverged(trial):
    recording = trial(optimizer="sgd", lr=1e30, steps=1, evaluate_every=1)
    assert np.isfinite(recording.steps["loss"]).all()
    assert recording.meta["status"] == "diverged"


def test_progress_tells_step_loss_speed_and_time_left(trial):
    seen: list[Progress] = []
    recording = trial(steps=4, on_step=seen.append)
    assert [(p.step, p.steps) for p in seen] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [p.loss for p in seen] == recording.steps["loss"].tolist()
    assert all(p.seconds_left == pytest.approx((4 - p.step) / p.steps_per_second) for p in seen)
    assert all(0 < p.steps_per_second < 1e6 for p in seen)


def test_training_prints_nothing_and_leaves_the_random_numbers_alone(trial, capfd):
    state = torch.get_rng_state()
    trial(steps=2, evaluate_every=1)
    assert capfd.readouterr() == ("", "")
    assert torch.equal(torch.get_rng_state(), state)


def test_no_hook_is_left_on_the_model(trial):
    trial(steps=2)
    hooks = [module._forward_hooks | module._forward_pre_hooks for module in trial.models[-1].modules()]
    assert not any(hooks)


def test_only_every_nth_step_is_recorded(trial):
    assert trial(steps=7, every=3).steps["step"].tolist() == [0, 3, 6]


def test_evaluations_are_kept_whatever_step_they_fall_on(trial):
    every_step = trial(steps=8, evaluate_every=4).steps["valid_loss"].dropna()
    assert len(every_step) == 2
    assert trial(steps=8, evaluate_every=4, every=3).steps["valid_loss"].dropna().tolist() == every_step.tolist()


@pytest.mark.parametrize("form", [lambda x: (x,), lambda x: {"tokens": x}])
def test_a_batch_may_be_a_tuple_or_a_dict(trial, form):
    class Formed(Spy):
        def batch(self, index, **how):
            return form(self.task.batch(index, **how))

        def loss(self, output, batch):
            return self.task.loss(output, next(iter(batch.values() if isinstance(batch, dict) else batch)))

    assert trial(task=Formed(trial.task)).steps["loss"].equals(trial().steps["loss"])


def test_a_model_that_cannot_take_the_batch_is_named_with_its_own_words(trial):
    class Image(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.out = nn.LayerNorm(4), nn.Linear(4, 2)

        def forward(self, x):
            return self.out(self.norm(x.float()))

    with pytest.raises(ModelError, match=r"'lm'; Image failed on one \(RuntimeError: .*normalized_shape"):
        trial(model_fn=Image)


def test_a_function_that_builds_no_module_is_refused(trial):
    with pytest.raises(ModelError, match="returned a str"):
        trial(model_fn=lambda: "model")


def test_auto_finds_a_device_and_an_unknown_one_is_refused():
    assert choose_device("auto").type in ("cuda", "mps", "cpu")
    assert choose_device("cpu") == torch.device("cpu")
    for name in ("gpu", "cuda:99"):
        with pytest.raises(GradlensError, match=f"{name!r} is not"):
            choose_device(name)


def test_the_recording_on_disk_is_the_one_returned(trial, tmp_path):
    returned = trial(out=tmp_path / "run", steps=3)
    loaded = gradlens.load(tmp_path / "run")
    for table in ("steps", "norms", "params"):
        pd.testing.assert_frame_equal(returned.table(table), loaded.table(table))
    assert returned.meta["status"] == loaded.meta["status"] == "complete"


def test_evaluation_between_clipping_and_the_end_of_a_step_does_not_split_the_step(trial):
    steps = trial(steps=4, clip=0.01, evaluate_every=1).steps
    assert steps["step"].tolist() == [0, 1, 2, 3]
    assert steps[["loss", "valid_loss", "grad_norm", "clip_coef"]].notna().all(axis=None)


def test_a_finished_run_keeps_what_its_model_answers_where_the_task_has_something_to_show(trial, monkeypatch):
    assert "samples" not in trial().meta
    answers = [{"question": "1 + 1", "answer": "2"}]
    monkeypatch.setattr(trial.task, "samples", lambda model, device: answers, raising=False)
    assert list(trial().meta["samples"]) == answers
