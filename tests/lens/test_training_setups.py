"""Set-ups that are no row of the matrix: driven by methods, resumed, with norms of their own."""

import pytest
import torch
from torch import nn

import gradlens
from tests.lens.networks import WIDTH
from tests.lens.networks import stack as model
from tests.lens.passes import loss_of, vectors


def batch() -> torch.Tensor:
    return vectors(0)


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
    class WithoutCalls(nn.Module):
        """Nothing of it is called: its weights are used as they are."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(WIDTH, WIDTH))

    network = WithoutCalls()
    with gradlens.attach(network, watch=("params",)) as lens:
        (batch() @ network.weight).square().mean().backward()
        lens.step()
        assert any("No backward pass was seen" in problem for problem in lens.audit().problems())
    assert lens.recording.steps["grad_norm"].notna().all()


def test_gradients_of_a_part_that_is_called_for_the_whole_are_read_when_its_backward_has_ended():
    network = Lightning()
    with gradlens.attach(network, watch=("params",)) as lens:
        network.training_step(batch()).backward()
        norm = float(nn.utils.clip_grad_norm_(network.parameters(), 1e-3))
        lens.step()
    assert lens.recording.steps["grad_norm"].item() == pytest.approx(norm, rel=1e-5)
    assert not [problem for problem in lens.audit().problems() if "No backward pass" in problem]


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


class DoubleGainNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale, self.eps = nn.Parameter(torch.ones(16)), 1e-6

    def forward(self, x):
        return self.scale.square() * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps)


def test_an_eps_that_stands_in_the_code_alone_is_measured():
    network = nn.Sequential(nn.Linear(16, 16), HiddenEpsNorm(), nn.LayerNorm(16))
    x = 0.01 * batch()
    with gradlens.attach(network) as lens:
        network(x).square().sum().backward()
        lens.step()
    expected = torch.rsqrt(network[0](x).square().mean(-1) + 1e-3).mean()
    assert lens.recording.norms.set_index("site")["inv_sigma"]["1"] == pytest.approx(float(expected), rel=1e-5)


def test_a_norm_that_is_not_fully_understood_is_named_not_recorded_wrongly():
    network = nn.Sequential(nn.Linear(16, 16), DoubleGainNorm(), nn.LayerNorm(16))
    recording = record(network)
    assert set(recording.norms["site"]) == {"2"}
    assert any("1" in problem and "register_norm" in problem for problem in recording.meta["audit"]["problems"])


class HonestAtFirstNorm(nn.Module):
    """Does in its first call what it says, and later something else besides."""

    normalizes = {"name": "rmsnorm", "centered": False, "mean_gradient": False}  # noqa: RUF012
    eps, calls = 1e-6, 0

    def forward(self, x):
        self.calls += 1
        y = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps)
        return y if self.calls == 1 else 5 * y * x


def test_impossible_shares_are_a_problem_of_the_audit():
    network = nn.Sequential(nn.Linear(16, 16), HonestAtFirstNorm())
    with gradlens.attach(network) as lens:
        for _ in range(2):
            network(batch()).square().sum().backward()
            lens.step()
    assert any("impossible" in problem for problem in lens.audit().problems())


def test_an_entry_that_is_not_finite_leaves_absmax_missing():
    norm, x = nn.LayerNorm(8), torch.randn(4, 8)
    x[1, 2] = float("inf")
    with gradlens.attach(norm) as lens:
        norm(x).sum().backward()
        lens.step()
    activation = lens.recording.activations.iloc[0]
    assert activation[["absmax"]].isna().all()
    assert activation["nonfinite"] == 1
