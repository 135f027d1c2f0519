"""GL322 on planted losses, and what is made of numbers that are none or that differ as rounding does."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from gradlens.recording import Recording
from tests.analyses.parting.pairs import asked, judged
from tests.analyses.pictures import faults

STEPS, SAME = 100, 5


def run(
    label: str,
    factor: float = 1.0,
    *,
    noise: float = 0.05,
    own_noise: float = 0.0,
    weight: float = 1.0,
    gradients: float = 1.0,
    rounding: float = 0.0,
    rescaling: float = 0.02,
    loss: Any = None,
    **meta: Any,
) -> Recording:
    """A loss that falls from 4 to 2 with a noise that every run shares, later times a factor; four blocks.

    Args:
        label: of the recording.
        factor: of the loss from step ``SAME`` on.
        noise: that all runs share.
        own_noise: relative, of this one alone.
        weight: the norm of each weight.
        gradients: factor of the gradients of the last block.
        rounding: largest relative error of each number.
        rescaling: of its one norm.
        loss: instead, by step.
        meta: more of it.
    """
    steps = np.arange(STEPS)
    shared, own = np.random.default_rng(0), np.random.default_rng(sum(map(ord, label)))
    curve = 2 + 2 * np.exp(-steps / 15) + noise * shared.normal(size=STEPS)
    curve[SAME:] *= factor * (1 + own_noise * own.normal(size=STEPS - SAME))
    names = [f"blocks.{block}.w.weight" for block in range(4)]
    grads = np.abs(shared.normal(1, 0.1, size=(STEPS, 4))) * [1, 1, 1, gradients]
    grads = grads * (1 + rounding * own.uniform(-1, 1, size=grads.shape))
    params = pd.DataFrame({"step": np.repeat(steps, 4), "name": names * STEPS, "grad_norm": grads.ravel()})
    params = params.assign(numel=16, weight_norm=weight)
    table = pd.DataFrame({"step": steps, "loss": curve if loss is None else loss, "lr": 0.1})
    table["grad_norm"] = np.sqrt((grads**2).sum(1))
    norms = pd.DataFrame({"step": steps, "site": "norm", "call": 0, "rank": 0, "rescaling": rescaling})
    return Recording.from_tables({"kind": "attached", "label": label} | meta, steps=table, params=params, norms=norms)


@pytest.mark.parametrize(
    ("factor", "status"), [(0.9, "pass"), (1.0, "pass"), (1.015, "pass"), (1.03, "warn"), (2.0, "warn")]
)
def test_the_second_is_worse_by_more_than_a_share(factor: float, status: str) -> None:
    found = judged(run("before"), run("after", factor))["GL322"]
    assert found.status == status
    assert found.value == pytest.approx(factor - 1, abs=1e-9)
    assert ("for the better" in found.claim) == (factor < 1)


def test_the_order_of_the_two_decides() -> None:
    assert judged(run("after", 1.1), run("before"))["GL322"].status == "pass"


@pytest.mark.parametrize(("margin", "status"), [(0.01, "fail"), (0.05, "pass")])
def test_a_margin_stands_instead_of_the_limit_and_lets_runs_part(margin: float, status: str) -> None:
    found = judged(run("before"), run("after", 1.03, rounding=0.5), margin=margin)
    assert (found["GL322"].status, found["GL321"].status) == (status, "pass")


@pytest.mark.parametrize(
    ("after", "value", "status"),
    [
        ({}, 1.0, "pass"),
        ({"gradients": 3.0}, np.sqrt(12 / 4), "warn"),
        ({"gradients": 0.1}, np.sqrt(3.01 / 4), "warn"),
        ({"rescaling": 0.03}, 1.5, "warn"),
        ({"rescaling": 0.0204}, 1.02, "pass"),
        ({"factor": 2.0}, 1.0, "pass"),
    ],
)
def test_with_a_margin_gradient_norm_and_rescaling_are_held_against_it(
    after: dict[str, float], value: float, status: str
) -> None:
    found = judged(run("before"), run("after", **after), margin=0.05)["GL324"]
    assert (found.status, found.value) == (status, pytest.approx(value, rel=0.03))
    assert "GL324" not in judged(run("before"), run("after", **after))


def test_with_a_margin_each_run_is_held_against_the_reference() -> None:
    runs = run("one"), run("two", 1.2)
    found = {
        f.subject: f.status for f in asked(*runs, reference=run("good"), margin=0.05).findings if f.code == "GL322"
    }
    assert found == {"one": "pass", "two": "fail"}
    without = asked(*runs, reference=run("good")).findings
    assert [f.subject for f in without if f.code == "GL322"] == ["two"]


def test_noise_of_the_steps_leaves_it_open() -> None:
    found = judged(run("before"), run("after", 1.02, own_noise=0.05))["GL322"]
    assert found.status == "inconclusive"
    assert found.low is not None
    assert found.low < 0.02


def test_runs_of_other_weights_are_held_against_what_seeds_do() -> None:
    found = judged(run("before"), run("after", 1.05, weight=1.1))
    assert (found["GL321"].status, found["GL322"].status) == ("not applicable", "pass")
    assert judged(run("before"), run("after", 1.2, weight=1.1))["GL322"].status == "warn"


@pytest.mark.parametrize("what", ["variant", "schedule"])
def test_runs_that_differ_on_purpose_are_told_apart_and_not_judged(what: str) -> None:
    pair = run("before", **{what: "one"}), run("after", 1.5, gradients=2, **{what: "other"})
    found = judged(*pair)
    assert (found["GL321"].status, found["GL322"].status) == ("pass", "not applicable")
    assert f"of another {what} on purpose" in found["GL321"].claim
    assert judged(*pair, margin=0.05)["GL322"].status == "fail"


def test_a_loss_that_is_no_number_is_worse_than_any() -> None:
    loss = np.linspace(4, 2, STEPS)
    lost = np.where(np.arange(STEPS) == STEPS - 1, np.nan, loss)
    found = judged(run("before", loss=loss), run("after", loss=lost), margin=0.5)["GL322"]
    assert (found.status, found.steps) == ("fail", (STEPS - 1,))


def test_what_is_left_of_a_loss_that_has_converged_is_no_news() -> None:
    loss = np.geomspace(4, 1e-7, STEPS)
    assert judged(run("before", loss=loss), run("after", loss=3 * loss))["GL322"].status == "pass"


def test_losses_below_zero_have_a_better_side_too() -> None:
    loss, later = np.linspace(1, -4, STEPS), np.arange(STEPS) >= SAME
    assert judged(run("before", loss=loss), run("after", loss=loss + later))["GL322"].status == "warn"
    assert judged(run("before", loss=loss), run("after", loss=loss - later))["GL322"].status == "pass"


@pytest.mark.parametrize(("rounding", "status"), [(1e-6, "pass"), (3e-5, "pass"), (1e-3, "warn")])
def test_rounding_from_the_first_step_on_is_no_parting(rounding: float, status: str) -> None:
    assert judged(run("before"), run("after", rounding=rounding))["GL321"].status == status


def test_half_precision_rounds_more() -> None:
    half = {"audit": {"setting": {"autocast": "bfloat16"}}}
    pair = run("before", **half), run("after", rounding=4e-3, **half)
    assert judged(*pair)["GL321"].status == "pass"


def test_ratios_are_told_by_block() -> None:
    comparison = asked(run("before"), run("after", gradients=3.0))
    assert "of single blocks 1.00 (blocks.0) to 3.00 (blocks.3) times" in comparison.findings[1].claim
    table = comparison.sections[0].shown["Gradient norm at the end, the second run's over the first's."]
    assert table["of"].tolist() == ["whole model", "blocks.0", "blocks.1", "blocks.2", "blocks.3"]
    assert table["ratio"].iloc[-1].startswith("3.00")


@pytest.mark.parametrize(
    "pair",
    [
        (run("before"), Recording.from_tables({"kind": "attached", "label": "x"}, steps=pd.DataFrame({"step": [5]}))),
        (run("before", loss=np.nan), run("after", loss=np.nan)),
        (run("before", loss=np.inf), run("after")),
        (Recording.from_tables({"kind": "attached", "label": "a"}, steps=pd.DataFrame({"step": [0]})),
         Recording.from_tables({"kind": "attached", "label": "b"}, steps=pd.DataFrame({"step": [1]}))),
    ],
)  # fmt: skip
def test_where_there_is_too_little_nothing_is_judged(pair: tuple[Recording, Recording]) -> None:
    assert judged(*pair)["GL322"].status == "not applicable"


def test_a_number_of_one_alone_that_is_none_parts_them() -> None:
    loss = np.linspace(4, 2, STEPS)
    lost = np.where(np.arange(STEPS) >= 60, np.inf, loss)
    found = judged(run("before", loss=loss), run("after", loss=lost))["GL321"]
    assert (found.status, found.onset, found.born) == ("warn", 60, "forward")


@pytest.mark.parametrize("more", [{}, {"gradients": 5.0}, {"loss": np.nan}])
def test_the_picture_cuts_no_text(more: dict[str, Any]) -> None:
    comparison = asked(run("before"), run("after", 1.3, rounding=0.1, **more))
    assert faults(comparison.figures["parting"]) == []


def test_a_bias_that_is_0_but_for_rounding_parts_nobody() -> None:
    one, other = run("before"), run("after", rounding=1e-6)
    tables = [
        r.params.assign(name=r.params["name"].str.replace("blocks.0.w.weight", "blocks.0.w.bias")) for r in (one, other)
    ]
    odd = tables[1]["name"] == "blocks.0.w.bias"
    tables[1].loc[odd, "grad_norm"] *= np.random.default_rng(1).uniform(0.1, 10, size=odd.sum())
    found = judged(*(Recording.from_tables(r.meta, steps=r.steps.drop(columns="grad_norm"), params=p)
                     for r, p in zip((one, other), tables, strict=True)))  # fmt: skip
    assert found["GL321"].status == "pass"
    assert found["GL321"].value is not None
    assert found["GL321"].value < 2.1e-6
