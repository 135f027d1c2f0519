"""Limits against the quadratic, where they are exact, and against training itself."""

import math

import pytest
import torch
from torch import nn

from gradlens.errors import GradlensError, ModelError, UnknownNameError
from gradlens.lab.tasks.stdlib_source import StdlibSource
from gradlens.probes.answer import answer
from gradlens.probes.critical_step import critical_step
from gradlens.probes.learning_rate import learning_rate_limit
from gradlens.probes.optimizers import Plan, trained_copy
from gradlens.probes.trial import trial
from tests.probes.nets import Quadratic, mlp, own, squares

X = torch.zeros(1)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
def test_on_a_quadratic_training_ends_where_the_limit_lies(optimizer):
    model = Quadratic(5.0, 1.0, 0.1, -0.01)
    limit = learning_rate_limit(model, X, own, optimizer=optimizer)
    assert limit.value == pytest.approx((2 if optimizer == "sgd" else 3.8) / 5, rel=1e-4)
    for factor, below in ((0.98, True), (1.02, False)):
        _, losses = trained_copy(Quadratic(5.0), [X], own, Plan(kind=optimizer), factor * limit.value, 1000)
        assert (losses[-1] < losses[0]) is below


def test_adam_divides_the_curvature_by_the_root_mean_square_of_the_batches_gradients():
    class Scaled(Quadratic):
        def forward(self, x):
            return super().forward(x) * x.mean()

    batches = [torch.tensor([scale]) for scale in (1.0, 2.0, 3.0)]
    limit = learning_rate_limit(Scaled(4.0, 1.0, start=0.5), lambda index: batches[index % 3], own)
    drawn = [1.0, 2.0, 3.0, 1.0]  # four of the function
    squared = sum((4 * 0.5 * scale) ** 2 for scale in drawn) / 4
    curvature = 4 * sum(drawn) / 4 / math.sqrt(squared)
    assert limit.value == pytest.approx(38 / curvature, rel=1e-4)
    assert (limit.doubt, limit.notes) == ("", ())


def test_one_batch_for_adam_is_noted():
    assert "pass several batches" in learning_rate_limit(Quadratic(1.0, 2.0, 3.0), X, own).notes[-1]


def test_where_nothing_curves_upwards_there_is_no_limit():
    limit = learning_rate_limit(Quadratic(-1.0, -2.0, -3.0), X, own, optimizer="sgd")
    assert (limit.value, limit.high) == (math.inf, math.inf)
    total = lambda y, batch: y.sum()  # noqa: E731
    assert answer(nn.Linear(2, 2), torch.ones(1, 2), total, optimizer="sgd").lr == math.inf


@pytest.fixture(scope="module")
def task():
    return StdlibSource()


@pytest.mark.parametrize("arrangement", ["pre-ln", "post-ln"])
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_half_of_what_a_trial_survived_trains_and_eight_times_it_diverges(task, arrangement, optimizer):
    torch.manual_seed(0)
    model = task.model(arrangement, width=32, blocks=2, heads=2)
    batches = [task.batch(i, seed=1, batch_size=4, length=32) for i in range(4)]
    start = learning_rate_limit(model, batches[:2], task.loss, optimizer=optimizer).value
    survived = trial(model, batches, task.loss, optimizer=optimizer, start=start)
    assert survived.high == 2 * survived.low
    fresh = [task.batch(i, seed=2, batch_size=4, length=32) for i in range(60)]
    for factor, trains in ((0.5, True), (8, False)):
        _, losses = trained_copy(model, fresh, task.loss, Plan(kind=optimizer), factor * survived.value, 60)
        last = losses[-6:]
        assert (math.isfinite(losses[-1]) and sum(last) / len(last) < losses[0]) is trains


def test_a_trial_on_a_quadratic_brackets_the_edge_from_both_sides():
    for start in (1e-3, 30.0):
        reading = trial(Quadratic(1.0), X, own, optimizer="sgd", start=start)
        assert reading.low < 2 <= reading.high + 1e-9
    with pytest.raises(GradlensError, match="must lower the loss"):
        trial(Quadratic(0.0), X, own, optimizer="sgd", start=1.0)


@pytest.mark.parametrize(("optimizer", "expected"), [("sgd", 2 / 5), ("momentum", 2 / 5), ("adam", 2 * 0.7)])
def test_the_critical_step_of_a_quadratic(optimizer, expected):
    reading = critical_step(Quadratic(5.0, start=0.7), X, own, optimizer=optimizer)
    assert reading.low <= expected * (1 + 1e-6)
    assert reading.high >= expected * (1 - 1e-6)
    assert reading.high / reading.low < 1.07
    assert reading.forward < 40


def test_an_optimizers_own_next_update_is_taken_without_doing_it():
    model = Quadratic(1.0, 4.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.99**step)
    for _ in range(3):
        optimizer.zero_grad()
        model(X).backward()
        optimizer.step()
        schedule.step()
    weights, buffer = model.w.detach().clone(), optimizer.state[model.w]["momentum_buffer"].clone()
    curvatures = torch.tensor([1.0, 4.0])
    update = 0.9 * buffer + curvatures * weights
    slope, bend = float((curvatures * weights) @ update), float((curvatures * update) @ update)
    expected = 2 * slope / bend  # where a parabola comes back to its start
    reading = critical_step(model, X, own, optimizer=optimizer)
    assert reading.low <= expected * (1 + 1e-5)
    assert reading.high >= expected * (1 - 1e-5)
    assert torch.equal(model.w, weights)
    assert torch.equal(optimizer.state[model.w]["momentum_buffer"], buffer)


