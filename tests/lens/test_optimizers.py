"""What counts as a step, and which gradient is recorded: clipping, closures, several optimizers, late gradients."""

import pytest
import torch
from torch import nn

import gradlens
from tests.lens.networks import WIDTH, Block, stack
from tests.lens.passes import backward, loss_of, vectors


def sgd(model: nn.Module, **options) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05, **options)


def loop(model, optimizer, steps=3, before_step=None, lens=None) -> None:
    for step in range(steps):
        optimizer.zero_grad()
        backward(model, vectors(step))
        if before_step is not None:
            before_step()
        optimizer.step()
        if lens is not None:
            lens.step()


@pytest.mark.parametrize("by", ["the optimizer", "step()", "both"])
def test_steps_are_counted_once_whoever_counts_them(by):
    model = stack()
    optimizer = sgd(model)
    with gradlens.attach(model, optimizer=None if by == "step()" else optimizer) as lens:
        loop(model, optimizer, 4, lens=None if by == "the optimizer" else lens)
    assert lens.recording.steps["step"].tolist() == [0, 1, 2, 3]
    assert lens.recording.norms.groupby("step").size().tolist() == [4] * 4
    assert lens.audit().problems() == []


@pytest.mark.parametrize("every", [1, 2])
def test_gradients_are_those_before_clipping_and_the_coefficient_is_by_how_much(every):
    model, norms = stack(), []
    optimizer = sgd(model)
    with gradlens.attach(model, optimizer=optimizer, every=every) as lens:
        loop(model, optimizer, 4, lambda: norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), 0.01))))
    steps = lens.recording.steps
    assert steps["grad_norm"].tolist() == pytest.approx(norms[::every], rel=1e-5)
    assert steps["clip_coef"].tolist() == pytest.approx([0.01 / norm for norm in norms[::every]], rel=1e-3)


def test_gradients_that_were_not_clipped_have_the_coefficient_one():
    model = stack()
    optimizer = sgd(model)
    with gradlens.attach(model, optimizer=optimizer) as lens:
        loop(model, optimizer, 2, lambda: nn.utils.clip_grad_norm_(model.parameters(), 1e6))
    assert lens.recording.steps["clip_coef"].tolist() == pytest.approx([1, 1], rel=1e-5)


def test_clipping_by_value_is_no_factor():
    model = stack()
    optimizer = sgd(model)
    with gradlens.attach(model, optimizer=optimizer) as lens:
        loop(model, optimizer, 2, lambda: nn.utils.clip_grad_value_(model.parameters(), 1e-3))
    assert lens.recording.steps["clip_coef"].isna().all()


def test_a_gradient_that_arrives_last_is_in_the_row():
    """The first parameter's gradient comes at the very end of backward, after every norm's."""
    model = stack()
    order = []
    for name, parameter in model.named_parameters():
        parameter.register_post_accumulate_grad_hook(lambda p, name=name: order.append(name))
    with gradlens.attach(model) as lens:
        backward(model, vectors(0))
        lens.step()
    assert order[-1] in ("0.weight", "0.bias")
    params = lens.recording.params.set_index("name")
    for name, parameter in model.named_parameters():
        assert params.loc[name, "grad_norm"] == pytest.approx(float(parameter.grad.norm()), rel=1e-5)


def test_gradients_that_stay_over_several_optimizer_steps_are_recorded_as_they_stand():
    model = stack()
    optimizer = sgd(model)
    expected = []
    with gradlens.attach(model, optimizer=optimizer) as lens:
        for step in range(3):  # no zero_grad: they add up
            backward(model, vectors(step))
            expected.append(float(model[0].weight.grad.norm()))
            optimizer.step()
    got = lens.recording.params.query("name == '0.weight'")["grad_norm"].tolist()
    assert got == pytest.approx(expected, rel=1e-5)


def closure_training(optimizer_of, steps: int = 3, **options):
    """Train by closures; returns the lens, the step of each evaluation, and each step's last gradient norm."""
    model = stack()
    optimizer = optimizer_of(model)
    evaluations, last = [], []
    with gradlens.attach(model, optimizer=optimizer, **options) as lens:
        for step in range(steps):

            def closure(step=step):
                optimizer.zero_grad()
                loss = backward(model, vectors(step))
                evaluations.append(step)
                grads = [p.grad.norm() for p in model.parameters()]
                last[step:] = [float(torch.stack(grads).norm())]
                return loss

            optimizer.step(closure)
    return lens, evaluations, last


