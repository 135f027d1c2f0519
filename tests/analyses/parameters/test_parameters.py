"""``parameters`` finds what was planted into tables."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analyses.parameters import ANALYSIS
from analyses.parameters.places import places
from gradlens.analysis import Finding
from gradlens.analysis.figures import draw
from gradlens.recording import Recording
from tests.analyses.pictures import faults

STEPS, BLOCKS = 60, 4
LEAVES = ("attention.key.weight", "attention.key.bias", "ffn.weight", "norm.weight", "norm.bias")
NAMES = ("embedding.weight", *(f"blocks.{b}.{leaf}" for b in range(BLOCKS) for leaf in LEAVES), "head.weight")


def numel(name: str) -> int:
    return 1024 if name.endswith("weight") and "norm" not in name else 32


def recorded(
    gradient: Mapping[str, float] | None = None,
    *,
    steps: int = STEPS,
    clip: Sequence[float] | None = None,
    update: float | Sequence[float] | None = None,
    scale: float = 1.0,
    kind: str = "attached",
) -> Recording:
    """A run in which every entry's gradient is 1 in each step, but for the parameters that begin as named."""
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    moved = np.broadcast_to(np.nan if update is None else np.asarray(update, dtype=float), steps)
    for step in range(steps):
        for name in NAMES:
            size = numel(name)
            own = next((g for start, g in (gradient or {}).items() if name.startswith(start)), 1.0)
            norm = scale * own * np.sqrt(size) * np.exp(0.05 * rng.standard_normal())
            rows.append({"step": step, "name": name, "numel": size, "grad_norm": norm, "weight_norm": 2.0})
            matrix = size > 32 or update is None
            rows[-1]["update_norm"] = 2.0 * (moved[step] if matrix else 1.0)  # gains and biases move far
    table = pd.DataFrame({"step": range(steps), "loss": 1.0})
    table["clip_coef"] = np.nan if clip is None else clip
    sites = [{"site": f"blocks.{b}", "kind": "block", "block": b} for b in range(BLOCKS)]
    sites += [{"site": f"blocks.{b}.norm", "kind": "norm", "block": b} for b in range(BLOCKS)]
    tables = {"sites": pd.DataFrame(sites), "steps": table, "params": pd.DataFrame(rows)}
    return Recording.from_tables({"kind": kind, "label": "run"}, **tables)


def judged(recording: Recording) -> dict[str, Finding]:
    return {finding.code: finding for finding in ANALYSIS.judge(ANALYSIS.compute([recording]))}


def test_of_a_whole_model_all_that_is_known_passes() -> None:
    found = judged(recorded())
    statuses = {"GL401": "pass", "GL402": "pass", "GL403": "not applicable", "GL404": "not applicable"}
    statuses |= dict.fromkeys(("GL405", "GL406", "GL407", "GL408"), "not applicable")
    assert {code: finding.status for code, finding in found.items()} == statuses


@pytest.mark.parametrize(
    ("gradient", "kind", "status"),
    [(0.0, "attached", "fail"), (np.nan, "attached", "warn"), (np.nan, "training", "fail"), (1e-9, "attached", "warn")],
)
def test_a_block_without_a_gradient_is_named_whole(gradient: float, kind: str, status: str) -> None:
    found = judged(recorded({"blocks.1": gradient}, kind=kind))["GL401"]
    assert found.status == status
    assert found.sites == ("blocks.1",)
    assert "the whole of blocks.1" in found.claim


def test_what_was_frozen_on_purpose_is_no_fault_and_what_was_not_is() -> None:
    recording = recorded({"blocks.1": np.nan, "blocks.2": np.nan})
    tables = {"sites": recording.sites, "steps": recording.steps, "params": recording.params}
    every = [name for name in recording.params["name"].unique() if name.startswith("blocks.1.")]
    found = judged(Recording.from_tables({**recording.meta, "frozen": every}, **tables))["GL401"]
    assert (found.status, found.sites) == ("fail", ("blocks.2",))
    both = [name for name in recording.params["name"].unique() if name.startswith(("blocks.1.", "blocks.2."))]
    between = judged(Recording.from_tables({**recording.meta, "frozen": both}, **tables))["GL401"]
    assert (between.status, between.sites) == ("warn", ("blocks.1", "blocks.2"))  # told, and no failure


def test_single_parameters_ask_for_a_look_and_are_named() -> None:
    found = judged(recorded({"blocks.2.ffn": 0.0, "head": np.nan}))["GL401"]
    assert found.status == "warn"
    assert found.sites == ("blocks.2.ffn.weight", "head.weight")
    assert found.value == 2
    assert "2 of 22 parameters" in found.claim


def test_of_many_parameters_a_few_are_named_and_the_others_counted() -> None:
    found = judged(recorded({f"blocks.{b}.norm": 0.0 for b in range(BLOCKS)}))["GL401"]
    assert "blocks.0.norm.weight, blocks.0.norm.bias, blocks.1.norm.weight and 5 others" in found.claim


def test_a_bias_whose_gradient_is_rounding_is_no_fault() -> None:
    found = judged(recorded({f"blocks.{b}.attention.key.bias": 1e-8 for b in range(BLOCKS)}))["GL401"]
    assert found.status == "pass"
    assert "of 4 biases it is 0 or rounding" in found.claim


