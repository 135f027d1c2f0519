"""The look at a model's output changes nothing, breaks nothing, and is kept."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gradlens
from gradlens.recording import Recording
from tests.lens.networks import WIDTH, stack
from tests.lens.test_outputs import batches, mlp, outputs


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_training_has_the_same_bits_and_the_same_random_numbers(dtype: torch.dtype) -> None:
    def trained(watched: bool) -> tuple[list[Tensor], Tensor]:
        model = nn.Sequential(mlp(), nn.Dropout(0.3)).to(dtype)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        lens = gradlens.attach(model, optimizer=optimizer, strict=True) if watched else None
        torch.manual_seed(3)
        for x, y in batches(16, 8):
            optimizer.zero_grad()
            F.cross_entropy(model(x.to(dtype)), y).backward()
            optimizer.step()
        if lens is not None:
            lens.detach()
        return [p.detach().clone() for p in model.parameters()], torch.rand(3)

    (with_lens, after), (without, other) = trained(True), trained(False)
    assert torch.equal(after, other)
    assert all(torch.equal(a, b) for a, b in zip(with_lens, without, strict=True))


def test_a_compiled_model_breaks_no_graph_and_leaves_no_row() -> None:
    model = mlp()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradlens.attach(model, optimizer=optimizer, strict=True) as lens:
        for x, y in batches(16, 8):
            optimizer.zero_grad()
            F.cross_entropy(compiled(x), y).backward()
            optimizer.step()
    assert lens.recording.outputs.empty
    assert len(lens.recording.norms)


def test_what_fails_at_the_output_silences_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Any) -> Tensor:
        raise RuntimeError("no")

    monkeypatch.setattr("gradlens.lens.taps.output.reduced", fails)
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradlens.attach(model, optimizer=optimizer) as lens:
        for x, y in batches(16, 8):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    assert "no" in lens.audit().unsupported["the model's output"]
    assert lens.recording.steps["step"].tolist() == [0, 1, 2, 3]
    assert lens.recording.norms["step"].nunique() == 4


def test_a_run_folder_keeps_the_table_and_one_without_it_reads_empty(tmp_path: Path) -> None:
    found = outputs(mlp(), batches(16, 8), out=tmp_path / "run")
    pd.testing.assert_frame_equal(gradlens.load(tmp_path / "run").outputs, found)
    earlier = Recording.from_tables({"kind": "attached"})
    assert earlier.outputs.empty


def test_gradients_that_were_not_zeroed_are_counted() -> None:
    for zero, older in ((True, 0), (False, 3)):
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        with gradlens.attach(model, optimizer=optimizer) as lens:
            for x, y in batches(16, 8):
                if zero:
                    optimizer.zero_grad(set_to_none=False)
                for part in (slice(8), slice(8, None)):
                    (F.cross_entropy(model(x[part]), y[part]) / 2).backward()
                optimizer.step()
        assert lens.audit().setting["older"] == older


def test_a_trace_and_a_transform_of_the_model_are_left_alone() -> None:
    model = mlp().eval()
    (x, y) = next(batches(4, 8))
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(values: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(torch.func.functional_call(model, values, (x,)), y)

    expected = torch.jit.trace(model, x, check_trace=False).graph
    with gradlens.attach(model, strict=True) as lens:
        traced = torch.jit.trace(model, x, check_trace=False).graph
        torch.func.grad(loss)(parameters)
        F.cross_entropy(model(x), y).backward()
        lens.step()
    assert [node.kind() for node in traced.nodes()] == [node.kind() for node in expected.nodes()]
    assert not lens.stopped
    assert (lens.recording.outputs["passes"] == 1).all()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without torch.distributed")
def test_an_output_whose_gradient_is_none_is_no_failure(tmp_path: Path) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = stack()

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            y = self.net(x)
            return {"loss": y.square().mean(), "logits": y}

    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model = nn.parallel.DistributedDataParallel(Two(), find_unused_parameters=True)
        with gradlens.attach(model, strict=True) as lens:
            for _ in range(2):
                model(torch.randn(4, 5, WIDTH))["loss"].backward()
                lens.step()
                model.zero_grad()
        assert lens.recording.norms["rescaling"].notna().all()
        assert lens.audit().problems() == []
    finally:
        torch.distributed.destroy_process_group()
