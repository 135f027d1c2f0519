"""How exact a row is in each precision, against a float64 oracle on the very tensors of that precision."""

import pytest
import torch
from torch import nn

import gradlens
from tests.lens.networks import WIDTH, stack
from tests.lens.passes import autocast, in_dtype, loss_of, record, vectors
from tests.lens.witness import Witness

#: What can be relied on: model, share (absolute), everything else (relative). In half precision the error is that of
#: grad_input, which the model itself rounds to 8 (bfloat16) or 11 (float16) bits; what is measured of it is exact.
TABLE = {
    "float64": (torch.float64, in_dtype, 1e-13, 1e-12),
    "float32": (torch.float32, in_dtype, 3e-6, 3e-6),
    "float16": (torch.float16, in_dtype, 3e-4, 1e-3),
    "bfloat16": (torch.bfloat16, in_dtype, 3e-3, 1e-2),
    "autocast float16": (torch.float16, autocast, 3e-4, 1e-3),
    "autocast bfloat16": (torch.bfloat16, autocast, 3e-3, 1e-2),
}


def build(name: str, norm: type[nn.Module] = nn.LayerNorm) -> nn.Module:
    model = stack()
    if norm is nn.RMSNorm:
        for block in model[1]:
            block.norm = nn.RMSNorm(WIDTH)
            nn.init.uniform_(block.norm.weight, 0.3, 1.7)
    return model if "autocast" in name else model.to(TABLE[name][0])


@pytest.mark.filterwarnings("ignore:Mismatch dtype")  # torch, of RMSNorm under autocast
@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm])
@pytest.mark.parametrize("name", TABLE)
def test_a_row_is_as_exact_as_the_table_says(name, norm):
    dtype, run, share, relative = TABLE[name]
    model = build(name, norm)
    witness = Witness(model)
    run(dtype)(model, vectors(0))
    expected = witness.step()
    norms = record(build(name, norm), backward=run(dtype)).recording.norms
    assert len(norms) == len(expected) == 4
    for _, row in norms.iterrows():
        expected[row["site"], row["call"]].check(row, share, relative)


@pytest.mark.parametrize("name", TABLE)
def test_parameter_gradients_are_summed_in_float32_or_better(name):
    dtype, run, *_ = TABLE[name]
    model = build(name)
    params = record(model, backward=run(dtype)).recording.params.set_index("name")
    for path, parameter in model.named_parameters():
        exact = float(parameter.grad.double().norm())
        assert params.loc[path, "grad_norm"] == pytest.approx(exact, rel=1e-12 if name == "float64" else 1e-6), path


def test_squares_that_overflow_float16_do_not():
    model = build("float16")
    x = (200 * vectors(0)).half()
    lens = record(model, batch=lambda step: x, backward=lambda model, x: (100 * model(x).float()).sum().backward())
    assert (lens.recording.norms["nonfinite"] == 0).all()
    assert lens.recording.norms.drop(columns="site").notna().all(axis=None)


class Scaled:
    """A training loop with a loss scale; ``sabotage`` makes the named steps overflow."""

    def __init__(self, sabotage: tuple[int, ...] = (), fused: bool = False, unscale: bool = False) -> None:
        self.model, self.unscale, self.sabotage = stack(), unscale, sabotage
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.0, fused=fused)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

    def run(self, steps: int, lens_step=None) -> None:
        for step in range(steps):
            self.optimizer.zero_grad()
            loss = loss_of(self.model(vectors(step)))
            loss = loss * float("inf") if step in self.sabotage else loss
            self.scaler.scale(loss).backward()
            if self.unscale:
                self.scaler.unscale_(self.optimizer)
                nn.utils.clip_grad_norm_(self.model.parameters(), 1e-3)
            self.scaler.step(self.optimizer)
            self.scaler.update()
            if lens_step is not None:
                lens_step()


def unscaled(steps: int) -> gradlens.Recording:
    model = stack()
    return record(model, steps).recording


def same(got, expected, step: int) -> None:
    for table in ("norms", "params", "activations"):
        numbers = expected.table(table).select_dtypes("number")
        columns = numbers.columns[numbers.notna().any()]  # what an optimizer's step changes, it has none of
        rows = [recording.table(table).query(f"step == {step}")[columns].to_numpy() for recording in (got, expected)]
        assert rows[0] == pytest.approx(rows[1], rel=1e-4, abs=1e-9, nan_ok=True), table


@pytest.mark.parametrize("fused", [False, True], ids=["foreach", "fused"])
@pytest.mark.parametrize("counted", ["by the optimizer", "by step()"])
def test_values_are_those_without_the_loss_scale(counted, fused):
    loop = Scaled(fused=fused)
    options = {"optimizer": loop.optimizer} if counted == "by the optimizer" else {}
    with gradlens.attach(loop.model, scaler=loop.scaler, **options) as lens:
        loop.run(2, lens.step if not options else None)
    assert lens.recording.steps["loss_scale"].tolist() == [1024, 1024]
    for step in (0, 1):
        same(lens.recording, unscaled(2), step)


@pytest.mark.parametrize("fused", [False, True], ids=["foreach", "fused"])
@pytest.mark.parametrize("clip", [False, True])
def test_the_clip_coefficient_does_not_hold_the_loss_scale(fused, clip):
    loop = Scaled(fused=fused, unscale=clip)
    with gradlens.attach(loop.model, scaler=loop.scaler, optimizer=loop.optimizer) as lens:
        loop.run(2)
    steps = lens.recording.steps
    expected = 1e-3 / steps["grad_norm"] if clip else steps["grad_norm"] * 0 + 1
    assert steps["clip_coef"].tolist() == pytest.approx(expected.tolist(), rel=1e-3)


@pytest.mark.parametrize("fused", [False, True], ids=["foreach", "fused"])
@pytest.mark.parametrize("counted", ["by the optimizer", "by step()", "by both"])
def test_an_overflow_is_a_step_of_its_own_named_with_its_place_and_the_next_is_clean(counted, fused):
    loop = Scaled(sabotage=(1,), fused=fused)
    options = {} if counted == "by step()" else {"optimizer": loop.optimizer}
    with gradlens.attach(loop.model, scaler=loop.scaler, **options) as lens:
        loop.run(4, None if counted == "by the optimizer" else lens.step)
    recording = lens.recording
    assert recording.steps["step"].tolist() == [0, 1, 2, 3]
    assert recording.steps["loss_scale"].tolist() == [1024, 1024, 512, 512]
    assert recording.norms.groupby("step")["nonfinite"].max().tolist() == [0, 20, 0, 0]
    assert (recording.params.query("step == 1")["nonfinite"] > 0).all()
    for step in (0, 2, 3):
        same(recording, unscaled(4), step)
    assert any("step 1" in problem and "Non-finite" in problem for problem in lens.audit().problems())
