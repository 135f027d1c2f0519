"""What every task of the registry keeps to, so that a newcomer is tested by its line in TASKS."""

import json

import pytest
import torch

from gradlens.batches import run_model, to_device
from gradlens.errors import GradlensError, ModelError
from gradlens.lab.tasks import TASKS
from gradlens.lab.tasks.held_out import held_out_loss
from gradlens.lab.tasks.task import Task

SIZE = {"width": 16, "blocks": 1, "heads": 2}
SHAPE = {"batch_size": 2, "length": 12}


@pytest.fixture(scope="module", params=TASKS)
def task(request: pytest.FixtureRequest) -> Task:
    try:
        return TASKS[request.param]()
    except GradlensError as absent:
        pytest.skip(str(absent))


def build(task: Task, norm: str = "layernorm", **size) -> torch.nn.Module:
    """Return the task's small model, in the first arrangement that it takes."""
    for arrangement in ("pre-ln", "plain"):
        try:
            return task.model(f"{arrangement}/{norm}", **SIZE, **size)
        except ModelError as refused:
            said = refused
    raise said


def leaves(batch) -> list[torch.Tensor]:
    return torch.utils._pytree.tree_leaves(batch)


def same(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(leaves(a), leaves(b), strict=True))


def test_a_batch_is_a_pure_function_of_its_arguments(task):
    first = task.batch(3, seed=5, **SHAPE)
    torch.manual_seed(99)
    assert same(first, TASKS[task.name]().batch(3, seed=5, **SHAPE))
    assert not same(first, task.batch(4, seed=5, **SHAPE))
    assert not same(first, task.batch(3, seed=6, **SHAPE))
    assert not same(first, task.batch(3, seed=5, split="valid", **SHAPE))


def test_the_description_is_json_and_says_where_the_data_comes_from(task):
    about = task.describe()
    assert json.loads(json.dumps(about)) == about
    assert about["name"] == task.name
    assert {"version", "sha256", "origin", "licence", "unit"} <= about.keys()


@pytest.mark.parametrize("norm", ["layernorm", "adanorm"])
def test_its_model_takes_its_batches_and_every_parameter_gets_a_gradient(task, norm):
    model = build(task, norm)
    batch = task.batch(0, seed=0, **SHAPE)
    loss = task.loss(run_model(model, batch), batch)
    loss.backward()
    assert loss.shape == ()
    assert torch.isfinite(loss)
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_evaluation_leaves_the_model_and_the_random_numbers_as_they_were(task):
    model = build(task, dropout=0.5)
    next(module for module in model.modules() if isinstance(module, torch.nn.Dropout)).eval()
    flags = [module.training for module in model.modules()]
    weights = {name: p.clone() for name, p in model.named_parameters()}
    state = torch.get_rng_state()
    metrics = [task.evaluate(model, batches=2, device="cpu", **SHAPE) for _ in range(2)]
    assert metrics[0] == metrics[1]
    assert "valid_loss" in metrics[0]
    assert [module.training for module in model.modules()] == flags
    assert all(torch.equal(p, weights[name]) and p.grad is None for name, p in model.named_parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_the_held_out_loss_is_the_mean_over_validation_batches(task):
    model = build(task).double().eval()
    losses = []
    for index in range(3):
        batch = task.batch(index, seed=0, split="valid", **SHAPE)
        losses.append(task.loss(run_model(model, batch), batch).item())
    measured = held_out_loss(task, model, batches=3, device="cpu", **SHAPE)
    assert measured == pytest.approx(sum(losses) / 3, rel=1e-6)


def test_a_failed_evaluation_puts_the_training_flags_back(task):
    class Broken(torch.nn.Module):
        def forward(self, *batch, **more):
            raise ValueError("broken")

    model = Broken()
    with pytest.raises(ValueError, match="broken"):
        task.evaluate(model, batches=1, device="cpu", **SHAPE)
    assert model.training


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        (torch.tensor([1.0]), ((1.0,), {})),
        ((torch.tensor([1.0]), torch.tensor([2.0])), ((1.0, 2.0), {})),
        ({"a": torch.tensor([1.0]), "b": torch.tensor([2.0])}, ((), {"a": 1.0, "b": 2.0})),
    ],
)
def test_a_batch_reaches_forward_as_one_as_positional_or_as_keyword_arguments(batch, expected):
    class Spy(torch.nn.Module):
        def forward(self, *args, **kwargs):
            return tuple(map(float, args)), {name: float(value) for name, value in kwargs.items()}

    assert run_model(Spy(), to_device(batch, "cpu")) == expected


def test_a_batch_of_any_form_goes_to_the_device():
    one = torch.ones(1)
    for batch in (one, (one, one), {"a": one}):
        moved = to_device(batch, "meta")
        assert type(moved) is type(batch)
        assert {tensor.device.type for tensor in leaves(moved)} == {"meta"}
