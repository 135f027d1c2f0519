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
