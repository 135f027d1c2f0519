"""GL323 on planted differences: what is beyond rounding, and in which place first."""

import pandas as pd
import pytest

from gradlens.analysis import Finding
from gradlens.recording import Recording
from tests.analyses.parting.pairs import judged


def held(output: float, gradient: float, precision: str = "float64", mapped: int = 4) -> Finding:
    """Judge the output of ``b``, and the gradient of its weight, that are off by so much."""
    rows = [("a", "output", 0.0), ("b", "output", output), ("b.weight", "gradient", gradient)]
    probes = pd.DataFrame(rows, columns=["site", "name", "value"])
    probes = probes.assign(step=0, probe="same_weights", unit=f"of the norm, {precision}")
    told = {"first": "one", "weights": 4, "mapped": mapped, "renamed": {}, "removed": [], "added": []}
    steps = pd.DataFrame({"step": [0]})
    one = Recording.from_tables({"kind": "init", "label": "one", "same_weights": {}}, steps=steps)
    other = Recording.from_tables({"kind": "init", "label": "two", "same_weights": told}, steps=steps, probes=probes)
    return judged(one, other)["GL323"]


@pytest.mark.parametrize(
    ("output", "gradient", "status"),
    [(0.0, 0.0, "pass"), (2e-7, 2e-6, "pass"), (2e-6, 2e-6, "warn"), (2e-7, 2e-5, "warn")],
)
def test_gradients_have_more_room_than_outputs(output: float, gradient: float, status: str) -> None:
    found = held(output, gradient)
    assert found.status == status
    assert ("bit for bit" in found.claim) == (output == gradient == 0)
    if status == "warn":
        first = output > 1e-6
        assert (found.born, found.sites[0]) == (("forward", "b") if first else ("backward", "b.weight"))
        assert f"the same before it is the output of {'a' if first else 'b'}" in found.claim


def test_a_models_own_precision_has_more_room() -> None:
    assert held(5e-5, 5e-4, "own").status == "pass"
    assert held(2e-4, 0.0, "own").status == "warn"


def test_where_most_weights_are_each_models_own_nothing_is_judged() -> None:
    assert held(1.0, 1.0, mapped=1).status == "not applicable"