def test_in_float32_the_search_begins_above_the_noise():
    reading = critical_step(Quadratic(1e6), X, own, optimizer="sgd", double=False)
    assert (reading.low, reading.high) == (0, 1e-4)
    assert "may be rounding" in reading.notes[-1]
    assert critical_step(Quadratic(1e6), X, own, optimizer="sgd").value == pytest.approx(2e-6, rel=0.05)


def test_an_optimizer_of_other_parameters_has_no_update():
    model, x = mlp()
    other = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    with pytest.raises(GradlensError, match="holds the model's parameters"):
        critical_step(model, x, squares, optimizer=other)


def test_the_answer_names_half_the_limit_and_says_what_a_stable_start_does_not_show():
    said = answer(Quadratic(5.0, 1.0, 0.5), X, own, optimizer="sgd", lr=0.1)
    assert said.lr == pytest.approx(0.2, rel=1e-3)
    assert not said.warmup
    assert "at most 0.2 for sgd" in said.text
    assert "The first steps are stable without a warm-up at the planned 0.1" in said.text
    assert "How far training gets this does not show" in said.text
    assert [reading.probe for reading in said.readings] == ["learning_rate", "trial", "learning_rate"]
    assert said.readings[2].value == pytest.approx(said.readings[0].value, rel=1e-3)


def test_where_no_warmup_can_help_the_answer_is_a_lower_rate():
    said = answer(Quadratic(5.0, 1.0, 0.5), X, own, optimizer="sgd", lr=3.0)  # its limit is 0.4 everywhere
    assert said.warmup is False
    assert "Lower the rate: the planned 3 is more than trials survived" in said.text
    assert "A warm-up is needed" not in said.text


class Detaching(Quadratic):
    """A parabola whose second derivative autograd takes for a tenth of what it is, for the rest is detached."""

    def forward(self, x):
        return 10 * ((0.1 * self.w + 0.9 * self.w.detach()) * self.w).sum()


def test_a_limit_in_doubt_is_in_no_answer():
    limit = learning_rate_limit(Detaching(1.0, 1.0), X, own, optimizer="sgd")
    assert "a small step apart show a curvature" in limit.doubt
    said = answer(Detaching(1.0, 1.0), X, own, optimizer="sgd", lr=1e-3)
    assert [reading.probe for reading in said.readings] == ["learning_rate", "trial"]
    assert said.lr == said.readings[1].value / 2
    assert said.warmup is None
    assert "are not judged: the check of the limit speaks against it" in said.text


def test_a_curvature_that_falls_in_the_first_steps_calls_for_a_warmup():
    class Quartic(Quadratic):
        def forward(self, x):
            return self.w.pow(4).sum()

    said = answer(Quartic(1.0, 1.0, 1.0), X, own, optimizer="sgd")
    assert said.warmup
    assert said.readings[2].value > 1.5 * said.readings[0].value
    planned = answer(Quartic(1.0, 1.0, 1.0), X, own, optimizer="sgd", lr=said.readings[0].value / 10)
    assert planned.warmup is False  # far below the limit it needs none
    assert "With one, higher rates are safe" in planned.text


def test_a_curvature_that_grows_lowers_the_rate_and_no_warmup_is_advised():
    class Narrowing(Quadratic):
        def forward(self, x):  # a valley that curves the more the further down one is
            return (self.w[0].square() * (1 + self.w[1].square()) + self.w[1].sub(1.2).square()).sum()

    said = answer(Narrowing(1.0, 1.0, start=0.5), X, own, optimizer="sgd", lr=0.48)
    assert said.readings[2].value < 0.48 < said.readings[0].value
    assert said.lr <= said.readings[2].value / 2
    assert not said.warmup
    assert "a warm-up is no help" in said.text


def test_where_half_of_the_limit_diverges_the_trial_sets_the_rate():
    class Narrowing(Quadratic):
        def forward(self, x):
            return (self.w[0].square() * (1 + self.w[1].square()) + self.w[1].sub(6).square()).sum()

    said = answer(Narrowing(1.0, 1.0, start=0.5), X, own, optimizer="sgd")
    limit, survived = said.readings[:2]
    assert survived.high <= limit.value / 2
    assert said.lr <= survived.value / 2


def test_what_is_no_plan_is_refused():
    model, x = mlp()
    with pytest.raises(UnknownNameError, match="Did you mean adam"):
        learning_rate_limit(model, x, squares, optimizer="adamw")
    with pytest.raises(GradlensError, match="empty list"):
        learning_rate_limit(model, [], squares)
    with pytest.raises(GradlensError, match="positive and finite"):
        answer(model, x, squares, lr=0.0)
    with pytest.raises(GradlensError, match="positive, finite"):
        trial(model, x, squares, start=math.inf)


def test_adam_on_one_batch_is_answered_from_the_trial_alone():
    said = answer(Quadratic(5.0, 1.0, 0.5), X, own, lr=1e-4)
    (survived,) = said.readings
    assert survived.probe == "trial"
    assert said.lr == survived.value / 2
    assert said.warmup is None
    assert "Pass several batches" in said.text
    for rate, falls in ((survived.low, True), (survived.high, False)):
        _, losses = trained_copy(Quadratic(5.0, 1.0, 0.5), [X], own, Plan(), rate, 20)
        assert (losses[-1] < losses[0]) is falls


def test_a_projection_of_the_output_has_no_learning_rate():
    model, x = mlp()
    for batches in (x, [x, 2 * x]):
        with pytest.raises(ModelError, match="random direction, which has no lower bound"):
            answer(model, batches)


def test_readings_made_before_an_error_are_told():
    told = []
    with pytest.raises(GradlensError, match="must lower the loss"):
        answer(Quadratic(1.0, start=0.0), X, own, optimizer="sgd", on_reading=told.append)
    assert [reading.name for reading in told] == ["limit of sgd"]
