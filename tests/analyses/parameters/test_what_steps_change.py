"""GL404 by sampled updates, GL405 to GL407: trainings with a fault planted, and tables of what is innocent."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import gradlens
from analyses.parameters import ANALYSIS
from gradlens.analysis import Finding
from gradlens.recording import Recording
from tests.analyses.trained import mlp, points, sequences, transformer

Change = Callable[[int, nn.Module, torch.optim.Optimizer], None]


def plain() -> nn.Module:
    """Without norms: where one stands before the activation the rows of the matrix before it are never dead."""
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 5))


def nothing(step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Plant no fault."""


def train(
    model: nn.Module,
    batches: Callable[[int], tuple[Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
    change: Change = nothing,
    steps: int = 60,
) -> Recording:
    """Train with cross-entropy, changing something before each step, and record what is recorded unasked."""
    with gradlens.attach(model, optimizer=optimizer, label="run") as lens:
        for step in range(steps):
            change(step, model, optimizer)
            x, y = batches(step)
            out = model(x.to(next(model.parameters()).dtype) if x.is_floating_point() else x)
            loss = nn.functional.cross_entropy(out.float().flatten(0, -2), y.flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            lens.step(loss=loss)
    return lens.recording


def judged(recording: Recording) -> dict[str, Finding]:
    table = ANALYSIS.compute([recording])
    return {finding.code: finding for finding in ANALYSIS.judge(table)}


def sgd(model: nn.Module, lr: float = 0.1, **options: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=lr, **options)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


NEW = ("GL404", "GL405", "GL406", "GL407")


@pytest.mark.parametrize("name", ["mlp, SGD", "mlp, Adam", "transformer, AdamW"])
def test_a_healthy_run_passes_all_of_them(name: str) -> None:
    if name.startswith("mlp"):
        model = mlp()
        own = sgd(model) if name.endswith("SGD") else torch.optim.Adam(model.parameters(), lr=1e-2)
        recording = train(model, points(), own)
    else:
        model = transformer()
        recording = train(model, sequences(), torch.optim.AdamW(model.parameters(), lr=3e-3), steps=40)
    found = judged(recording)
    assert {code: found[code].status for code in NEW} == dict.fromkeys(NEW, "pass")


def test_a_rate_that_becomes_far_too_large_is_told_with_its_step_and_place() -> None:
    def raise_it(step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.param_groups[0]["lr"] = 1e-2 if step < 40 else 5.0

    model = mlp()
    found = judged(train(model, points(), torch.optim.Adam(model.parameters()), raise_it, steps=70))["GL404"]
    assert found.status == "warn"
    assert found.onset is not None
    assert abs(found.onset - 40) <= 3
    assert set(found.sites) <= {"0.weight", "3.weight", "6.weight"}
    assert found.sites
    assert "GL306" in found.explains


def test_a_rate_that_is_too_large_from_the_start_has_no_onset_and_one_too_small_raises_the_rate() -> None:
    model = mlp()
    found = judged(train(model, points(), sgd(model, 1e3)))["GL404"]
    assert (found.status, found.onset) == ("warn", None)
    assert found.remedies == ("Lower the learning rate.",)
    model = mlp()
    found = judged(train(model, points(), sgd(model, 1e-9)))["GL404"]
    assert (found.status, found.remedies) == ("warn", ("Raise the learning rate.",))


def test_the_interval_holds_the_error_of_sampling() -> None:
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(
        {"step": step, "name": f"{m}.weight", "numel": 10**6, "grad_norm": 1.0, "weight_norm": 2.0,
         "update_ratio": 1e-3 * np.exp(0.001 * rng.standard_normal()), "update_ratio_error": error}
        for error in (0.0, 0.02) for step in range(60) for m in range(4)
    )  # fmt: skip
    widths = []
    for _, part in rows.groupby("update_ratio_error"):
        steps = pd.DataFrame({"step": range(60), "loss": 1.0})
        found = judged(Recording.from_tables({"kind": "attached", "label": "run"}, steps=steps, params=part))["GL404"]
        assert found.low is not None
        assert found.high is not None
        widths.append(np.log(found.high / found.low))
    assert widths[0] < 0.01
    assert widths[1] == pytest.approx(2 * 1.96 * 0.02, rel=0.05)


def test_a_module_that_the_optimizer_does_not_hold_is_named() -> None:
    model = mlp()
    held = [p for name, p in model.named_parameters() if not name.startswith("3.")]
    found = judged(train(model, points(), torch.optim.SGD(held, lr=0.1), steps=20))["GL405"]
    assert found.status == "warn"
    assert found.sites == ("3.weight", "3.bias")
    assert "nobody wrote to them" in found.claim


def test_a_group_whose_rate_is_0_is_named_and_so_is_a_block_as_a_whole() -> None:
    model = transformer()
    blocks: Any = model.blocks
    still = list(blocks[1].parameters())
    rest = [p for p in model.parameters() if all(p is not q for q in still)]
    own = torch.optim.Adam([{"params": rest}, {"params": still, "lr": 0.0}], lr=3e-3)
    found = judged(train(model, sequences(), own, steps=15))["GL405"]
    assert found.status == "warn"
    assert found.sites[0] == "blocks.1"
    assert "changed nothing" in found.claim


def test_what_is_frozen_is_no_fault_nor_what_rounding_alone_holds() -> None:
    model = mlp()
    model[3].requires_grad_(False)
    assert judged(train(model, points(), sgd(model), steps=20))["GL405"].status == "pass"
    # A bias before BatchNorm has a gradient of rounding, which no step of SGD shows beside the bias.
    model = nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 5))
    nn.init.ones_(model[0].bias)
    found = judged(train(model, points(), sgd(model), steps=20))["GL405"]
    assert found.status == "pass", found.claim


@pytest.mark.parametrize(("lr", "status"), [(1e-5, "warn"), (1e-2, "pass")])
def test_weights_in_bfloat16_that_are_too_coarse_for_the_update_are_told(lr: float, status: str) -> None:
    model = mlp().to(torch.bfloat16)
    found = judged(train(model, points(), torch.optim.Adam(model.parameters(), lr=lr), steps=20))["GL405"]
    assert found.status == status, found.claim
    if status == "warn":
        assert "bfloat16" in found.claim
        assert "too coarse" in found.claim


@pytest.mark.parametrize("named", ["2.weight", "4.weight"], ids=["a matrix", "a norm before the activation"])
def test_units_that_never_fire_again_are_told_with_the_step_they_died_in(named: str) -> None:
    def kill(step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        if step == 25:
            with torch.no_grad():
                model[place].bias[:20] = -100.0

    model, place = (mlp(), 4) if named == "4.weight" else (plain(), 2)
    found = judged(train(model, points(), sgd(model), kill))["GL406"]
    assert found.status == "warn"
    assert found.sites == (named,)
    assert found.onset == 25
    assert found.value == pytest.approx(20 / 32, abs=0.04)


def test_units_that_are_dead_from_the_start_have_no_onset_and_a_few_dead_ones_pass() -> None:
    for dead, status in ((20, "warn"), (6, "pass")):
        model = plain()
        with torch.no_grad():
            model[2].bias[:dead] = -100.0
        found = judged(train(model, points(), sgd(model), steps=30))["GL406"]
        assert (found.status, found.onset) == (status, None), found.claim


def test_an_embedding_whose_words_are_rare_has_no_dead_units() -> None:
    model = nn.Sequential(nn.Embedding(500, 8), nn.Linear(8, 5))
    batches = lambda step: (torch.arange(8) + step % 3, torch.arange(8) % 5)  # noqa: E731
    assert judged(train(model, batches, sgd(model), steps=20))["GL406"].status == "not applicable"


@pytest.mark.parametrize(("factor", "word"), [(0.7, "next to nothing"), (1.3, "without bound")])
def test_a_gain_that_falls_to_0_or_grows_is_named_with_its_step(factor: float, word: str) -> None:
    def change(step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        if step >= 20:
            with torch.no_grad():
                model[1].weight *= factor

    model = mlp()
    found = judged(train(model, points(), sgd(model, 1e-3), change, steps=60))["GL407"]
    assert found.status == "warn"
    assert found.sites == ("1",)
    assert word in found.claim
    # Since it has left its start by half.
    expected = 20 + int(np.ceil(np.log(1 / 1.5 if factor < 1 else 1.5) / np.log(factor))) - 1
    assert found.onset == pytest.approx(expected, abs=2)


def test_a_gain_that_begins_at_0_is_not_judged() -> None:
    model = nn.Sequential(nn.Linear(16, 32), nn.LayerNorm(32), nn.Linear(32, 5))
    nn.init.zeros_(model[1].weight)
    assert judged(train(model, points(), sgd(model), steps=20))["GL407"].status == "not applicable"


def test_of_one_step_and_of_recordings_of_before_nothing_is_said() -> None:
    model = mlp()
    found = judged(train(model, points(), sgd(model), steps=1))
    assert [found[code].status for code in NEW] == ["inconclusive", "inconclusive", "not applicable", "not applicable"]
    model = mlp()
    recording = train(model, points(), sgd(model), steps=12)
    tables = {name: recording.table(name) for name in ("sites", "steps")}
    old = recording.params[["step", "name", "numel", "grad_norm", "grad_absmax", "weight_norm", "nonfinite"]]
    found = judged(Recording.from_tables({"kind": "attached", "label": "run"}, **tables, params=old))
    assert {found[code].status for code in NEW} == {"not applicable"}
    assert all("attach(" in found[code].claim for code in ("GL404", "GL405"))


def test_a_loss_that_is_cut_off_reaches_nothing() -> None:
    model = mlp()
    optimizer = sgd(model)
    with gradlens.attach(model, optimizer=optimizer, label="run") as lens:
        for step in range(10):
            x, _ = points()(step)
            optimizer.zero_grad()
            model(x).mean().detach().requires_grad_().backward()
            optimizer.step()
    found = judged(lens.recording)["GL401"]
    assert found.status == "fail"
    assert "no backward pass comes" in found.claim


@pytest.mark.parametrize(("frozen", "status"), [((1,), "warn"), ((0, 1), "pass"), ((2,), "pass")])
def test_a_block_that_is_frozen_between_others_is_told_and_the_front_of_a_model_is_not(frozen, status) -> None:
    model = transformer()
    for block in frozen:
        model.blocks[block].requires_grad_(False)
    own = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    found = judged(train(model, sequences(), own, steps=12))["GL401"]
    assert found.status == status
    assert found.sites == (("blocks.1",) if status == "warn" else ())


def rates(course: list[float], every: int = 1) -> Finding:
    steps = pd.DataFrame({"step": range(0, every * len(course), every), "lr": course, "grad_norm": 1.0})
    params = pd.DataFrame({"step": steps["step"], "name": "a.weight", "numel": 4, "grad_norm": 1.0, "weight_norm": 1.0})
    return judged(Recording.from_tables({"label": "run", "kind": "attached"}, steps=steps, params=params))["GL408"]


COSINE = [0.5 * (1 + np.cos(np.pi * step / 199)) for step in range(200)]
WARMED = [min(1.0, (step + 1) / 100) * 1e-3 for step in range(200)]


@pytest.mark.parametrize(
    "course", [COSINE, WARMED, WARMED[::10] * 2, [*COSINE, *COSINE], [1e-3] * 30, [1e-3] * 100 + [1e-4] * 100]
)
def test_schedules_that_warm_up_decay_and_restart_where_they_were_pass(course: list[float]) -> None:
    assert rates(course).status == "pass"


@pytest.mark.parametrize(
    ("course", "at"),
    [([1e-3] * 80 + [5e-2] + [1e-3] * 50, 80), ([1e-3] * 80 + [0.0] * 80, 80), (COSINE + [9.0] * 5, 200)],
)
def test_a_rate_that_jumps_or_ends_early_is_told_with_its_step(course: list[float], at: int) -> None:
    found = rates(course)
    assert (found.status, found.onset) == ("warn", at)


def test_clipping_that_begins_at_a_step_is_told_with_it() -> None:
    steps = pd.DataFrame({"step": range(160), "clip_coef": [1.0] * 80 + [1e-3] * 80, "grad_norm": 1.0})
    params = pd.DataFrame({"step": range(160), "name": "a.weight", "numel": 4, "grad_norm": 1.0, "weight_norm": 1.0})
    found = judged(Recording.from_tables({"label": "run", "kind": "attached"}, steps=steps, params=params))["GL403"]
    assert (found.status, found.onset) == ("warn", 80)


def test_an_optimizer_that_holds_other_parameters_moves_none() -> None:
    model, other = mlp(), mlp()
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
    with gradlens.attach(model, optimizer=optimizer, label="run") as lens:
        for step in range(20):
            x, y = points()(step)
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    found = {one.code: one for one in ANALYSIS.judge(ANALYSIS.compute([lens.recording]))}["GL405"]
    assert (found.status, found.sites) == ("warn", ("0", "1", "3", "4", "6"))
    assert "none of the 10 parameters" in found.claim