def test_what_a_factor_of_zero_holds_back_in_the_first_step_alone_is_no_fault() -> None:
    recording = recorded()
    params = recording.params
    params.loc[(params["step"] == 0) & params["name"].str.startswith("blocks"), "grad_norm"] = 0.0
    tables = {"sites": recording.sites, "steps": recording.steps}
    assert judged(Recording.from_tables(recording.meta, params=params, **tables))["GL401"].status == "pass"


def test_of_three_steps_nothing_is_said_about_gradients_that_never_come() -> None:
    assert judged(recorded({"blocks.1": 0.0}, steps=3))["GL401"].status == "inconclusive"


def test_without_any_gradient_there_is_nothing_to_compare() -> None:
    assert judged(recorded({"": np.nan}))["GL401"].status == "not applicable"


@pytest.mark.parametrize(("times", "status"), [(1.0, "pass"), (20.0, "pass"), (200.0, "warn")])
def test_a_parameter_that_holds_the_gradient_is_told_with_its_share(times: float, status: str) -> None:
    found = judged(recorded({"head": times}))["GL402"]
    others = sum(numel(name) for name in NAMES) - 1024
    assert found.status == status
    assert found.value == pytest.approx(1024 * times**2 / (1024 * times**2 + others), abs=0.02)
    if status == "warn":
        assert found.sites == ("head.weight",)


@pytest.mark.parametrize(
    ("clip", "status"),
    [
        ([1.0] * STEPS, "not applicable"),
        ([0.3] * 3 + [1.0] * (STEPS - 3), "pass"),
        ([0.7] * STEPS, "pass"),
        ([0.3] * STEPS, "warn"),
        ([1e-4] * 40 + [1.0] * (STEPS - 40), "warn"),
    ],
)
def test_clipping_is_judged_by_how_often_and_by_how_much(clip: Sequence[float], status: str) -> None:
    found = judged(recorded(clip=clip))["GL403"]
    assert found.status == status
    if status == "warn":
        assert found.value == np.median(clip)


def test_clipping_in_a_short_run_is_not_judged_hard() -> None:
    assert judged(recorded(steps=20, clip=[1e-3] * 20))["GL403"].status == "inconclusive"


@pytest.mark.parametrize(
    ("update", "status"),
    [
        (1e-3, "pass"),
        (0.3, "warn"),
        (1e-8, "warn"),
        ([1e-3] * 5 + [1e-9] * (STEPS - 5), "pass"),
        ([100.0] + [1e-3] * (STEPS - 1), "warn"),
    ],
)
def test_an_update_is_held_against_its_matrix(update: float | Sequence[float], status: str) -> None:
    found = judged(recorded(update=update))["GL404"]
    assert found.status == status
    assert found.value == pytest.approx(np.exp(np.log(np.broadcast_to(update, STEPS)).mean()))


def test_large_updates_of_a_short_run_are_those_of_its_beginning() -> None:
    assert judged(recorded(steps=20, update=0.3))["GL404"].status == "inconclusive"


def test_a_loss_of_another_scale_changes_no_verdict() -> None:
    planted = {"blocks.1": 0.0, "head": 200.0, "blocks.0.attention.key.bias": 1e-8}
    one, other = judged(recorded(planted)), judged(recorded(planted, scale=1e-6))
    assert {c: (f.status, f.sites) for c, f in one.items()} == {c: (f.status, f.sites) for c, f in other.items()}
    assert one["GL402"].value == pytest.approx(other["GL402"].value)


def test_groups_are_blocks_and_modules_and_the_picture_holds_their_norms() -> None:
    recording = recorded()
    table = ANALYSIS.compute([recording])
    cells = table[table["panel"] == "gradient"]
    assert list(dict.fromkeys(cells["group"])) == ["embedding", *(f"blocks.{b}" for b in range(BLOCKS)), "head"]
    inside = recording.params[recording.params["name"].str.startswith("blocks.2.")]
    norm = np.sqrt((inside["grad_norm"] ** 2).groupby(inside["step"]).sum())
    drawn = cells[cells["group"] == "blocks.2"].set_index("x")["value"]
    np.testing.assert_allclose(drawn, norm)


def test_a_long_run_is_drawn_in_few_columns_and_gradients_that_never_come_are_hatched() -> None:
    table = ANALYSIS.compute([recorded({"blocks.1": np.nan}, steps=250)])
    cells = table[table["panel"] == "gradient"]
    assert cells["x"].nunique() == 100
    assert cells["high"].max() == 249
    assert cells.loc[cells["group"] == "blocks.1", "value"].isna().all()
    assert ANALYSIS.caption is not None
    assert "Hatched" in ANALYSIS.caption(table)
    assert "Hatched" not in ANALYSIS.caption(ANALYSIS.compute([recorded()]))
    assert faults(draw(ANALYSIS, table)) == []


def test_matrices_are_what_is_no_bias_and_no_gain() -> None:
    table = places(recorded())
    matrices = set(table.loc[table["matrix"], "name"])
    assert {"embedding.weight", "blocks.0.ffn.weight", "head.weight"} <= matrices
    assert not any("norm" in name or "bias" in name for name in matrices)
