"""GL809: weights at the start that are off as a whole, in one block, in an embedding; GL808: blocks that multiply."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import gradlens
from gradlens.analysis import Finding
from gradlens.recording import Recording
from tests.analyses.architecture.wired import SEQUENCES, Encoder, judged
from tests.analyses.trained import VOCAB, mlp, points, sequences, train, transformer


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@torch.no_grad()
def times(model: nn.Module, factor: float) -> nn.Module:
    for p in model.parameters():
        if p.dim() > 1:
            p.mul_(factor)
    return model


def start(model: nn.Module, steps: int = 2) -> Finding:
    tokens = any(isinstance(module, nn.Embedding) for module in model.modules())
    return judged(train(model, sequences() if tokens else points(), "SGD", 1e-3, steps=steps))["GL809"]


@pytest.mark.parametrize("build", [mlp, transformer, lambda: transformer("post-ln")], ids=["mlp", "pre-ln", "post-ln"])
@pytest.mark.parametrize("factor", [0.02, 1.0, 8.0])
def test_weights_that_are_off_as_a_whole_are_told_by_what_the_median_matrix_makes(
    build: Callable[[], nn.Module], factor: float
) -> None:
    model = times(build(), factor)
    own = [m.weight.detach() for m in model.modules() if isinstance(m, nn.Linear)]
    expected = torch.tensor([float(w.double().square().mean().sqrt() * math.sqrt(w.shape[1])) for w in own]).median()
    found = start(model)
    assert found.status == ("pass" if factor == 1 else "warn"), found.claim
    assert found.value == pytest.approx(float(expected), rel=0.05)


def test_large_weights_whose_size_is_taken_out_where_they_are_used_are_none() -> None:
    class Equalized(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(outputs, inputs))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.weight.T / self.weight.shape[1] ** 0.5

    found = start(nn.Sequential(Equalized(16, 64), nn.ReLU(), Equalized(64, 64), nn.ReLU(), Equalized(64, 5)))
    assert (found.status, found.value) == ("pass", pytest.approx(8, rel=0.1))


def test_a_recording_that_begins_later_says_nothing() -> None:
    whole = train(times(mlp(), 8.0), points(), steps=3)
    tables = {name: whole.table(name) for name in ("sites", "norms", "params", "steps")}
    later = {name: table[table["step"] > 0] if "step" in table else table for name, table in tables.items()}
    assert "GL809" not in judged(Recording.from_tables(whole.meta, **later))


def test_a_block_whose_matrices_are_all_0_is_named_and_one_whose_last_is_0_is_not() -> None:
    model = transformer()
    nn.init.zeros_(model.blocks[1].ffn.w2.weight)
    assert start(model).status == "pass"
    times(model.blocks[1], 0.0)
    found = start(model)
    assert (found.status, found.sites) == ("warn", ("blocks.1",))


class Words(nn.Module):
    """An embedding, a norm or none, and a head."""

    def __init__(self, norm: nn.Module, factor: float = 1.0) -> None:
        super().__init__()
        self.table, self.norm, self.head = nn.Embedding(VOCAB, 32), norm, nn.Linear(32, VOCAB)
        with torch.no_grad():
            self.table.weight[3] *= factor

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.table(x)))


def test_one_vector_that_drowns_the_rest_is_told_by_the_norm_behind_it_and_by_the_embeddings_size() -> None:
    assert start(Words(nn.LayerNorm(32), 8.0)).status == "pass"
    found = [f for f in _all(Words(nn.LayerNorm(32), 1000.0)) if f.code == "GL809"]
    assert {site for one in found for site in one.sites} == {"norm", "table.weight"}
    assert start(Words(nn.Identity(), 1000.0)).sites == ("table.weight",)


def _all(model: nn.Module) -> list[Finding]:
    recording = train(model, sequences(), "SGD", 1e-3, steps=2)
    return list(gradlens.compare([recording]).findings)


def test_padding_that_is_0_is_not_taken_for_it() -> None:
    model = Words(nn.LayerNorm(32))
    with torch.no_grad():
        model.table.weight[: VOCAB // 2] = 0.0
    assert start(model).status != "warn"


class Stretched(Encoder):
    """Each block multiplies its skip."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        for block in self.blocks:
            block.odd = lambda x, f: factor * x + f


@pytest.mark.parametrize(("factor", "status"), [(1.0, "pass"), (3.0, "warn")])
def test_blocks_that_each_multiply_the_stream_are_told(factor: float, status: str) -> None:
    recording = gradlens.at_init(
        lambda: Stretched(factor), SEQUENCES(0)[0], lambda output, batch: output.square().mean(), seeds=2
    )
    found = judged(recording)["GL808"]
    assert found.status == status, found.claim
    if status == "warn":
        assert found.value == pytest.approx(factor**2, rel=0.2)  # branches add to it