@pytest.mark.parametrize("kind", ["SGD", "LBFGS"])
def test_a_closure_is_part_of_the_step_that_calls_it(kind):
    optimizers = {
        "SGD": sgd,
        "LBFGS": lambda model: torch.optim.LBFGS(model.parameters(), lr=0.05, max_iter=3),
    }
    lens, evaluations, last = closure_training(optimizers[kind])
    recording = lens.recording
    assert recording.steps["step"].tolist() == [0, 1, 2]
    assert recording.steps["grad_norm"].tolist() == pytest.approx(last, rel=1e-5)
    for step in range(3):
        # Each evaluation zeroes the gradients of the one before: the rows are of the last one.
        rows = recording.norms.query(f"step == {step}")
        assert rows["call"].tolist() == [0] * 4
        assert set(rows["vectors"]) == {20}
    assert lens.audit().problems() == []
    thrown_away = len(evaluations) - 3
    assert (f"thrown away before the last one that counts ({thrown_away}," in str(lens.audit())) == (kind == "LBFGS")


@pytest.mark.parametrize("counted", ["by the optimizer", "by step()"])
def test_learning_rate_and_clipping_of_a_closure_belong_to_its_own_step(counted):
    """The optimizer's hook runs before the closure has computed anything."""
    model, norms = stack(), []
    optimizer = sgd(model)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)

    def closure():
        optimizer.zero_grad()
        loss = backward(model, vectors(len(norms)))
        norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), 0.01)))
        return loss

    with gradlens.attach(model, optimizer=optimizer) as lens:
        for _ in range(3):
            optimizer.step(closure)
            if counted == "by step()":
                lens.step()
            schedule.step()
    steps = lens.recording.steps
    assert steps["step"].tolist() == [0, 1, 2]
    assert steps["lr"].tolist() == pytest.approx([0.05, 0.025, 0.0125])
    assert steps["grad_norm"].tolist() == pytest.approx(norms, rel=1e-5)
    assert steps["clip_coef"].tolist() == pytest.approx([0.01 / norm for norm in norms], rel=1e-3)
    assert lens.audit().problems() == []


