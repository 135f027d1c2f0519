"""Several forward and backward passes in one step: micro-batches, several losses, autograd.grad, double backward."""

import pytest
import torch
from torch import nn

import gradlens
from tests.lens.networks import WIDTH, stack
from tests.lens.passes import backward, gradients_by_hand, loss_of, record, vectors


def numbers(recording: gradlens.Recording, table: str):
    return recording.table(table).select_dtypes("number")


def same(got: gradlens.Recording, expected: gradlens.Recording, rel: float = 1e-9) -> None:
    for table in ("norms", "activations", "params"):
        columns = numbers(expected, table).columns
        exact = numbers(expected, table).to_numpy()
        assert got.table(table)[columns].to_numpy() == pytest.approx(exact, rel=rel, abs=1e-25, nan_ok=True), table


def double() -> nn.Module:
    return stack().double()


def whole(step: int) -> torch.Tensor:
    return torch.cat([vectors(step), vectors(step + 50)]).double()


@pytest.mark.parametrize("sizes", [(8,), (4, 4), (1, 5, 2), (1,) * 8], ids=str)
def test_any_split_into_micro_batches_gives_the_rows_of_the_whole_batch(sizes):
    def in_parts(model, x):
        for part in x.split(sizes):
            (loss_of(model(part)) * len(part) / len(x)).backward()

    def at_once(model, x):
        # The direction of the loss must be that of the parts.
        sum(loss_of(model(part)) * len(part) / len(x) for part in x.split(sizes)).backward()

    split = record(double(), 2, batch=whole, backward=in_parts).recording
    assert (split.norms["vectors"] == 40).all()
    assert len(split.steps) == 2
    assert split.norms["call"].max() == 0
    together = record(double(), 2, batch=whole, backward=lambda model, x: _whole_batch(model, x, sizes)).recording
    same(split, together)


def _whole_batch(model, x, sizes) -> None:
    """One forward and one backward pass with the gradient that the micro-batches give together."""
    y = model(x)
    parts = zip(y.split(sizes), sizes, strict=True)
    sum(loss_of(part) * size / len(x) for part, size in parts).backward()


def test_forward_passes_before_the_only_backward_are_calls_of_their_own():
    def siamese(model, x):
        (loss_of(model(x[:2])) + loss_of(model(x[2:]).square())).backward()

    norms = record(double(), batch=whole, backward=siamese).recording.norms
    assert norms.groupby("site")["call"].apply(list).tolist() == [[0, 1]] * 4
    assert norms.groupby("call")["vectors"].unique().tolist() == [[10], [30]]
    assert norms["grad_input_norm"].notna().all()


def test_two_backward_passes_of_one_forward_add_their_energies_and_count_the_input_once():
    def passes(*which):
        def run(model, x):
            y = model(x)
            losses = [loss_of(y), y.pow(3).mean()]
            for index in which:
                losses[index].backward(retain_graph=True)

        return run

    first, second, both = (record(double(), batch=whole, backward=passes(*w)).recording for w in ((0,), (1,), (0, 1)))
    assert both.norms["vectors"].tolist() == first.norms["vectors"].tolist()
    assert both.norms["inv_sigma"].to_numpy() == pytest.approx(first.norms["inv_sigma"].to_numpy(), rel=1e-12)
    for column in ("grad_output_norm", "grad_input_norm"):
        expected = first.norms[column] ** 2 + second.norms[column] ** 2
        assert (both.norms[column] ** 2).to_numpy() == pytest.approx(expected.to_numpy(), rel=1e-9)
    columns = ["recentering", "rescaling", "kept"]
    assert both.norms[columns].sum(axis=1).to_numpy() == pytest.approx(1)


def test_parameter_gradients_of_a_graph_kept_over_steps_belong_to_the_step_that_backward_runs_in():
    model = double()
    with gradlens.attach(model) as lens:
        loss = loss_of(model(whole(0)))
        loss.backward(retain_graph=True)
        lens.step()
        model.zero_grad()
        loss.backward()
        lens.step()
    params = lens.recording.params
    assert params.groupby("step").size().tolist() == [16, 16]
    first, second = (params.query(f"step == {step}")["grad_norm"].to_numpy() for step in (0, 1))
    assert second == pytest.approx(first, rel=1e-12)


def test_norms_in_a_graph_kept_over_steps_have_no_rows_in_the_later_one_and_it_is_said():
    model = double()
    with gradlens.attach(model) as lens:
        loss = loss_of(model(whole(0)))
        loss.backward(retain_graph=True)
        lens.step()
        assert lens.audit().problems() == []
        loss.backward()
        lens.step()
        assert any("a forward pass of an earlier step" in problem for problem in lens.audit().problems())
    assert lens.recording.norms["step"].unique().tolist() == [0]


