"""GL311: the gradient norm is held against a reference, its own initialization, and the other blocks."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from analyses.expected import ANALYSIS
from gradlens.analysis import Finding, compare
from gradlens.recording import Recording

STEPS = 60


def run(
    level: float = 1.0, first: float | None = None, begins: int = 0, names: str = "blocks", width: int = 16, **meta: Any
) -> Recording:
    """Four blocks whose gradients are of one size, with a noise of a tenth."""
    random = np.random.default_rng(0)
    noise = np.exp(0.1 * random.normal(size=(STEPS, 4)))
    grads = level * noise
    if first is not None:
        grads[0] = first
    numbers, weights = np.arange(begins, begins + STEPS), [f"{names}.{block}.w.weight" for block in range(4)]
    params = pd.DataFrame({"step": np.repeat(numbers, 4), "name": weights * STEPS, "grad_norm": grads.ravel()})
    params["numel"] = width
    steps = pd.DataFrame({"step": numbers, "grad_norm": np.sqrt((grads**2).sum(1))})
    known = {"label": "run", "kind": "attached"} | meta
    return Recording.from_tables(known, params=params, steps=steps)


def judged(recording: Recording, **more: Any) -> Finding:
    (found,) = (f for f in compare([recording], [ANALYSIS], **more).findings)
    return found


@pytest.mark.parametrize(("level", "status"), [(0.01, "pass"), (1.0, "pass"), (5.0, "pass"), (40.0, "warn")])
def test_without_a_reference_its_own_first_step_says_what_to_expect(level: float, status: str) -> None:
    found = judged(run(level, first=1.0))
    assert found.status == status
    assert found.value == pytest.approx(level, rel=0.1)
    assert "at its own initialization (step 0)" in found.claim


@pytest.mark.parametrize(
    ("level", "status"), [(1.0, "pass"), (2.0, "pass"), (0.5, "pass"), (8.0, "warn"), (0.1, "warn")]
)
def test_a_reference_says_it_better(level: float, status: str) -> None:
    found = judged(run(level), reference=run(1.0, label="good"))
    assert found.status == status
    assert found.value == pytest.approx(level, rel=1e-6)
    assert "the reference run good" in found.claim


def test_a_reference_is_not_judged_itself() -> None:
    comparison = compare([run()], reference=run(label="good"))
    assert {f.subject for f in comparison.findings} <= {"", "run"}
    assert [r.meta["kind"] for r in comparison.recordings] == ["attached", "reference"]


def test_a_reference_of_another_model_is_told() -> None:
    found = judged(run(), reference=run(label="good", names="layers", width=32))
    assert found.status == "not applicable"
    assert "another model" in found.claim


@pytest.mark.parametrize("names", ["_orig_mod.blocks", "module.blocks", "layers"])
def test_a_reference_whose_names_have_a_wrapper_or_are_new_is_the_same_model(names: str) -> None:
    """A compiled model, one under DataParallel, or one whose stack was given another name."""
    found = judged(run(8.0), reference=run(1.0, label="good", names=names))
    assert found.status == "warn"
    assert found.value == pytest.approx(8.0, rel=1e-6)
    assert found.sites[0].startswith("blocks.")


def test_a_recording_that_begins_late_has_nothing_to_be_held_against() -> None:
    found = judged(run(begins=500))
    assert found.status == "not applicable"
    assert "--reference" in found.remedies[0]


def test_the_same_variant_at_initialization_over_seeds_counts_before_its_own_first_step() -> None:
    at_init = run(0.5, kind="init", variant="pre-ln", label="init")
    found = compare([run(1.0, variant="pre-ln"), at_init], [ANALYSIS]).findings
    assert [f.subject for f in found] == ["run"]
    assert found[0].value == pytest.approx(2.0, rel=0.1)
    assert "60 seeds" in found[0].claim
