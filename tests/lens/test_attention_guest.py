"""The look at attention changes nothing, sees nothing else, breaks nothing, and is kept."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import gradlens
from tests.lens.test_attention import WIDTH, Attention, Model, manual, recorded, x

SDPA, SOFTMAX, METHOD = F.scaled_dot_product_attention, torch.softmax, vars(Tensor).get("softmax")


def eager() -> Model:
    return Model(Attention(manual(lambda scores: scores.softmax(-1))))


def fused() -> Model:
    return Model(Attention(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, dropout_p=0.1, is_causal=True)))


def untouched() -> bool:
    here = F.scaled_dot_product_attention is SDPA and torch.softmax is SOFTMAX
    return here and vars(Tensor).get("softmax") is METHOD


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("build", [eager, fused])
def test_the_training_has_the_same_bits_and_the_same_random_numbers(build: Any, dtype: torch.dtype) -> None:
    def trained(watch: tuple[str, ...] | None) -> tuple[list[Tensor], Tensor]:
        torch.manual_seed(2)
        model = build().to(dtype)
        if watch is not None:
            recorded(model, x().to(dtype), 4)
        else:
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            for _ in range(4):
                optimizer.zero_grad()
                model(x().to(dtype)).square().mean().backward()
                optimizer.step()
        return list(model.parameters()), torch.rand(3)

    (with_lens, after), (without, other) = trained(("norms", "attention")), trained(None)
    assert torch.equal(after, other)
    assert all(torch.equal(a, b) for a, b in zip(with_lens, without, strict=True))


def test_without_the_watch_no_function_is_touched_and_with_it_only_while_a_step_runs() -> None:
    inside = []

    class Asks(Attention):
        def forward(self, x: Tensor) -> Tensor:
            inside.append(untouched())
            return super().forward(x)

    model = Model(Asks(lambda q, k, v: F.scaled_dot_product_attention(q, k, v)))
    with gradlens.attach(model) as lens:
        model(x()).sum().backward()
        lens.step()
    assert lens.recording.attention.empty
    assert len(recorded(model, x()))
    assert inside == [True, False]
    assert untouched()


def test_a_forward_pass_that_raises_leaves_nothing_behind_after_the_lens() -> None:
    model = eager()
    with pytest.raises(RuntimeError), gradlens.attach(model, watch=("norms", "attention")):
        model(torch.randn(2, 3, WIDTH + 1))
    assert untouched()


def test_evaluations_and_what_others_compute_are_no_rows() -> None:
    model, other = eager(), eager()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradlens.attach(model, watch=("norms", "attention"), optimizer=optimizer) as lens:
        with torch.no_grad():
            model(x())
        y = model(x())
        other(x())
        y.sum().backward()
        optimizer.step()
    assert lens.recording.attention["sampled"].tolist() == [27] * 4


def test_softmax_of_what_is_no_product_of_two_tensors_is_not_attention() -> None:
    class Router(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.to_experts, self.plain = nn.Linear(WIDTH, 5), nn.Linear(WIDTH, 5, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            gates = [self.to_experts(x).softmax(-1), F.softmax(self.plain(x), -1), (x @ self.plain.weight.T).softmax(2)]
            gates += [torch.softmax(x, 1), (x @ x.transpose(1, 2)).softmax(1)[..., :5], x.softmax(-1)[..., :5]]
            return torch.stack([gate.sum() for gate in gates])

    assert recorded(Model(Router()), x()).empty


@pytest.mark.parametrize("build", [eager, fused])
@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpointed_block_is_seen_once(build: Any, reentrant: bool) -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = build()

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.model.stem(x)
            out: Tensor = checkpoint(self.model.inner, hidden, use_reentrant=reentrant)
            return out

    rows = recorded(Checkpointed(), x())
    assert rows["site"].tolist() == ["model.inner"] * 4
    assert rows["call"].tolist() == [0] * 4


def test_micro_batches_add_up_and_calls_are_told_apart() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = eager()

        def forward(self, x: Tensor) -> Tensor:
            return self.model.inner(self.model(x))

    model = Twice()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradlens.attach(model, watch=("norms", "attention"), optimizer=optimizer, strict=True) as lens:
        for _ in range(2):
            model(x()).sum().backward()
        optimizer.step()
    rows = lens.recording.attention
    assert rows["call"].tolist() == [0] * 4 + [1] * 4
    assert set(rows["sampled"]) == {2 * 27}


@pytest.mark.parametrize("part", [False, True])
def test_a_compiled_model_breaks_no_graph_and_the_audit_says_what_is_missing(part: bool) -> None:
    model = eager()
    if part:
        model.inner.compile(backend="aot_eager", fullgraph=True)
    run = model if part else torch.compile(model, backend="aot_eager", fullgraph=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradlens.attach(model, watch=("norms", "attention"), optimizer=optimizer, strict=True) as lens:
        for _ in range(2):
            run(x()).sum().backward()
            optimizer.step()
    assert lens.recording.attention.empty
    assert "compiled" in lens.audit().unsupported["any attention"]


def test_what_is_compiled_while_the_functions_are_wrapped_is_compiled_as_they_are() -> None:
    model = eager()
    compiled = torch.compile(lambda s: F.softmax(s, -1) + s.softmax(-1) + torch.softmax(s, -1), backend="eager",
                             fullgraph=True)  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradlens.attach(model, watch=("norms", "attention"), optimizer=optimizer, strict=True):
        y = model(x())
        scores = torch.randn(2, 3, 4, 4)
        assert not untouched()
        assert torch.equal(compiled(scores), 3 * scores.softmax(-1))
        y.sum().backward()


def test_what_fails_at_attention_silences_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Any) -> Tensor:
        raise RuntimeError("no")

    monkeypatch.setattr("gradlens.lens.attention.sums", fails)
    model = eager()
    with gradlens.attach(model, watch=("norms", "params", "attention")) as lens:
        model(x()).sum().backward()
        lens.step()
    assert lens.recording.attention.empty
    assert len(lens.recording.params)
    assert "a hook failed in step 0" in lens.audit().unsupported["any attention"]


def test_a_run_folder_keeps_the_rows(tmp_path: Path) -> None:
    torch.manual_seed(2)
    kept = recorded(fused(), x(), 3)
    torch.manual_seed(2)
    recorded(fused(), x(), 3, out=tmp_path / "run")
    read = gradlens.load(tmp_path / "run").attention
    pd.testing.assert_frame_equal(read, kept)
    assert read["step"].unique().tolist() == [0, 1, 2]


def test_inside_of_a_transform_it_is_left_out_and_the_audit_says_so() -> None:
    model = fused()
    parameters = dict(model.named_parameters())

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        out: Tensor = torch.func.functional_call(model, parameters, (x(),)).sum()
        return out

    with gradlens.attach(model, watch=("norms", "attention"), strict=True) as lens:
        torch.func.grad(loss)(parameters)
        lens.step()
    assert lens.recording.attention.empty
    assert "torch.func" in lens.audit().unsupported["inner"]
