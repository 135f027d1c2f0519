"""Which passes a step consists of: those that make up the gradient that its last backward pass left, and no others.

Each way of training yields, for a step, the losses whose passes count; float64 autograd says what their rows must be.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import gradlens

Losses = list[tuple[nn.Module, Callable[[nn.Module], Tensor]]]

XA, X = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in (1, 2))


def network(inputs: int = 4, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(inputs, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 1)).double()


def loss(model: nn.Module, x: Tensor = X) -> Tensor:
    return (model(x) - x.sum(1, keepdim=True)).square().mean()


def expected(counted: Losses) -> dict[str, float]:
    """What the row of the norm of these passes must say: the sums over all of its vectors."""
    energy, inverse, vectors = 0.0, 0.0, 0
    for model, of in counted:
        seen: list[tuple[Tensor, Tensor]] = []
        handle = model[1].register_forward_hook(lambda norm, args, out, seen=seen: seen.append((args[0], out)))
        value = of(model)
        handle.remove()
        for grad in torch.autograd.grad(value, [out for _, out in seen]):
            energy += float(grad.square().sum())
        for x, _ in seen:
            inverse += float((x.detach().var(-1, unbiased=False) + model[1].eps).rsqrt().sum())
            vectors += len(x)
    return {"grad_output_norm": energy**0.5, "vectors": vectors, "inv_sigma": inverse / vectors}


def now(model: nn.Module, of: Callable[[nn.Module], Tensor] = loss) -> tuple[nn.Module, Callable[[nn.Module], Tensor]]:
    """A pass of the model as it is now."""
    return deepcopy(model), of


# ---------------------------------------------------------------------- ways to train, a step each


def plain(model, optimizer) -> Losses:
    counted = [now(model)]
    loss(model).backward()
    optimizer.step()
    return counted


def adversarial(model, optimizer) -> Losses:
    """The inputs that the issue of this began with."""
    xa = XA.clone().requires_grad_()
    (50 * model(xa)).square().mean().backward(inputs=[xa])
    return plain(model, optimizer)


def saliency(model, optimizer) -> Losses:
    counted = plain_without_step(model)
    x = XA.clone().requires_grad_()
    torch.autograd.grad(50 * loss(model, x), x)
    optimizer.step()
    return counted


def plain_without_step(model) -> Losses:
    loss(model).backward()
    return [now(model)]


def adversarial_training(model, optimizer) -> Losses:
    """As it is written most often: the inner passes fill the parameters' gradients, too."""
    x = X.clone()
    for _ in range(3):
        x.requires_grad_()
        (50 * loss(model, x)).backward()
        x = (x + 0.01 * x.grad.sign()).detach()
    optimizer.zero_grad()
    counted = [now(model, lambda model: loss(model, x))]
    loss(model, x).backward()
    optimizer.step()
    return counted


def in_between(model, optimizer) -> Losses:
    """An inner pass between the forward and the backward pass of the one that counts."""
    counted = [now(model)]
    value = loss(model)
    adversary = XA.clone().requires_grad_()
    (50 * model(adversary)).square().mean().backward(inputs=[adversary])
    value.backward()
    optimizer.step()
    return counted


def sharpness_aware(model, optimizer) -> Losses:
    loss(model).backward()
    change = [0.1 * p.grad for p in model.parameters()]
    with torch.no_grad():
        for p, c in zip(model.parameters(), change, strict=True):
            p.add_(c)
    optimizer.zero_grad()
    counted = [now(model)]
    loss(model).backward()
    with torch.no_grad():
        for p, c in zip(model.parameters(), change, strict=True):
            p.sub_(c)
    optimizer.step()
    return counted


def learning_rate_finder(model, optimizer) -> Losses:
    """Steps of another optimizer, and the model is put back."""
    state = deepcopy(model.state_dict())
    trial = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        trial.zero_grad()
        loss(model, XA).backward()
        trial.step()
    model.load_state_dict(state)
    optimizer.zero_grad()
    return plain(model, optimizer)


def discarded_forward(model, optimizer) -> Losses:
    loss(model, XA)
    counted = plain(model, optimizer)
    loss(model, XA)
    return counted


