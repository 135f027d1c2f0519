"""What the lens records at a model's output and input, in the trainings that people run."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gradlens

C = 5
Loss = Callable[[Any, Tensor], Tensor]


def mlp(out: int = C) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, out))


def batches(*shape: int, steps: int = 4, labels: tuple[int, ...] | None = None) -> Iterator[tuple[Tensor, Tensor]]:
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(*shape, generator=generator)
        yield x, torch.randint(C, labels or shape[:-1], generator=generator)


def cross_entropy(output: Any, y: Tensor) -> Tensor:
    logits = output if isinstance(output, Tensor) else output["logits"]
    return F.cross_entropy(logits.flatten(0, -2), y.flatten())


def outputs(
    model: nn.Module, data: Iterator[tuple[Tensor, Tensor]], loss_fn: Loss = cross_entropy, **wanted: Any
) -> pd.DataFrame:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradlens.attach(model, optimizer=optimizer, strict=True, **wanted) as lens:
        for x, y in data:
            optimizer.zero_grad()
            loss_fn(model(x), y).backward()
            optimizer.step()
    assert not lens.audit().unsupported
    return lens.recording.outputs


@dataclass
class Output:
    logits: Tensor
    loss: Tensor | None = None
    hidden: tuple[Tensor, ...] = ()


class Wrapped(nn.Module):
    """Returns its logits among other things."""

    def __init__(self, wrap: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.inside, self.wrap = mlp(), wrap

    def forward(self, x: Tensor) -> Any:
        z = self.inside(x)
        return self.wrap(z, z * 2.0)


class Image(nn.Module):
    def __init__(self, last: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.last = nn.Conv2d(3, C, 1), nn.BatchNorm2d(C), last

    def forward(self, x: Tensor) -> Tensor:
        z = self.norm(self.conv(x))
        return z.movedim(1, -1) if self.last else z


def test_a_row_of_a_mean_weighs_one_and_of_a_sum_as_many_as_there_are() -> None:
    mean = outputs(mlp(), batches(24, 8))
    assert mean["row_weight"].to_numpy() == pytest.approx(1.0, rel=1e-4)
    assert mean["single_weight"].to_numpy() == pytest.approx(1 / 24, rel=1e-4)
    assert (mean[["vectors", "samples", "sampled", "passes", "classes"]] == [24, 24, 24, 1, C]).all().all()
    total = outputs(mlp(), batches(24, 8), lambda z, y: 0.01 * F.cross_entropy(z, y, reduction="sum"))
    assert total["row_weight"].to_numpy() == pytest.approx(0.24, rel=1e-3)
    assert total["single_weight"].to_numpy() == pytest.approx(0.01, rel=1e-3)


def test_loss_accuracy_and_gradient_are_those_of_the_whole_batch_where_all_of_it_is_sampled() -> None:
    model, seen = mlp(), []

    def told(z: Tensor, y: Tensor) -> Tensor:
        loss = F.cross_entropy(z, y)
        (g,) = torch.autograd.grad(loss, z, retain_graph=True)
        seen.append((loss.item(), (z.argmax(1) == y).float().mean().item(), g.square().sum(1).mean().sqrt().item(),
                     g.norm(dim=1).max().item()))  # fmt: skip
        return loss

    found = outputs(model, batches(40, 8), told)
    columns = ["sampled_loss", "sampled_accuracy", "grad_row_norm", "grad_row_max"]
    np.testing.assert_allclose(found[columns], seen, rtol=1e-4)


def test_the_labels_code_is_that_of_the_frequencies_of_earlier_steps() -> None:
    counts, expected = np.zeros(C), []
    for _, y in batches(30, 8, steps=6):
        p = (counts + 0.5) / (counts.sum() + 0.5 * C)
        expected.append(-np.log(p[y.numpy()]).mean())
        counts += np.bincount(y.numpy(), minlength=C)
    found = outputs(mlp(), batches(30, 8, steps=6))
    np.testing.assert_allclose(found["label_nats"], expected, rtol=1e-9)
    assert found["label_nats"].iloc[0] == pytest.approx(log(C))


def test_sequences_are_rows_of_tokens_of_which_ignored_ones_do_not_count() -> None:
    def loss_fn(z: Tensor, y: Tensor) -> Tensor:
        y = y.clone()
        y[:, 9:] = -100
        return F.cross_entropy(z.flatten(0, 1), y.flatten())

    found = outputs(mlp(), batches(6, 12, 8), loss_fn)
    assert (found["vectors"] == 72).all()
    assert (found["samples"] == 6).all()
    assert found["ignored"].to_numpy() == pytest.approx(0.25, abs=0.08)
    assert found["single_weight"].to_numpy() == pytest.approx(1 / 54, rel=1e-3)
    assert found["row_weight"].to_numpy() == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("last", [True, False])
def test_the_gradient_tells_which_dimension_of_an_image_holds_the_classes(last: bool) -> None:
    data = batches(2, 3, 7, 7, steps=5, labels=(2, 7, 7))
    found = outputs(Image(last), data, lambda z, y: F.cross_entropy(z.movedim(-1, 1) if last else z, y))
    assert (found["kind"] == "softmax").all()
    assert (found["classes"] == C).all()
    assert (found["vectors"] == 98).all()
    assert (found["sampled"] == 64).all()
    assert found["row_weight"].to_numpy() == pytest.approx(1.0, rel=1e-3)


def test_the_classes_of_sequences_may_stand_before_their_positions() -> None:
    model = nn.Sequential(nn.Conv1d(3, C, 1), nn.Tanh())
    found = outputs(model, batches(4, 3, 9, labels=(4, 9)), F.cross_entropy)
    assert (found["classes"] == C).all()
    assert found["row_weight"].to_numpy() == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda z, more: Output(z, F.cross_entropy(z, z.argmax(1)), (more, more)),
        lambda z, more: OrderedDict(logits=z, hidden=more),
        lambda z, more: (z, more.sum()),
    ],
    ids=["object with logits", "dict with logits", "tuple with one number more"],
)
def test_logits_are_found_among_what_a_model_returns(wrap: Callable[[Tensor, Tensor], Any]) -> None:
    def chosen(out: Any, y: Tensor) -> Tensor:
        logits = out.logits if isinstance(out, Output) else out[0] if isinstance(out, tuple) else out["logits"]
        return F.cross_entropy(logits, y)

    found = outputs(Wrapped(wrap), batches(16, 8), chosen)
    assert found["row_weight"].to_numpy() == pytest.approx(1.0, rel=1e-4)


def test_of_two_outputs_nobody_knows_which_is_the_one() -> None:
    found = outputs(Wrapped(lambda z, more: (z, more)), batches(16, 8), lambda out, y: F.cross_entropy(out[0], y))
    assert (found["passes"] == 0).all()
    assert found["row_weight"].isna().all()
    assert found["input_rms"].notna().all()


@pytest.mark.parametrize("classes", [1, 3])
def test_binary_losses_weigh_entries(classes: int) -> None:
    def loss_fn(z: Tensor, y: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(z, (y[:, None] > torch.arange(classes)).float())

    found = outputs(mlp(classes), batches(32, 8, steps=5), loss_fn)
    assert (found["kind"] == "binary").all()
    assert found["row_weight"].to_numpy() == pytest.approx(1.0, rel=1e-3)
    assert (found["labels"] > 0).all() == (classes == 1)


def test_a_regression_has_rows_without_any_weight() -> None:
    found = outputs(mlp(1), batches(32, 8), lambda z, y: F.mse_loss(z[:, 0], y.float()))
    assert (found["kind"] == "").all()
    assert found["row_weight"].isna().all()
    assert (found["labels"] == 0).all()
    assert (found["grad_row_norm"] > 0).all()


def test_micro_batches_are_passes_of_one_step_and_their_divisor_is_their_weight() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradlens.attach(model, optimizer=optimizer, strict=True) as lens:
        for _ in range(3):
            optimizer.zero_grad()
            for size, (x, y) in zip((16, 8), batches(16, 8, steps=2), strict=True):
                (F.cross_entropy(model(x[:size]), y[:size]) / 2).backward()
            optimizer.step()
    found = lens.recording.outputs
    assert (found["passes"] == 2).all()
    assert (found["vectors"] == 24).all()
    assert found["row_weight"].to_numpy() == pytest.approx(0.5, rel=1e-4)


def test_passes_that_do_not_count_leave_nothing() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradlens.attach(model, optimizer=optimizer, strict=True) as lens:
        for x, y in batches(16, 8):
            F.cross_entropy(model(x), y, reduction="sum").backward()
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
            with torch.no_grad():
                model(x)
    found = lens.recording.outputs
    assert (found["passes"] == 1).all()
    assert found["row_weight"].to_numpy() == pytest.approx(1.0, rel=1e-4)


def test_the_loss_scale_is_divided_out() -> None:
    model, scaler = mlp(), torch.amp.GradScaler("cpu", init_scale=2.0**14)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradlens.attach(model, optimizer=optimizer, scaler=scaler, strict=True) as lens:
        for x, y in batches(32, 8):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                loss = F.cross_entropy(model(x).float(), y)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
    found = lens.recording.outputs
    assert found["row_weight"].to_numpy() == pytest.approx(1.0, rel=0.02)
    assert found["grad_row_max"].max() < 2 / 32


def test_outputs_that_are_views_or_changed_in_place_are_read_as_they_were_returned() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = mlp()

        def forward(self, x: Tensor) -> Tensor:
            return self.inside(x)[:, -1]

    found = outputs(Last(), batches(20, 3, 8, labels=(20,)), lambda z, y: F.cross_entropy(z.mul_(2.0), y))
    assert (found["vectors"] == 20).all()
    # The output was z, the loss' own logits are 2 z: its gradient is no cross-entropy's of z.
    assert found["row_weight"].isna().all()
    plain = outputs(Last(), batches(20, 3, 8, labels=(20,)), F.cross_entropy)
    assert plain["row_weight"].to_numpy() == pytest.approx(1.0, rel=1e-4)


def test_parts_that_are_called_themselves_have_rows_of_their_own() -> None:
    model = nn.ModuleDict({"one": mlp(), "other": mlp(3)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradlens.attach(model, optimizer=optimizer, strict=True) as lens:
        for x, y in batches(16, 8):
            optimizer.zero_grad()
            (F.cross_entropy(model["one"](x), y) + F.cross_entropy(model["other"](x), y % 3)).backward()
            optimizer.step()
    found = lens.recording.outputs
    assert found.groupby("site")["classes"].unique().map(list).to_dict() == {"one": [C], "other": [3]}
    assert found["row_weight"].to_numpy() == pytest.approx(1.0, rel=1e-4)


def test_the_input_is_measured_where_the_output_is() -> None:
    data = [(3.0 + 2.0 * x, y) for x, y in batches(16, 8, steps=11)]
    found = outputs(mlp(), iter(data))
    for step, (x, _) in enumerate(data):
        row = found.iloc[step]
        assert row["input_mean"] == pytest.approx(x.mean().item(), rel=1e-5)
        assert row["input_rms"] == pytest.approx(x.square().mean().sqrt().item(), rel=1e-5)
        assert row["input_absmax"] == pytest.approx(x.abs().max().item())


def test_of_a_long_run_every_fourth_step_is_looked_at() -> None:
    found = outputs(mlp(), batches(8, 8, steps=45))
    assert found["step"].tolist() == [*range(32), 32, 36, 40, 44]
    assert (found["passes"] == 1).all()