class Critic(nn.Module):
    """Both networks of a GAN in one module; neither's forward is the whole model's."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.generator, self.critic = stack(Block, 1), nn.Sequential(stack(Block, 1), nn.Linear(WIDTH, 1))


@pytest.mark.parametrize("counted", ["by step()", "by each one's optimizer"])
def test_two_networks_with_an_optimizer_each_are_watched_by_a_lens_each(counted):
    gan = Critic()
    networks = {"generator": gan.generator, "critic": gan.critic}
    optimizers = {name: sgd(network) for name, network in networks.items()}
    own = counted == "by each one's optimizer"
    lenses = {
        name: gradlens.attach(network, optimizer=optimizers[name] if own else None)
        for name, network in networks.items()
    }
    expected = {name: [] for name in networks}

    def update(name: str, loss: torch.Tensor) -> None:
        optimizers[name].zero_grad()
        loss.backward()
        expected[name].append(float(torch.stack([p.grad.norm() for p in networks[name].parameters()]).norm()))
        optimizers[name].step()
        if not own:
            lenses[name].step()

    for step in range(3):
        real, noise = vectors(step), vectors(step + 50)
        fake = gan.generator(noise)
        update("critic", gan.critic(fake.detach()).mean() - gan.critic(real).mean())
        update("generator", -gan.critic(gan.generator(noise)).mean())
    for name, lens in lenses.items():
        lens.detach()
        assert lens.recording.steps["step"].tolist() == [0, 1, 2]
        assert lens.recording.steps["grad_norm"].tolist() == pytest.approx(expected[name], rel=1e-5), name
        # What the generator's update sent through the critic changed no parameter of it, and is not its gradient.
        assert not [problem for problem in lens.audit().problems() if "end of backward" in problem]


def test_one_lens_over_both_networks_sees_the_gradients_of_both():
    gan = Critic()
    optimizer = sgd(gan)
    with gradlens.attach(gan, optimizer=optimizer) as lens:
        for step in range(2):
            optimizer.zero_grad()
            gan.critic(gan.generator(vectors(step))).mean().backward()
            optimizer.step()
    assert lens.recording.norms.groupby("step").size().tolist() == [4, 4]
    params = lens.recording.params.query("step == 1").set_index("name")
    for name, parameter in gan.named_parameters():
        assert params.loc[name, "grad_norm"] == pytest.approx(float(parameter.grad.norm()), rel=1e-5, abs=1e-9), name


def test_an_optimizer_over_a_part_of_the_parameters_does_not_hide_the_others():
    model = stack()
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1)
    with gradlens.attach(model, optimizer=optimizer) as lens:
        loop(model, optimizer, 2)
    assert lens.recording.params["grad_norm"].notna().all()


@pytest.mark.parametrize("counted", ["by the optimizer", "by step()"])
def test_an_evaluation_of_a_part_of_the_model_is_not_recorded(counted):
    """Validation that does not go through the whole model's forward, as a method of the model's own does."""
    model = stack()
    optimizer = sgd(model)
    with gradlens.attach(model, optimizer=optimizer if counted == "by the optimizer" else None) as lens:
        for step in range(2):
            optimizer.zero_grad()
            backward(model, vectors(step))
            with torch.no_grad():
                model[1](vectors(9))
            optimizer.step()
            with torch.no_grad():
                model[1](vectors(9))
            if counted == "by step()":
                lens.step()
    assert lens.recording.norms.groupby("step").size().tolist() == [4, 4]
    assert set(lens.recording.norms["vectors"]) == {20}


def test_updates_are_measured_with_every_kind_of_optimizer():
    for options in ({"foreach": True}, {"fused": True}, {"foreach": False}):
        model = stack()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, **options)
        before = model[0].weight.detach().clone()
        with gradlens.attach(model, optimizer=optimizer, watch=("params", "updates")) as lens:
            loop(model, optimizer, 1)
        change = float((model[0].weight.detach() - before).norm())
        row = lens.recording.params.set_index("name").loc["0.weight"]
        assert row["update_norm"] == pytest.approx(change, rel=1e-4)
        assert loss_of(model(vectors(0))).isfinite()


@pytest.mark.parametrize("closes", ["first", "second"])
def test_the_update_of_a_weight_is_that_of_its_own_optimizer_in_the_step_and_missing_where_it_has_not_stepped(closes):
    gan = Critic()
    own = {"first": sgd(gan.generator), "second": sgd(gan.critic)}
    networks = {"first": gan.generator, "second": gan.critic}
    weights = {name: [] for name in own}
    with gradlens.attach(gan, optimizer=own[closes], watch=("params", "updates")) as lens:
        for step in range(3):
            for name in own:
                gan.zero_grad()
                gan.critic(gan.generator(vectors(step))).square().mean().backward()
                before = [p.detach().clone() for p in networks[name].parameters()]
                own[name].step()
                pairs = zip(networks[name].parameters(), before, strict=True)
                weights[name].append([float((now.detach() - then).norm()) for now, then in pairs])
    names = {"first": "generator.", "second": "critic."}
    for step in range(3):
        rows = lens.recording.params.query(f"step == {step}")
        for which, prefix in names.items():
            updates = rows[rows["name"].str.startswith(prefix)]["update_norm"].tolist()
            if which == closes:
                expected = weights[which][step]
            elif closes == "second":
                expected = weights[which][step]  # it stepped before, in the same step of the lens
            else:
                # Its step of the round before is in this one's; in the first there was none.
                expected = weights[which][step - 1] if step else [float("nan")] * len(updates)
            assert updates == pytest.approx(expected, rel=1e-4, nan_ok=True), (step, which)


def test_the_update_of_sharpness_aware_minimization_is_what_is_left_of_it():
    """The weights stand elsewhere when the gradient comes that the optimizer uses."""
    model = stack()
    optimizer = sgd(model)
    with gradlens.attach(model, optimizer=optimizer, watch=("params", "updates")) as lens:
        before = model[0].weight.detach().clone()
        backward(model, vectors(0))
        with torch.no_grad():
            model[0].weight.add_(1.0)
        optimizer.zero_grad()
        backward(model, vectors(0))
        with torch.no_grad():
            model[0].weight.sub_(1.0)
        optimizer.step()
    change = float((model[0].weight.detach() - before).norm())
    row = lens.recording.params.set_index("name").loc["0.weight"]
    assert row["update_norm"] == pytest.approx(change, rel=1e-4)


class Wrapper(torch.optim.Optimizer):
    """An optimizer around another, as accelerate's: it was never initialized as one, and has no hooks."""

    def __init__(self, optimizer, scaler=None):
        self.optimizer, self.scaler = optimizer, scaler

    def step(self, closure=None):
        self.optimizer.step() if self.scaler is None else (self.scaler.step(self.optimizer), self.scaler.update())

    def zero_grad(self, set_to_none=True):
        self.optimizer.zero_grad()


@pytest.mark.parametrize("depth", [1, 2])
def test_an_optimizer_that_wraps_another_stands_for_it(depth):
    recordings = []
    for wraps in (0, depth):
        model = stack()
        optimizer = sgd(model)
        for _ in range(wraps):
            optimizer = Wrapper(optimizer)
        with gradlens.attach(model, optimizer=optimizer) as lens:
            loop(model, optimizer, 3)
        recordings.append(lens.recording.steps.drop(columns="seconds"))
    assert recordings[1].equals(recordings[0])
    assert recordings[1]["lr"].tolist() == [0.05] * 3


def test_the_scaler_that_an_optimizers_wrapper_holds_is_divided_out():
    found = []
    for wrapped in (True, False):
        model, scaler = stack(), torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=wrapped)
        optimizer = Wrapper(sgd(model), scaler) if wrapped else sgd(model)
        with gradlens.attach(model, optimizer=optimizer) as lens:
            for step in range(2):
                optimizer.zero_grad()
                scaler.scale(loss_of(model(vectors(step)))).backward()
                optimizer.step()
        found.append(lens.recording.steps)
    assert found[0]["loss_scale"].tolist() == [1024.0] * 2
    assert found[0]["grad_norm"].tolist() == pytest.approx(found[1]["grad_norm"].tolist(), rel=1e-6)
