"""What counts as named: the outcome, the place, the step; and the classic thresholds on recordings made by hand."""

import numpy as np
import pandas as pd
import pytest

from gradlens.analysis import Finding
from gradlens.recording import Recording
from tests.calibration.classic import classic
from tests.calibration.faults import KINDS, Case
from tests.calibration.judge import against, names, onset


def found(code: str, **facts: object) -> Finding:
    return Finding(code=code, status="warn", claim=str(facts.pop("claim", "run: it is so.")), analysis="a", **facts)


BRANCH = Case(KINDS["branch times 0"], "gpt", "gross", "later")


@pytest.mark.parametrize(
    ("codes", "outcome"),
    [
        (["GL309"], "first"),
        (["GL401", "GL306"], "first"),
        (["GL306", "GL204", "GL309"], "first three"),
        (["GL306", "GL204", "GL403", "GL309"], "other"),
        (["GL306", "GL305"], "generic"),
        (["GL306", "GL204"], "other"),
        ([], "silent"),
    ],
)
def test_the_outcome_goes_by_the_first_three_causes(codes: list[str], outcome: str) -> None:
    assert against(BRANCH, [found(code) for code in codes])["outcome"] == outcome


def test_place_and_step_are_those_of_the_right_cause() -> None:
    wrong = found("GL306", onset=10, sites=("blocks.0",))
    right = found("GL309", onset=82, sites=("blocks.2.mlp",))
    assert against(BRANCH, [wrong, right]) | {"place": True, "step": True} == against(BRANCH, [wrong, right])
    assert against(BRANCH, [wrong])["place"] is False
    assert against(BRANCH, [found("GL309", onset=84)])["step"] is False
    start = Case(BRANCH.kind, "gpt", "gross", "start")
    assert against(start, [right])["step"] is None


def test_a_place_is_named_by_it_by_what_is_in_it_and_by_its_block() -> None:
    assert names(found("GL407", sites=("blocks.2.norm1.weight",)), "blocks.2.norm1")
    assert names(found("GL407", sites=("blocks.2",)), "blocks.2.norm1")
    assert names(found("GL407", claim="run: the gain of blocks.2.norm1 is 0."), "blocks.2.norm1")
    assert not names(found("GL407", sites=("blocks.20",)), "blocks.2")
    assert not names(found("GL407", claim="run: blocks.21 is dead."), "blocks.2")
    assert not names(found("GL407", sites=("blocks",)), "blocks.2.norm1")
    assert not names(found("GL407", sites=("a", "b", "c", "blocks.2")), "blocks.2")


def test_the_step_is_the_onset_and_else_the_first_that_shows_it() -> None:
    assert onset(found("GL309", onset=5, steps=(1, 2))) == 5
    assert onset(found("GL303", steps=(9, 7))) == 7
    assert onset(found("GL303")) is None


def recorded(first: float = 1.0, last: float = 1.0, spike: float = 1.0) -> Recording:
    """Two blocks of one parameter of 100 entries each over 60 steps, and a loss around 1 with a spike in step 50."""
    steps = np.arange(60)
    loss = 1 + 0.01 * np.sin(steps)
    loss[50] *= spike
    params = [
        pd.DataFrame({"step": steps, "name": f"blocks.{i}.w", "numel": 100, "grad_norm": norm})
        for i, norm in enumerate((first, last))
    ]
    sites = pd.DataFrame({"site": ["blocks.0", "blocks.1"], "kind": "block", "block": [0, 1], "order": [0, 1]})
    return Recording.from_tables(
        {"kind": "attached"}, sites=sites, params=pd.concat(params), steps=pd.DataFrame({"step": steps, "loss": loss})
    )


@pytest.mark.parametrize(
    ("facts", "crossed"),
    [
        ({}, []),
        ({"first": 0.9e-6, "last": 1e-6}, ["vanished"]),
        ({"first": 1.1e-6, "last": 1.2e-6}, []),
        ({"first": 71.0}, ["ratio"]),
        ({"last": 1100.0}, ["ratio"]),
        ({"spike": 1.02}, []),
        ({"spike": 1.1}, ["spike"]),
    ],
)
def test_the_classic_thresholds_are_where_they_are_said_to_be(facts: dict[str, float], crossed: list[str]) -> None:
    assert classic(recorded(**facts)) == crossed
