"""The same numbers in the set-ups that people train in."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import gradlens


class Block(nn.Module):
    """A Pre-LN block with the twist that a test asks for."""

    def __init__(self, twist: str = "") -> None:
        super().__init__()
        self.norm, self.linear, self.twist = nn.LayerNorm(16), nn.Linear(16, 16), twist

    def branch(self, x):
        y = self.norm(input=x) if self.twist == "keyword" else self.norm(x)
        if self.twist == "in-place":
            y += 1
            y = torch.relu_(y)
        return self.linear(y)

    def forward(self, x):
        if self.twist.startswith("checkpoint"):
            return x + checkpoint(self.branch, x, use_reentrant=self.twist.endswith("reentrant"))
        return x + self.branch(x)


def model(twist: str = "", blocks: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 16), nn.Sequential(*[Block(twist) for _ in range(blocks)]), nn.LayerNorm(16))


def batch() -> torch.Tensor:
    return torch.randn(4, 5, 16, generator=torch.Generator().manual_seed(1))


def loss_of(y: torch.Tensor) -> torch.Tensor:
    """The product with a fixed direction: a gradient that the last norm does not remove."""
    return (y * torch.randn(y.shape, generator=torch.Generator().manual_seed(2))).mean()


def record(network: nn.Module, run=None, steps: int = 2, **options) -> gradlens.Recording:
    with gradlens.attach(network, **options) as lens:
        run = run(network) if run else network
        for _ in range(steps):
            network.zero_grad()
            loss_of(run(batch())).backward()
            lens.step()
    return lens.recording


def assert_same(got: gradlens.Recording, expected: gradlens.Recording, rel: float = 1e-5) -> None:
    for table in ("norms", "params"):
        numbers = expected.table(table).select_dtypes("number")
        same = got.table(table)[numbers.columns].to_numpy()
        assert same == pytest.approx(numbers.to_numpy(), rel=rel, abs=1e-7, nan_ok=True), table


@pytest.mark.parametrize("twist", ["keyword", "checkpoint", "checkpoint reentrant"])
def test_keyword_inputs_and_both_kinds_of_checkpoint_give_the_plain_numbers(twist):
    assert_same(record(model(twist)), record(model()))


def test_in_place_operations_after_the_norm_do_not_disturb_what_arrives_at_it():
    def plain(self, x):
        return self.linear(torch.relu(self.norm(x) + 1))

    reference = model()
    for block in reference[1]:
        block.branch = plain.__get__(block)
    assert_same(record(model("in-place")), record(reference))


def test_a_model_compiled_after_attaching_is_recorded():
    torch.compiler.reset()
    compiled = record(model(), run=lambda network: torch.compile(network, backend="aot_eager"))
    assert_same(compiled, record(model()))


def test_a_model_compiled_and_run_before_attaching_is_never_silently_empty():
    torch.compiler.reset()
    network = model()
    fast = torch.compile(network, backend="aot_eager")
    fast(batch())
    with gradlens.attach(network) as lens:
        loss_of(fast(batch())).backward()
        lens.step()
        audit = lens.audit()
    assert len(audit.fired) == 4 or any("never ran" in problem for problem in audit.problems())


def test_bfloat16_autocast_agrees_with_float32_to_its_precision():
    def autocast(network):
        def run(x):
            with torch.autocast("cpu", torch.bfloat16):
                return network(x).float()

        return run

    half, full = record(model(), run=autocast).norms, record(model()).norms
    shares = ["recentering", "rescaling", "kept"]
    assert (half[shares] - full[shares]).abs().max().max() < 0.01
    assert half["grad_input_norm"].to_numpy() == pytest.approx(full["grad_input_norm"].to_numpy(), rel=0.01)


def test_the_loss_scale_is_divided_out_of_every_gradient():
    plain = record(model(), steps=1)
    network = model()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with gradlens.attach(network, optimizer=optimizer, scaler=scaler) as lens:
        scaler.scale(loss_of(network(batch()))).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(network.parameters(), 1e-3)
        scaler.step(optimizer)
        scaler.update()
    assert_same(lens.recording, plain)
    step = lens.recording.steps.iloc[0]
    assert step["loss_scale"] == 1024
    assert step["clip_coef"] == pytest.approx(1e-3 / step["grad_norm"], rel=1e-4)


def test_nested_and_repeated_lenses_record_the_same():
    network = model()
    with gradlens.attach(network) as outer, gradlens.attach(network) as inner:
        loss_of(network(batch())).backward()
        outer.step()
        inner.step()
    assert_same(outer.recording, inner.recording)


def overflowing_training(with_step: bool) -> gradlens.Recording:
    network = model()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=1e38, backoff_factor=1e-36)
    with gradlens.attach(network, optimizer=optimizer, scaler=scaler) as lens:
        for _ in range(4):
            optimizer.zero_grad()
            loss = 1e3 * loss_of(network(batch()))
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            if with_step:
                lens.step(loss=loss)
    return lens.recording


@pytest.mark.parametrize("with_step", [True, False])
def test_a_step_that_the_scaler_skips_is_a_step_of_its_own_with_non_finite_gradients(with_step):
    recording = overflowing_training(with_step)
    assert recording.steps["step"].tolist() == [0, 1, 2, 3]
    assert recording.norms.groupby("step")["nonfinite"].max().tolist()[0] > 0
    assert recording.norms.groupby("step")["nonfinite"].max().tolist()[1:] == [0, 0, 0]
    assert set(recording.norms["vectors"]) == {20}


class Lightning(nn.Module):
    """Driven by a method of its own; its forward is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.network = model()

    def training_step(self, x):
        return loss_of(self.network(x))