def test_autograd_grad_with_respect_to_the_input_is_recorded_like_backward():
    def saliency(model, x):
        x = x.requires_grad_()
        torch.autograd.grad(loss_of(model(x)), x)

    lens = record(double(), batch=whole, backward=saliency)
    expected = record(double(), batch=whole, backward=lambda model, x: backward(model, x.requires_grad_())).recording
    exact = numbers(expected, "norms").to_numpy()
    assert numbers(lens.recording, "norms").to_numpy() == pytest.approx(exact, rel=1e-9, abs=1e-25, nan_ok=True)
    assert lens.recording.params[["grad_norm", "grad_absmax"]].isna().all(axis=None)
    assert lens.recording.steps["grad_norm"].isna().all()


def test_gradients_that_were_set_by_hand_are_read_and_the_audit_says_when_and_why():
    lens = record(double(), batch=whole, backward=gradients_by_hand)
    expected = record(double(), batch=whole).recording
    same(lens.recording, expected)
    (problem,) = lens.audit().problems()
    assert "read in step()" in problem
    assert "autograd.grad" in problem  # the root's forward did run, and returned a tensor


def penalized(model, x) -> torch.Tensor:
    """A loss and a penalty on its gradient with respect to the input, as for WGAN-GP."""
    x = x.clone().requires_grad_()
    loss = first_order(model, x)
    (grad,) = torch.autograd.grad(loss, x, create_graph=True)
    total = loss + 100 * (grad.norm() - 1).square()
    total.backward()
    return total


def first_order(model, x) -> torch.Tensor:
    return loss_of(model(x).tanh())


def test_a_gradient_penalty_trains_as_without_the_lens_to_the_last_bits():
    """Not bit for bit: the tap is one more node in the graph that is differentiated twice, and sums change order."""

    def run(attached: bool):
        model = double()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        lens = gradlens.attach(model, optimizer=optimizer) if attached else None
        losses = []
        for step in range(3):
            optimizer.zero_grad()
            losses.append(penalized(model, whole(step)).item())
            optimizer.step()
        if lens:
            lens.detach()
        return losses, list(model.parameters())

    (losses, weights), (losses_seen, weights_seen) = run(False), run(True)
    assert losses_seen == pytest.approx(losses, rel=1e-13)
    for expected, got in zip(weights, weights_seen, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-15)


def test_the_parameter_gradients_of_a_gradient_penalty_are_those_of_the_whole_loss():
    model = double()
    lens = record(model, batch=whole, backward=penalized)
    params = lens.recording.params.set_index("name")
    for name, parameter in model.named_parameters():
        assert params.loc[name, "grad_norm"] == pytest.approx(float(parameter.grad.norm()), rel=1e-9), name
    assert lens.audit().problems() == []
    assert lens.recording.steps["step"].tolist() == [0]


def test_a_gradient_penalty_records_the_first_order_gradients_once():
    """Second-order terms reach a norm's input beside the norm's own derivative: with them shares would be none."""
    got = record(double(), batch=whole, backward=penalized).recording.norms
    plain = lambda model, x: first_order(model, x.clone().requires_grad_()).backward()  # noqa: E731
    expected = record(double(), batch=whole, backward=plain).recording.norms
    for column in expected.select_dtypes("number"):
        exact = expected[column].to_numpy()
        assert got[column].to_numpy() == pytest.approx(exact, rel=1e-9, abs=1e-25), column


def test_gradients_through_an_older_forward_do_not_fall_into_the_rows_of_a_newer_one():
    """As in meta-learning: the inner step's graph is still in use when the outer forward has run."""

    def meta(model, x):
        inner = loss_of(model(x[:3]).tanh())
        gradients = torch.autograd.grad(inner, model[0].weight, create_graph=True)
        (loss_of(model(x[3:]).square()) + 100 * gradients[0].square().sum()).backward()

    def in_turn(model, x):
        loss_of(model(x[:3]).tanh()).backward()
        loss_of(model(x[3:]).square()).backward()

    got, expected = (record(double(), batch=whole, backward=run).recording.norms for run in (meta, in_turn))
    for column in expected.select_dtypes("number"):
        exact = expected[column].to_numpy()
        assert got[column].to_numpy() == pytest.approx(exact, rel=1e-9, abs=1e-25), column


def test_a_forward_that_failed_and_was_repeated_does_not_count_twice():
    """As after running out of memory: the batch is split and tried again in the same step."""

    class Memory(nn.Module):
        full = True

        def forward(self, x):
            if self.full:
                raise MemoryError
            return x

    model = nn.Sequential(stack(), Memory(), nn.Linear(WIDTH, WIDTH))
    with gradlens.attach(model) as lens:
        with pytest.raises(MemoryError):
            model(vectors(0))
        model[1].full = False
        backward(model, vectors(0))
        lens.step()
    assert lens.recording.norms["grad_input_norm"].notna().all()
    assert lens.recording.norms["call"].tolist() == [0] * 4