def accumulated(model, optimizer) -> Losses:
    counted = [now(model, lambda model, x=x: loss(model, x)) for x in (X, XA)]
    for x in (X, XA):
        loss(model, x).backward()
    optimizer.step()
    return counted


def accumulated_around_an_inner_pass(model, optimizer) -> Losses:
    counted = [now(model, lambda model, x=x: loss(model, x)) for x in (X, XA)]
    for x in (X, XA):
        adversary = x.clone().requires_grad_()
        torch.autograd.grad(50 * loss(model, adversary), adversary)
        loss(model, x).backward()
    optimizer.step()
    return counted


def clipped_in_between(model, optimizer) -> Losses:
    """Changed, and not thrown away."""
    counted = [now(model, lambda model, x=x: loss(model, x)) for x in (X, XA)]
    for x in (X, XA):
        loss(model, x).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.01)
    optimizer.step()
    return counted


def repeated_after_an_error(model, optimizer) -> Losses:
    handle = model[0].weight.register_hook(lambda grad: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        (50 * loss(model, XA)).backward()
    handle.remove()
    optimizer.zero_grad()
    return plain(model, optimizer)


def second_try_of_a_retained_graph(model, optimizer) -> Losses:
    """The first backward pass is thrown away, the forward pass is not."""
    counted = [now(model)]
    value = loss(model)
    (50 * value).backward(retain_graph=True)
    optimizer.zero_grad()
    value.backward()
    optimizer.step()
    return counted


WAYS = {
    "plain": (plain, {}),
    "backward(inputs=...)": (adversarial, {"left no gradient": 1}),
    "autograd.grad after backward": (saliency, {"left no gradient": 1}),
    "adversarial training": (adversarial_training, {"thrown away": 3}),
    "between forward and backward": (in_between, {"left no gradient": 1}),
    "sharpness-aware": (sharpness_aware, {"thrown away": 1}),
    "a finder of learning rates": (learning_rate_finder, {"thrown away": 3}),
    "a discarded forward pass": (discarded_forward, {"no backward pass came back to": 2}),
    "micro-batches": (accumulated, {}),
    "micro-batches with inner passes": (accumulated_around_an_inner_pass, {"left no gradient": 2}),
    "clipped micro-batches": (clipped_in_between, {}),
    "a backward pass that raised": (repeated_after_an_error, {"raised": 1}),
    "a retained graph": (second_try_of_a_retained_graph, {"thrown away": 1}),
}
STEPS = 2


@pytest.mark.parametrize("closed_by", ["the optimizer", "step()"])
@pytest.mark.parametrize("to_none", [True, False], ids=["None", "zeros"])
@pytest.mark.parametrize("way", WAYS)
def test_the_rows_are_of_the_passes_that_make_up_the_gradient_and_the_audit_counts_the_rest(way, to_none, closed_by):
    train, left_out = WAYS[way]
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    optimizer.zero_grad = lambda zero=optimizer.zero_grad: zero(set_to_none=to_none)
    own = closed_by == "the optimizer"
    with gradlens.attach(model, optimizer=optimizer if own else None) as lens:
        for step in range(STEPS):
            optimizer.zero_grad()
            counted = train(model, optimizer)
            gradient = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
            if not own:
                lens.step()
            (row,) = lens.recording.norms.query(f"step == {step}").to_dict("records")
            assert row["call"] == 0
            for name, exact in expected(counted).items():
                assert row[name] == pytest.approx(exact, rel=1e-9), name
            if way != "clipped micro-batches":
                assert lens.recording.steps["grad_norm"][step] == pytest.approx(float(gradient), rel=1e-9)
    audit = lens.audit()
    assert audit.problems() == []
    said = " ".join(audit.passes)
    for words, number in left_out.items():
        # A forward pass after the optimizer has closed the step belongs to the next.
        late = 1 if own and way == "a discarded forward pass" else 0
        assert f"{words}" in said
        assert f"({number * STEPS - late}, first in step 0)" in said
    assert ("Left out" in said) == bool(left_out)


def test_the_case_that_the_issue_began_with():
    model = network().float()
    with gradlens.attach(model) as lens:
        adversary = XA.float().requires_grad_()
        (50 * model(adversary)).square().mean().backward(inputs=[adversary])
        model(X.float()).square().mean().backward()
        lens.step()
    (row,) = lens.recording.norms.to_dict("records")
    exact = expected([now(model.double(), lambda model: model(X).square().mean())])
    assert row["grad_output_norm"] == pytest.approx(exact["grad_output_norm"], rel=1e-5)
    assert row["vectors"] == 8


def test_what_is_left_out_is_said_at_whatever_step_it_first_happens():
    model = network()
    with gradlens.attach(model) as lens:
        for step in range(6):
            model.zero_grad()
            if step == 4:
                x = X.clone().requires_grad_()
                torch.autograd.grad(loss(model, x), x)
            loss(model).backward()
            lens.step()
            assert ("first in step 4" in str(lens.audit())) == (step >= 4)
            assert ("first in step 4" in str(lens.recording.meta["audit"]["passes"])) == (step >= 4)


# ---------------------------------------------------------------------- two networks


class Gan(nn.Module):
    """A container whose forward is nobody's."""

    def __init__(self) -> None:
        super().__init__()
        self.generator, self.critic = network(4, seed=1), network(1, seed=2)


def parts(gan: Gan, attached: str) -> nn.Module:
    return {"generator": gan.generator, "critic": gan.critic, "both": gan}[attached]


@pytest.mark.parametrize("to_none", [True, False], ids=["None", "zeros"])
@pytest.mark.parametrize("closed_by", ["generator", "critic", "step()"])
@pytest.mark.parametrize("attached", ["generator", "critic", "both"])
def test_a_plain_gan_loop(attached, closed_by, to_none):
    """Both are zeroed before their own update; where a step ends decides which passes its gradient is of."""
    gan = Gan()
    own = {name: torch.optim.SGD(getattr(gan, name).parameters(), lr=0.01) for name in ("generator", "critic")}
    real = torch.ones(8, 1, dtype=torch.float64)
    of_critic = lambda fake: lambda critic: critic(fake).mean() - critic(real).square().mean()  # noqa: E731
    #: Network to the passes that its gradient is made of now.
    holds: dict[str, Losses] = {"generator": [], "critic": []}
    want: list[dict[str, Losses]] = []
    model = parts(gan, attached)
    with gradlens.attach(model, optimizer=own.get(closed_by)) as lens:

        def close(who: str) -> None:
            if who == closed_by:
                want.append({name: list(losses) for name, losses in holds.items()})

        for _ in range(3):
            own["critic"].zero_grad(set_to_none=to_none)
            fake = gan.generator(X).detach()
            holds["critic"] = [now(gan.critic, of_critic(fake))]
            of_critic(fake)(gan.critic).backward()
            own["critic"].step()
            close("critic")
            own["generator"].zero_grad(set_to_none=to_none)
            critic = deepcopy(gan.critic)
            holds["generator"] = [now(gan.generator, lambda generator, critic=critic: -critic(generator(X)).mean())]
            inside = gan.generator(X).detach()
            holds["critic"].append(now(gan.critic, lambda critic, inside=inside: -critic(inside).mean()))
            (-gan.critic(gan.generator(X)).mean()).backward()
            own["generator"].step()
            close("generator")
            if closed_by == "step()":
                lens.step()
                close("step()")
    norms = lens.recording.norms
    for step, losses in enumerate(want):
        if step == 0:
            continue  # what is there before the first update differs from what is there ever after
        for name in ("generator", "critic") if attached == "both" else (attached,):
            site = f"{name}.1" if attached == "both" else "1"
            rows = norms.query(f"step == {step} and site == '{site}'")
            exact = expected(losses[name])
            if attached == "both" and closed_by == "critic" and name == "critic":
                continue  # the generator's update is a part of the gradient: that of the generator is there still
            assert rows["vectors"].sum() == exact["vectors"], (step, name)
            energy = rows["grad_output_norm"].pow(2).sum()
            assert energy**0.5 == pytest.approx(exact["grad_output_norm"], rel=1e-9), (step, name)
    assert lens.audit().problems() == []


# ---------------------------------------------------------------------- gradients that nobody sees, and that count


def test_optimizers_that_step_inside_of_backward_count_and_a_pass_that_moves_no_weight_does_not():
    model = network()
    optimizers = {p: torch.optim.SGD([p], lr=0.01) for p in model.parameters()}

    def step_now(parameter: nn.Parameter) -> None:
        optimizers[parameter].step()
        optimizers[parameter].zero_grad()

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(step_now)
    with gradlens.attach(model) as lens:
        for _ in range(2):
            x = XA.clone().requires_grad_()
            (50 * loss(model, x)).backward(inputs=[x])
            counted = [now(model)]
            loss(model).backward()
            lens.step()
    exact = expected(counted)
    row = lens.recording.norms.query("step == 1").iloc[0]
    assert row["vectors"] == exact["vectors"]
    assert row["grad_output_norm"] == pytest.approx(exact["grad_output_norm"], rel=1e-9)
    assert "left no gradient in the parameters (2, first in step 0)" in str(lens.audit())


def test_in_a_model_without_trainable_parameters_every_pass_counts_and_the_audit_says_so():
    model, prompt = network().requires_grad_(False), nn.Parameter(X.clone())
    with gradlens.attach(model) as lens:
        for scale in (1, 2):
            (scale * loss(model, prompt)).backward()
        lens.step()
    exact = expected([(model, lambda m, s=s: s * loss(m, X.clone().requires_grad_())) for s in (1, 2)])
    (row,) = lens.recording.norms.to_dict("records")
    assert row["grad_output_norm"] == pytest.approx(exact["grad_output_norm"], rel=1e-9)
    assert "no backward pass was seen to leave a gradient" in str(lens.audit())


def test_gradients_that_were_never_zeroed_are_a_sum_over_steps_and_the_audit_says_from_which_step():
    model = network()
    with gradlens.attach(model) as lens:
        for step in range(4):
            if step < 2:
                model.zero_grad()
            loss(model).backward()
            lens.step()
    (problem,) = lens.audit().problems()
    assert "when step 2 began" in problem
    assert "sum over steps" in problem


def test_several_losses_on_one_graph_are_said_to_add_their_energies():
    model = network()
    with gradlens.attach(model) as lens:
        for step in range(3):
            model.zero_grad()
            y = model(X)
            if step:
                y.mean().backward(retain_graph=True)
            y.square().mean().backward()
            lens.step()
    (problem,) = lens.audit().problems()
    assert "first in step 1" in problem
    assert "energies are added" in problem
    counted = [(model, lambda model: model(X).mean()), (model, lambda model: model(X).square().mean())]
    row = lens.recording.norms.query("step == 2").iloc[0]
    assert row["grad_output_norm"] == pytest.approx(expected(counted)["grad_output_norm"], rel=1e-9)
    assert row["vectors"] == 8


# ---------------------------------------------------------------------- looking away


@pytest.mark.parametrize("inside", ["forward and backward", "forward", "backward", "a training"])
def test_what_runs_while_the_lens_is_paused_is_left_out(inside):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def run() -> Iterator[None]:
        value = 50 * loss(model, XA)
        yield
        value.backward()

    with gradlens.attach(model, optimizer=optimizer) as lens:
        for _ in range(2):
            if inside == "a training":
                with lens.paused():
                    for _ in range(3):
                        optimizer.zero_grad()
                        loss(model, XA).backward()
                        optimizer.step()
                        lens.step(loss=1.0)
            else:
                passes = run()
                for half in ("forward", "backward"):
                    with lens.paused() if half in inside else nullcontext():
                        next(passes, None)
            optimizer.zero_grad()
            counted = [now(model)]
            loss(model).backward()
            optimizer.step()
    assert lens.recording.steps["step"].tolist() == [0, 1]
    (row,) = lens.recording.norms.query("step == 1").to_dict("records")
    for name, exact in expected(counted).items():
        assert row[name] == pytest.approx(exact, rel=1e-9), name


# ---------------------------------------------------------------------- compiled graphs


class Checkpointed(nn.Sequential):
    def forward(self, x):
        return checkpoint(super().forward, x, use_reentrant=False)


@pytest.mark.parametrize("kind", [nn.Sequential, Checkpointed])
@pytest.mark.parametrize(
    "way", ["plain", "adversarial training", "sharpness-aware", "a discarded forward pass", "micro-batches"]
)
def test_in_a_compiled_graph_the_same_passes_count(way, kind):
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    model = kind(*network())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with gradlens.attach(model) as lens:
        model.compile(backend="aot_eager", fullgraph=True)
        for step in range(STEPS):
            optimizer.zero_grad()
            counted = WAYS[way][0](model, optimizer)
            lens.step()
            (row,) = lens.recording.norms.query(f"step == {step}").to_dict("records")
            assert row["call"] == 0
            for name, exact in expected(counted).items():
                assert row[name] == pytest.approx(exact, rel=1e-9), name
    assert not torch._dynamo.utils.counters["graph_break"]


def test_what_a_compiled_graph_does_while_the_lens_is_paused_is_left_out():
    torch.compiler.reset()
    model = network()
    with gradlens.attach(model) as lens:
        model.compile(backend="aot_eager", fullgraph=True)
        for _ in range(2):
            model.zero_grad()
            outside = 50 * loss(model, XA)
            with lens.paused():
                (50 * loss(model, XA)).backward()
                outside.backward()
            model.zero_grad()
            counted = [now(model)]
            loss(model).backward()
            lens.step()
            row = lens.recording.norms.iloc[-1]
            for name, exact in expected(counted).items():
                assert row[name] == pytest.approx(exact, rel=1e-9), name


def test_norms_of_a_graph_to_which_no_gradient_comes_back_are_not_said_to_be_unused():
    torch.compiler.reset()

    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = network(), nn.LayerNorm(4).double()

        def forward(self, x):
            return self.first(x) + self.second(x).detach().sum()

    model = Cut()
    with gradlens.attach(model) as lens:
        model.compile(backend="aot_eager", fullgraph=True)
        model(X).sum().backward()
        lens.step()
        audit = lens.audit()
    assert audit.silent == ()
    assert audit.without_grad_output == ("second",)


# ---------------------------------------------------------------------- what was not zeroed


class Penalized(nn.Module):
    """A critic whose forward pass differentiates its own score, for the gradient's norm."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network()

    def forward(self, x: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(self.body(x).sum(), x, create_graph=True)
        return slope.square().sum(1).sqrt()


@pytest.mark.parametrize("zero", [True, False])
def test_gradients_of_before_are_seen_behind_a_pass_that_fills_none(zero):
    model = Penalized()
    with gradlens.attach(model) as lens:
        for _ in range(4):
            if zero:
                model.zero_grad()
            (model(X) - 1).square().mean().backward()
            lens.step()
    setting = lens.audit().setting
    assert (setting["older"], setting["older_of"]) == (0 if zero else 3, 4)


@pytest.mark.parametrize("to_none", [True, False])
def test_which_gradients_were_zeroed_and_which_not_is_told_by_parameter(to_none):
    model = network()
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.01)
    with gradlens.attach(model, optimizer=optimizer) as lens:
        for _ in range(4):
            optimizer.zero_grad(set_to_none=to_none)
            loss(model).backward()
            optimizer.step()
    setting = lens.audit().setting
    assert setting["older_in"] == dict.fromkeys(("1.weight", "1.bias", "3.weight", "3.bias"), 3)
    assert setting["zeroed_in"] == {"0.weight": 3, "0.bias": 3}


def test_where_no_pass_is_seen_to_begin_at_an_output_nobody_can_tell_what_was_zeroed():
    model = network()
    with gradlens.attach(model) as lens:
        for _ in range(3):
            model[1](model[0](X)).mean().backward()  # of a part, whose norm alone is tapped
            lens.step()
    assert (lens.audit().setting["older"], lens.audit().setting["older_of"]) == (0, 0)