@pytest.mark.parametrize("with_optimizer", [True, False])
def test_a_model_whose_forward_is_never_called_loses_no_step_and_no_gradient(with_optimizer):
    network = Lightning()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    with gradlens.attach(network, optimizer=optimizer if with_optimizer else None) as lens:
        for _ in range(4):
            network.training_step(batch()).backward()
            optimizer.step()
            optimizer.zero_grad()
            if not with_optimizer:
                lens.step()
    assert lens.recording.steps["step"].tolist() == [0, 1, 2, 3]
    assert lens.recording.steps["grad_norm"].notna().all()
    assert lens.recording.norms["call"].max() == 0


def test_gradients_that_were_read_late_are_said_to_be_so():
    network = Lightning()
    with gradlens.attach(network, watch=("params",)) as lens:
        network.training_step(batch()).backward()
        lens.step()
        assert any("end of backward was not seen" in problem for problem in lens.audit().problems())
    assert lens.recording.steps["grad_norm"].notna().all()


def test_a_further_attempt_goes_on_where_the_last_one_stopped(tmp_path):
    def run(steps: int, fail: bool) -> None:
        network = model()
        with gradlens.attach(network, out=tmp_path / "run") as lens:
            for _ in range(steps):
                loss_of(network(batch())).backward()
                lens.step()
            if fail:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(5, fail=True)
    run(3, fail=False)
    assert gradlens.load(tmp_path / "run").steps["step"].tolist() == list(range(8))


def test_the_step_that_an_exception_follows_is_kept():
    network = model()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    lens = gradlens.attach(network, optimizer=optimizer)

    def run() -> None:
        with lens:
            for _ in range(5):
                loss_of(network(batch())).backward()
                optimizer.step()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert lens.recording.steps["step"].tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(gradlens.GradlensError, match="this lens is detached"):
        lens.step()


def test_empty_batches_and_complex_parameters_do_not_disturb_training():
    network = model()
    network.register_parameter("phase", nn.Parameter(torch.ones(3, dtype=torch.cfloat)))
    with gradlens.attach(network) as lens:
        (loss_of(network(batch())) + network.phase.abs().sum()).backward()
        lens.step()
        network(torch.zeros(0, 5, 16)).sum().backward()
        lens.step()
    params = lens.recording.params.set_index(["step", "name"])
    assert params.loc[(0, "phase"), "grad_norm"] == pytest.approx(3**0.5)


def test_clipping_by_value_has_no_coefficient():
    network = model()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    with gradlens.attach(network, optimizer=optimizer) as lens:
        (100 * loss_of(network(batch()))).backward()
        nn.utils.clip_grad_value_(network.parameters(), 0.05)
        optimizer.step()
    assert lens.recording.steps["clip_coef"].isna().all()


@pytest.mark.parametrize("kind", ["whole model", "autocast"])
def test_rmsnorm_without_eps_in_bfloat16_uses_the_eps_that_torch_uses(kind):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(64, 64), nn.RMSNorm(64))
    nn.init.normal_(network[0].weight, std=5e-3)
    nn.init.zeros_(network[0].bias)
    x = torch.randn(32, 64)
    expected = network[0](x).square().mean(-1).rsqrt().mean().item()
    dtype = torch.bfloat16
    network, x = (network.to(dtype), x.to(dtype)) if kind == "whole model" else (network, x)
    with gradlens.attach(network) as lens, torch.autocast("cpu", dtype, enabled=kind == "autocast"):
        network(x).float().square().sum().backward()
        lens.step()
    row = lens.recording.norms.iloc[0]
    assert row["inv_sigma"] == pytest.approx(expected, rel=0.01)
    assert row["kept"] < 1.02


class HiddenEpsNorm(nn.Module):
    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-3)


class HiddenGainNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale, self.eps = nn.Parameter(torch.ones(16)), 1e-6

    def forward(self, x):
        return self.scale * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps)


@pytest.mark.parametrize("cls", [HiddenEpsNorm, HiddenGainNorm])
def test_a_norm_that_is_not_fully_understood_is_named_not_recorded_wrongly(cls):
    network = nn.Sequential(nn.Linear(16, 16), cls(), nn.LayerNorm(16))
    recording = record(network)
    assert set(recording.norms["site"]) == {"2"}
    assert any("1" in problem and "register_norm" in problem for problem in recording.meta["audit"]["problems"])


class GatedRMSNorm(nn.Module):
    eps = 1e-6

    def forward(self, x, gate=None):
        y = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps)
        return y if gate is None else 5 * y * gate


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(16, 16), GatedRMSNorm()

    def forward(self, x):
        return self.norm(self.linear(x), x)


def test_impossible_shares_are_a_problem_of_the_audit():
    recording = record(Gated())
    assert any("impossible" in problem for problem in recording.meta["audit"]["problems"])


def test_an_entry_that_is_not_finite_leaves_absmax_missing():
    norm, x = nn.LayerNorm(8), torch.randn(4, 8)
    x[1, 2] = float("inf")
    with gradlens.attach(norm) as lens:
        norm(x).sum().backward()
        lens.step()
    activation = lens.recording.activations.iloc[0]
    assert activation[["absmax"]].isna().all()
    assert activation["nonfinite"] == 1
