"""What a step changes, from a few entries of each parameter."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import gradlens
from gradlens.lens import sampled
from gradlens.recording.parameter_columns import PARAMETER_FACTS, PARAMETER_SUMS
from gradlens.recording.schema import names
from tests.lens.networks import stack
from tests.lens.training_loop import train


def numbers(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Weights(nn.Module):
    """Parameters whose gradients are what the model is called with."""

    def __init__(self, **weights: torch.Tensor) -> None:
        super().__init__()
        for name, weight in weights.items():
            self.register_parameter(name, nn.Parameter(weight.clone(memory_format=torch.preserve_format)))

    def forward(self, **gradients: torch.Tensor) -> torch.Tensor:
        return sum((self.get_parameter(name) * gradient).sum() for name, gradient in gradients.items())


def stepped(model: nn.Module, change, steps: int = 1, **gradients: torch.Tensor) -> pd.DataFrame:
    """What is recorded of steps in which the parameters have these gradients and are changed so."""
    with gradlens.attach(model) as lens:
        for _ in range(steps):
            model.zero_grad()
            model(**gradients).backward()
            with torch.no_grad():
                change(model)
            lens.step()
    return lens.recording.params.set_index("name")


def exact(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


@pytest.mark.parametrize("shape", [(7,), (32, 32), (3, 5, 4)])
def test_of_a_small_parameter_all_entries_are_taken(shape):
    weight, gradient, change = numbers(1, *shape), numbers(2, *shape), 1e-3 * numbers(3, *shape)
    gradient.view(-1)[::2] = 0.0
    change.view(-1)[:3] = 0.0
    rows = stepped(Weights(w=weight), lambda m: m.w.add_(change), w=gradient)
    after, active = exact(weight + change), exact(gradient) != 0
    ratio = np.linalg.norm(after - exact(weight)) / np.linalg.norm(exact(weight))
    assert rows.loc["w", "update_ratio"] == pytest.approx(ratio, rel=1e-9)
    assert rows.loc["w", "update_ratio_error"] == 0
    assert rows.loc["w", "active"] == active.sum()
    assert rows.loc["w", "still_share"] == pytest.approx((active & (after == exact(weight))).sum() / active.sum())
    assert rows.loc["w", "grad_weight"] == pytest.approx((exact(weight) * exact(gradient)).sum(), rel=1e-6)


def test_of_a_large_parameter_the_ratio_lies_in_its_interval_and_what_is_taken_comes_from_all_rows_and_columns():
    shape = (300, 512)
    weight, change = numbers(1, *shape), 1e-3 * numbers(2, *shape) * torch.rand(shape, generator=torch.Generator())
    rows = stepped(Weights(w=weight), lambda m: m.w.add_(change), w=numbers(3, *shape))
    truth = np.linalg.norm(exact(weight + change) - exact(weight)) / np.linalg.norm(exact(weight))
    error = rows.loc["w", "update_ratio_error"]
    assert 0.01 < error < 0.1
    assert abs(rows.loc["w", "update_ratio"] / truth - 1) < 4 * error
    assert 512 < rows.loc["w", "active"] <= sampled.MOST
    places = sampled.entries(torch.arange(300 * 512).view(shape), None).numpy()
    assert len(set(places // 512)) == 300
    assert np.bincount(places % 512, minlength=512).min() >= 1


@pytest.mark.parametrize("entries", [1, 1023, 1024, 1025, 1500, 5000, 100_000, 2**20 * 3])
@pytest.mark.parametrize("row", [1, 2, 3, 30, 512, 2310])
def test_sampled_entries_are_at_most_so_many_and_span_the_parameter(entries, row):
    stride = sampled.distance(entries, row)
    taken = len(range(0, entries, stride))
    assert taken <= sampled.MOST
    assert stride == 1 if entries <= sampled.MOST else taken > sampled.MOST / 16
    assert np.gcd(stride, row) == 1


def test_the_error_of_the_ratio_is_its_spread_over_parameters_of_one_distribution():
    weights = {f"p{i}": numbers(i, 20_000) for i in range(60)}
    changes = {name: 1e-3 * numbers(1000 + i, 20_000) for i, name in enumerate(weights)}

    def change(model: nn.Module) -> None:
        for name, by in changes.items():
            model.get_parameter(name).add_(by)

    rows = stepped(Weights(**weights), change, **weights)
    truth = {n: np.linalg.norm(exact(w + changes[n]) - exact(w)) / np.linalg.norm(exact(w)) for n, w in weights.items()}
    off = rows["update_ratio"] / pd.Series(truth) - 1
    assert off.std() == pytest.approx(rows["update_ratio_error"].mean(), rel=0.35)


def test_a_parameter_that_lies_otherwise_in_memory_is_sampled_alike_before_and_after():
    weight = numbers(1, 64, 32, 3, 3).contiguous(memory_format=torch.channels_last)
    model = Weights(w=weight)
    assert not model.w.is_contiguous()
    gradient = numbers(2, 64, 32, 3, 3)
    gradient[:, :16] = 0.0
    rows = stepped(model, lambda m: m.w.mul_(torch.where(gradient != 0, 1.5, 2.0)), w=gradient)
    assert rows.loc["w", "still_share"] == 0
    assert rows.loc["w", "grad_weight"] == pytest.approx(float((exact(weight) * exact(gradient)).sum()), rel=1e-4)
    # Half of the entries have a gradient and move by a half of their size, the others by all of it.
    assert rows.loc["w", "update_ratio"] == pytest.approx(((0.25 + 1) / 2) ** 0.5, rel=0.05)


def test_what_the_optimizer_does_not_hold_stands_still_and_its_ratio_is_missing():
    torch.manual_seed(0)
    model = stack()
    held = [p for name, p in model.named_parameters() if not name.startswith("0.")]
    groups = [{"params": held[:1], "lr": 0.0}, {"params": held[1:]}]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    with gradlens.attach(model, optimizer=optimizer) as lens:
        train(model, steps=2, lens=lens, optimizer=optimizer)
    rows = lens.recording.params.query("step == 1").set_index("name")
    assert rows.loc["0.weight", "still_share"] == 1
    assert np.isnan(rows.loc["0.weight", "update_ratio"])
    written = rows[~rows.index.str.startswith("0.")]
    assert written["update_ratio"].iloc[0] == 0
    assert written["still_share"].iloc[0] == 1
    assert (written["update_ratio"].iloc[1:] > 0).all()


def test_without_an_optimizers_step_nothing_is_known_of_updates():
    model = stack()
    with gradlens.attach(model) as lens:
        for _ in range(2):
            model(numbers(0, 4, 5, 16)).square().sum().backward()
            lens.step()
    rows = lens.recording.params
    assert rows[["update_ratio", "still_share", "active"]].isna().all(axis=None)
    assert rows["grad_weight"].notna().all()


def test_a_step_that_a_scaler_leaves_out_has_no_update_and_the_scale_is_divided_out_of_grad_weight():
    torch.manual_seed(0)
    model = stack()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    batch = numbers(0, 4, 5, 16)
    with gradlens.attach(model, scaler=scaler) as lens:
        for step in range(2):
            optimizer.zero_grad()
            scaler.scale(model(batch).square().mean()).backward()
            if step == 1:
                model[0].weight.grad[0, 0] = float("inf")
            known = {n: float((exact(p) * exact(p.grad)).sum()) / 1024 for n, p in model.named_parameters()}
            if step == 0:
                first = known
            scaler.step(optimizer)
            scaler.update()
            lens.step()
    rows = lens.recording.params
    assert rows.query("step == 0").set_index("name")["grad_weight"].to_dict() == pytest.approx(
        first, rel=1e-4, abs=1e-7
    )
    assert rows.query("step == 0 and weight_norm > 0")["update_ratio"].notna().all()
    assert rows.query("step == 1")[["update_ratio", "still_share"]].isna().all(axis=None)


def test_weights_in_bfloat16_stand_still_where_the_step_is_below_their_spacing_and_the_audit_names_them():
    weight = torch.ones(1000, dtype=torch.bfloat16)
    weight[:250] = 1e-3
    model = Weights(w=weight)
    with gradlens.attach(model, watch=("params",)) as lens:
        model(w=torch.ones(1000, dtype=torch.bfloat16)).backward()
        torch.optim.SGD(model.parameters(), lr=1e-4).step()
        lens.step()
        assert lens.audit().setting["weights"] == {"bfloat16": ["w"]}
    assert lens.recording.params["still_share"].item() == 0.75


@pytest.mark.parametrize("optimizer", ["Adam", "SGD", "LBFGS"])
def test_training_is_bit_for_bit_the_same_and_no_random_number_is_taken(optimizer):
    ends = []
    for watched in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(16, 400), nn.LayerNorm(400), nn.ReLU(), nn.Dropout(0.3), nn.Linear(400, 16))
        own = getattr(torch.optim, optimizer)(model.parameters(), lr=1e-2)
        lens = gradlens.attach(model, optimizer=own) if watched else None

        def closure(model=model, own=own):
            own.zero_grad()
            loss = model(numbers(5, 8, 16)).square().mean()
            loss.backward()
            return loss

        for _ in range(3):
            own.step(closure)
        if lens is not None:
            lens.detach()
            assert lens.recording.params["update_ratio"].gt(0).any()
        ends.append([p.detach().clone() for p in model.parameters()] + [torch.rand(3)])
    assert all(torch.equal(one, other) for one, other in zip(*ends, strict=True))


@pytest.mark.parametrize("sparse", [True, False])
def test_sparse_complex_tied_and_frozen_parameters_are_sampled_or_missing(sparse):
    model = nn.Sequential(nn.Embedding(6, 3, sparse=sparse), nn.Linear(3, 3), nn.Linear(3, 3))
    model[2].weight = model[1].weight
    model[2].bias.requires_grad_(False)
    model.register_parameter("wave", nn.Parameter(torch.ones(4, dtype=torch.complex64)))
    with gradlens.attach(model) as lens:
        (model(torch.arange(4)).sum() + (model.wave * 2).real.sum()).backward()
        torch.optim.SGD(model.parameters(), lr=0.1).step()
        lens.step()
    rows = lens.recording.params.set_index("name")
    assert rows.loc["wave", "update_ratio"] == pytest.approx(0.2, rel=1e-5)
    assert rows.loc["wave", "grad_weight"] == pytest.approx(8.0)
    assert rows.loc["0.weight", "update_ratio"] > 0
    assert np.isnan(rows.loc["0.weight", "still_share"]) == sparse
    assert np.isnan(rows.loc["0.weight", "grad_weight"]) == sparse
    assert rows.loc["2.bias", names(PARAMETER_FACTS)].isna().all()
    assert "2.weight" not in rows.index


def test_a_recording_of_before_reads_with_missing_values(tmp_path):
    model = stack()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradlens.attach(model, out=tmp_path / "run", optimizer=optimizer) as lens:
        train(model, steps=2, lens=lens, optimizer=optimizer)
    now = gradlens.load(tmp_path / "run")
    assert now.params.query("weight_norm > 0")[["update_ratio", "still_share", "grad_weight"]].notna().all(axis=None)
    stored = gradlens.load(tmp_path / "run")._stored
    before = {"params": stored["params"].drop(columns=names(PARAMETER_SUMS))}
    params = gradlens.Recording(now.meta, before).params
    assert params[names(PARAMETER_FACTS)].isna().all(axis=None)
    assert params["grad_norm"].notna().all()


def test_a_model_that_is_moved_or_changed_in_its_data_after_attaching_is_recorded_on():
    model = Weights(w=numbers(1, 6, 4))
    with gradlens.attach(model, strict=True) as lens:
        model.double()
        model(w=numbers(2, 6, 4).double()).backward()
        with torch.no_grad():
            model.w.add_(1.0)
        lens.step()
        model.zero_grad()
        model(w=numbers(2, 6, 4).double()).backward()
        model.w.data = torch.ones(2, 4, dtype=torch.float64)
        lens.step()
    rows = lens.recording.params
    assert rows["update_ratio"].notna().tolist() == [True, False]
